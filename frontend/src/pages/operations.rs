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
        live::{either, flag, follow, live, memo, when, words},
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

/// What is known of the older ones.
#[derive(Clone, Debug, PartialEq)]
enum Older {
    NotAsked,
    Loading,
    Next(String),
    All,
}

/// What the address asks for.
#[derive(Clone, Debug, PartialEq)]
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
    let operations = memo(move || {
        let mut operations = store.operations.get();
        let oldest = operations.last().map(|operation| operation.id);
        let before = |operation: &&Operation| oldest.is_none_or(|oldest| operation.id < oldest);
        fetched.with(|fetched| operations.extend(fetched.iter().filter(before).cloned()));
        operations
    });
    let wanted = memo(move || Wanted {
        status: address.parameter("status"),
        action: address.parameter("action"),
        words: wanted_words(),
    });
    let shown = memo(move || {
        let found: Vec<Operation> = operations.with(|operations| {
            wanted.with(|wanted| operations.iter().filter(|one| wanted.has(one)).cloned().collect())
        });
        let (column, descending) = OPERATION_ORDER.of(address);
        let keys: Vec<_> = found.iter().map(|operation| operation_key(operation, column)).collect();
        places(&keys, descending).into_iter().map(|place| found[place].clone()).collect::<Vec<_>>()
    });
    let nothing = || {
        let why = "Filters look at what is loaded. Load older operations, or take a filter away.";
        empty("No operation passes the filters", view! { <p>{why}</p> }.into_any())
    };
    let table = move || {
        either(
            move || !shown.with(Vec::is_empty),
            move || operation_table(follow(shown), true),
            move || {
                either(move || operations.with(Vec::is_empty), move || no_operations(store), nothing)
                    .into_any()
            },
        )
        .into_any()
    };
    let how_many = words(move || {
        let all = operations.with(Vec::len) as u64;
        format!("{} of {} loaded", grouped(shown.with(Vec::len) as u64), count(all, "operation"))
    });
    let choices = view! { {segments("status", "Status", &STATUSES)} {action_select()} };
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

fn action_select() -> AnyView {
    let address = use_address();
    let wanted = memo(move || address.parameter("action").unwrap_or_default());
    let option = |value: &'static str| {
        let label = if value.is_empty() { "Every action".to_owned() } else { value.replace('_', " ") };
        view! { <option value=value selected=flag(move || wanted.with(|wanted| wanted == value))>{label}</option> }
            .into_any()
    };
    let mut options = vec![option("")];
    options.extend(Action::TYPES.iter().map(|name| option(name)));
    view! {
        <select
            aria-label="Action"
            data-testid="filter-action"
            on:change=move |event| {
                let action = event_target_value(&event);
                address.set_parameter("action", (!action.is_empty()).then_some(action.as_str()), true);
            }
        >
            {options}
        </select>
    }
    .into_any()
}

/// The button for what the view does not hold.
fn older(store: Store, fetched: RwSignal<Vec<Operation>>) -> AnyView {
    let older = RwSignal::new(Older::NotAsked);
    let failed = RwSignal::new(None::<ApiError>);
    let may_be_older = move || match older.get() {
        Older::NotAsked => store.operations.with(|operations| operations.len() >= VIEW_OPERATIONS),
        Older::Next(_) | Older::Loading => true,
        Older::All => false,
    };
    let load = move |_| {
        let known = older.get_untracked();
        let cursor = match &known {
            Older::Next(cursor) => Some(cursor.clone()),
            // A cursor of this list is the id that it stops before.
            _ => store.operations.with_untracked(|known| known.last().map(|oldest| oldest.id.to_string())),
        };
        older.set(Older::Loading);
        failed.set(None);
        spawn_local(async move {
            match store.api.operations(cursor).await {
                Ok(page) => {
                    fetched.update(|fetched| fetched.extend(page.items));
                    older.set(page.next.map_or(Older::All, Older::Next));
                }
                Err(error) => {
                    failed.set(Some(error));
                    older.set(known);
                }
            }
        });
    };
    let button = move || {
        view! {
            <button
                type="button"
                class="load"
                data-testid="load-older"
                disabled=flag(move || older.get() == Older::Loading)
                on:click=load
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
