//! The overview: one sentence first, then the metrics, the nodes, and what happened.
//!
//! Test ids: `state-sentence` (with `data-tone`), and those of [`crate::components::metric`].

use crate::{
    components::{
        chaos::chaos_panel,
        feed::{RowDetail, feed},
        icons::sign,
        live::{class_if, click, either, live, text, when},
        matrix::matrix,
        metric::{commit_metric, lag_metric, leader_metric, locks_metric, requests_metric, writes_metric},
        node_table::node_table,
        operation_view::operation_table,
        plan_panel::use_plan_panel,
        shell::State,
        text::{card, empty, linkify, skeleton},
    },
    store::{Store, use_store},
};
use leptos::prelude::*;

/// How many events and operations the overview shows.
/// A window that is not wide shows the first 13 of them.
const EVENTS: usize = 26;
const OPERATIONS: usize = 7;

pub fn overview() -> AnyView {
    let store = use_store();
    let more = |href: &'static str, label: &'static str| view! { <a href=href>{label}</a> }.into_any();
    let loaded = move || store.loaded.get();
    view! {
        <h1 class="visually-hidden">"Overview"</h1>
        <div class="overview">
            {hero(store)}
            {card("wide", "nodes-title", "Nodes", more("/nodes", "reachability"), node_table(false))}
            {card("tall", "events-title", "Events", more("/events", "all events"), happened(store))}
            {card("", "operations-title", "Operations", more("/operations", "all operations"), recent(store))}
            {card(
                "",
                "matrix-title",
                "Reachability",
                ().into_any(),
                either(loaded, matrix, || skeleton(3)).into_any(),
            )}
            {chaos_panel(None)}
        </div>
    }
    .into_any()
}

fn hero(store: Store) -> AnyView {
    let state = expect_context::<State>();
    let tone = Memo::new(move |_| state.with(|state| state.tone));
    let sentence =
        Memo::new(move |_| state.with(|state| format!("{} {}", state.headline, state.consequence)));
    let detail = Memo::new(move |_| state.with(|state| state.detail.clone()));
    view! {
        <section class="card hero six" aria-label="State and metrics">
            <div class=text(move || format!("statement {}", tone.get().class()))>
                <div class="sentence">
                    {live(move || sign(tone.get()))}
                    <p
                        data-testid="state-sentence"
                        data-tone=text(move || tone.get().class().to_owned())
                    >
                        {live(move || linkify(&sentence.get()))}
                    </p>
                </div>
                <p class="detail">{live(move || linkify(&detail.get()))}</p>
            </div>
            {requests_metric(store)} {locks_metric(store)} {leader_metric(store)}
            {writes_metric()} {commit_metric()} {lag_metric()}
        </section>
    }
    .into_any()
}

fn happened(store: Store) -> AnyView {
    let entries = Memo::new(move |_| {
        store.headlines.with(|headlines| headlines.iter().take(EVENTS).cloned().collect::<Vec<_>>())
    });
    let nothing = || {
        let why = "Every change of the cluster is a line here: elections, node status, operations.";
        empty("No events yet", view! { <p>{why}</p> }.into_any())
    };
    let list = move || {
        view! {
            {feed(entries, RowDetail::Short)}
            <p class="quiet">"Steps, opinions and audit entries are left to the page of all events."</p>
        }
        .into_any()
    };
    let known = either(move || !entries.with(Vec::is_empty), list, nothing);
    when_loaded(store, known.into_any(), 6)
}

fn recent(store: Store) -> AnyView {
    let latest = Memo::new(move |_| {
        store.operations.with(|operations| operations.iter().take(OPERATIONS).cloned().collect::<Vec<_>>())
    });
    let known = either(
        move || !latest.with(Vec::is_empty),
        move || operation_table(latest, false),
        move || no_operations(store),
    );
    when_loaded(store, known.into_any(), 4)
}

/// Grey lines until the first view is there. `known` is hidden until then, not made later.
fn when_loaded(store: Store, known: AnyView, rows: usize) -> AnyView {
    let hidden = class_if(move || !store.loaded.get());
    let waiting = when(move || !store.loaded.get(), move || skeleton(rows));
    view! { {waiting} <div hidden=hidden>{known}</div> }.into_any()
}

/// The empty state of operations, with the button for the first one.
pub fn no_operations(store: Store) -> AnyView {
    let panel = use_plan_panel();
    let first = live(move || {
        store.successor().filter(|_| store.is_live()).map(|id| {
            view! {
                <button type="button" on:click=click(move || panel.transfer_leadership(id))>
                    {format!("Plan a leadership transfer to node {id}")}
                </button>
            }
        })
    });
    let why = "An operation is a plan that runs: each action shows its plan first, then the progress of its \
               steps. Most operations can be undone.";
    empty("No operation has run yet", view! { <p>{why}</p> {first} }.into_any())
}
