//! All operations, the latest first. Those of the view are live; older ones are fetched.
//!
//! Filters and order are in the page's address, and apply to what is loaded.
//!
//! Test ids: `operation-row-<id>`, `load-older`, and those of [`crate::components::filters`].

use crate::{
    address::use_address,
    api::ApiError,
    components::{
        filters::{filters, has_words, segments, wanted_words},
        live::{click, either, live, text, when},
        operation_view::{OPERATION_ORDER, operation_key, operation_table},
        sorting::places,
        text::{empty, refusal, skeleton},
    },
    format::{count, grouped},
    pages::overview::no_operations,
    store::{Store, use_store},
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{action::Action, operation::Operation, view::VIEW_OPERATIONS};

const STATUSES: [&str; 5] = ["under_way", "succeeded", "failed", "aborted", "reverted"];

/// The filters in the address.
struct Wanted {
    status: Option<String>,
    action: Option<String>,
    words: String,
}

impl Wanted {
    fn has(&self, operation: &Operation) -> bool {
        let status = if operation.status.is_final() { operation.status.as_str() } else { "under_way" };
        self.status.as_deref().is_none_or(|wanted| wanted == status)
            && self.action.as_deref().is_none_or(|wanted| wanted == operation.action.type_name())
            && has_words(
                &format!(
                    "{} {} {} {}",
                    operation.id, operation.action, operation.summary, operation.started_by
                ),
                &self.words,
            )
    }
}

pub fn operations_page() -> AnyView {
    let store = use_store();
    let address = use_address();
    let fetched = RwSignal::new(Vec::<Operation>::new());
    let operations = Memo::new(move |_| {
        let mut operations = store.operations.get();
        let oldest = operations.last().map(|operation| operation.id);
        let before = |operation: &&Operation| oldest.is_none_or(|oldest| operation.id < oldest);
        fetched.with(|fetched| operations.extend(fetched.iter().filter(before).cloned()));
        operations
    });
    let shown = Memo::new(move |_| {
        let wanted = Wanted {
            status: address.parameter("status"),
            action: address.parameter("action"),
            words: wanted_words(),
        };
        let found: Vec<Operation> =
            operations.with(|operations| operations.iter().filter(|one| wanted.has(one)).cloned().collect());
        let (column, descending) = OPERATION_ORDER.of(address);
        let keys: Vec<_> = found.iter().map(|operation| operation_key(operation, column)).collect();
        places(&keys, descending).into_iter().map(|place| found[place].clone()).collect::<Vec<_>>()
    });
    let nothing = || {
        let why = "Filters apply to the loaded operations. Load older ones, or remove a filter.";
        empty("No operation passes the filters", view! { <p>{why}</p> }.into_any())
    };
    let table = move || {
        either(
            move || !shown.with(Vec::is_empty),
            move || operation_table(shown, true),
            move || {
                either(move || operations.with(Vec::is_empty), move || no_operations(store), nothing)
                    .into_any()
            },
        )
        .into_any()
    };
    let how_many = text(move || {
        let all = operations.with(Vec::len) as u64;
        format!("{} of {} loaded", grouped(shown.with(Vec::len) as u64), count(all, "operation"))
    });
    let choices = view! { {segments("status", &STATUSES)} {segments("action", Action::TYPES)} };
    view! {
        <div class="page">
            <h1>"Operations"</h1>
            {filters(choices.into_any(), "Words, a node, an id", how_many)}
            <section class="card" aria-label="Operations">
                {either(move || store.loaded.get(), table, || skeleton(6))} {older(store, fetched)}
            </section>
        </div>
    }
    .into_any()
}

/// The button for what the view does not hold.
fn older(store: Store, fetched: RwSignal<Vec<Operation>>) -> AnyView {
    // The cursor: before the oldest known operation, until the server reports the end.
    let next = RwSignal::new(None::<String>);
    let (asked, loading) = (RwSignal::new(false), RwSignal::new(false));
    let failed = RwSignal::new(None::<ApiError>);
    let may_be_older = move || match asked.get() {
        false => store.operations.with(|operations| operations.len() >= VIEW_OPERATIONS),
        true => next.with(Option::is_some),
    };
    let load = move || {
        let oldest = || store.operations.with_untracked(|known| known.last().map(|last| last.id.to_string()));
        let cursor = next.get_untracked().or_else(oldest);
        loading.set(true);
        failed.set(None);
        spawn_local(async move {
            match store.api.operations(cursor).await {
                Ok(page) => {
                    fetched.update(|fetched| fetched.extend(page.items));
                    next.set(page.next);
                    asked.set(true);
                }
                Err(error) => failed.set(Some(error)),
            }
            loading.set(false);
        });
    };
    let button = move || {
        view! {
            <button
                type="button"
                class="load"
                data-testid="load-older"
                disabled={loading}
                on:click=click(load)
            >
                "Load older operations"
            </button>
        }
        .into_any()
    };
    view! {
        {live(move || failed.get().map(|error| refusal(&error)))}
        {when(may_be_older, button)}
    }
    .into_any()
}
