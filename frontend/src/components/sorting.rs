//! Headings that sort a table. By which column, and which way, is in the page's address.

use crate::{
    address::{Address, use_address},
    components::live::{click, optional},
};
use leptos::prelude::*;

/// A column: its name in the address, its heading, and what it means.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    pub label: &'static str,
    pub title: &'static str,
    pub is_number: bool,
}

pub const fn column(name: &'static str, label: &'static str) -> Column {
    Column { name, label, title: "", is_number: false }
}

pub const fn number(name: &'static str, label: &'static str, title: &'static str) -> Column {
    Column { name, label, title, is_number: true }
}

/// The sort key of a row: a text, or a number. The sort is stable.
pub type SortKey = (String, u64);

/// A table's columns, and its order where the address names none.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub columns: &'static [Column],
    /// The first column, downwards.
    pub latest_first: bool,
    /// The name of the table in the address, where there is another one on the page.
    pub of: &'static str,
}

impl Order {
    fn parameter(self, what: &str) -> String {
        format!("{}{what}", self.of)
    }

    /// By which column, and whether downwards.
    pub fn of(self, address: Address) -> (usize, bool) {
        let name = address.parameter(&self.parameter("sort"));
        let column = self.columns.iter().position(|column| Some(column.name) == name.as_deref());
        let descending = match address.parameter(&self.parameter("order")).as_deref() {
            Some(order) => order == "desc",
            None => self.latest_first && column.is_none(),
        };
        (column.unwrap_or(0), descending)
    }

    /// The row of headings, and beside them an empty one where rows have buttons.
    pub fn headings(self, sortable: bool, action: bool) -> AnyView {
        let headings = (0..self.columns.len()).map(|index| self.heading(index, sortable));
        let action = action.then(|| {
            view! {
                <span role="columnheader">
                    <span class="visually-hidden">"Action"</span>
                </span>
            }
            .into_any()
        });
        view! { <div class="row head" role="row">{headings.collect_view()} {action}</div> }.into_any()
    }

    fn heading(self, index: usize, sortable: bool) -> AnyView {
        let address = use_address();
        let column = &self.columns[index];
        let is_sorted = optional(move || {
            let (by, descending) = self.of(address);
            let direction = if descending { "descending" } else { "ascending" };
            (sortable && by == index).then(|| direction.to_owned())
        });
        let sort = move || {
            let (by, descending) = untrack(|| self.of(address));
            let order = if by == index && !descending { "desc" } else { "asc" };
            address.set_parameter(&self.parameter("sort"), Some(column.name), true);
            address.set_parameter(&self.parameter("order"), Some(order), true);
        };
        let content = if sortable {
            view! { <button type="button" class="sort" on:click=click(sort)>{column.label}</button> }
                .into_any()
        } else {
            column.label.into_any()
        };
        let number = if column.is_number { " number" } else { "" };
        view! {
            <span
                role="columnheader"
                class=format!("cell-{}{number}", column.name)
                title=column.title
                aria-sort=is_sorted
            >
                {content}
            </span>
        }
        .into_any()
    }
}

/// Where each row goes, given its key.
pub fn places(keys: &[SortKey], descending: bool) -> Vec<usize> {
    let mut places: Vec<usize> = Vec::with_capacity(keys.len());
    for index in 0..keys.len() {
        let place = places.partition_point(|known| {
            if descending { keys[*known] >= keys[index] } else { keys[*known] <= keys[index] }
        });
        places.insert(place, index);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_keeps_its_order() {
        let keys = [("b", 1), ("a", 2), ("b", 1), ("a", 1)].map(|(text, number)| (text.to_owned(), number));
        assert_eq!(places(&keys, false), [3, 1, 0, 2]);
        assert_eq!(places(&keys, true), [0, 2, 1, 3]);
    }
}
