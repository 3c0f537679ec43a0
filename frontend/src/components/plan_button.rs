//! A button that opens a plan. It decides nothing: whether what it asks for is allowed now, with which
//! consequences, and why not, the plan says.
//!
//! Test ids are those that the offers name.

use crate::{
    components::{
        live::{class_if, click, text},
        plan_panel::use_plan_panel,
    },
    store::use_store,
};
use leptos::prelude::*;
use ringmaster_common::action::Action;

/// An action that can be planned.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Identifies the button among its neighbours, together with the subject, in its test id.
    pub name: &'static str,
    pub label: &'static str,
    pub action: Action,
}

impl Offer {
    pub fn new(name: &'static str, label: &'static str, action: Action) -> Offer {
        Offer { name, label, action }
    }
}

/// A small button of a row. `what` is what it is about (`endpoint`), and `id` which one.
pub fn plan_button(what: &str, id: &str, Offer { name, label, action }: Offer) -> AnyView {
    button("small", format!("{name}-{id}"), Some(format!("{label}: {what} {id}")), label, action)
}

/// A button of a page's heading, which says what the page is about.
pub fn page_plan_button(Offer { name, label, action }: Offer) -> AnyView {
    button("", name.to_owned(), None, label, action)
}

fn button(
    class: &'static str,
    test_id: String,
    says: Option<String>,
    label: &'static str,
    action: Action,
) -> AnyView {
    let (store, panel) = (use_store(), use_plan_panel());
    view! {
        <button
            type="button"
            class=class
            data-testid=test_id
            title=text(move || store.cannot_plan().unwrap_or("Shows the plan; changes nothing yet").to_owned())
            aria-label=says
            disabled=class_if(move || store.cannot_plan().is_some())
            on:click=click(move || panel.propose(action.clone()))
        >
            {label}
        </button>
    }
    .into_any()
}
