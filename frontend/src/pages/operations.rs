//! All operations, the latest first. Those of the view are live; older ones are fetched.
//!
//! Test ids: `operation-row-<id>`, `load-older`.

use crate::{
    api::ApiError,
    components::{
        live::{either, flag, follow, live, memo, when},
        operation_view::operation_table,
        text::{refusal, skeleton},
    },
    pages::overview::no_operations,
    store::use_store,
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{operation::Operation, view::VIEW_OPERATIONS};

/// What is known of the older ones.
#[derive(Clone, Debug, PartialEq)]
enum Older {
    NotAsked,
    Loading,
    Next(String),
    All,
}

pub fn operations_page() -> AnyView {
    let store = use_store();
    let fetched = RwSignal::new(Vec::<Operation>::new());
    let older = RwSignal::new(Older::NotAsked);
    let failed = RwSignal::new(None::<ApiError>);
    let operations = memo(move || {
        let mut operations = store.operations.get();
        let oldest = operations.last().map(|operation| operation.id);
        let before = |operation: &&Operation| oldest.is_none_or(|oldest| operation.id < oldest);
        fetched.with(|fetched| operations.extend(fetched.iter().filter(before).cloned()));
        operations
    });
    let may_be_older = move || match older.get() {
        Older::NotAsked => store.operations.with(|operations| operations.len() >= VIEW_OPERATIONS),
        Older::Next(_) | Older::Loading => true,
        Older::All => false,
    };
    let load = move |_| {
        let cursor = match older.get_untracked() {
            Older::Next(cursor) => Some(cursor),
            _ => None,
        };
        older.set(Older::Loading);
        failed.set(None);
        spawn_local(async move {
            match store.api.operations(cursor.clone()).await {
                Ok(page) => {
                    fetched.update(|fetched| fetched.extend(page.items));
                    older.set(page.next.map_or(Older::All, Older::Next));
                }
                Err(error) => {
                    failed.set(Some(error));
                    older.set(cursor.map_or(Older::NotAsked, Older::Next));
                }
            }
        });
    };
    let table = move || {
        either(
            move || !operations.with(Vec::is_empty),
            move || operation_table(follow(operations)),
            move || no_operations(store),
        )
        .into_any()
    };
    let button = move || {
        view! {
            <button
                type="button"
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
        <div class="page">
            <h1>"Operations"</h1>
            <section class="card" aria-label="Operations">
                {either(move || store.loaded.get(), table, || skeleton(6))}
                {live(move || failed.get().map(|error| refusal(&error)))}
                {when(may_be_older, button)}
            </section>
        </div>
    }
    .into_any()
}
