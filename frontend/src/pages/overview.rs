//! The overview: one sentence first, then the figures, the nodes, and what happened.
//!
//! Test ids: `state-sentence` (with `data-tone`), `figure-writes`, `figure-p50`, `figure-p99`,
//! `figure-lag`, `figure-leader`.

use crate::{
    components::{
        chaos::ChaosPanel,
        desk::use_desk,
        feed::{EventRow, key},
        figure::Figure,
        marks::{badge, sign},
        matrix::Matrix,
        node_table::NodeTable,
        operation_view::{OperationRow, operation_head},
        shell::State,
        text::{Empty, moment, prose, revision, skeleton},
    },
    figures::{self, Figures},
    format::{self, count, micros, rate},
    store::use_store,
};
use leptos::prelude::*;

/// How many events and operations the overview shows.
const EVENTS: usize = 9;
const OPERATIONS: usize = 6;

#[component]
pub fn Overview() -> impl IntoView {
    let store = use_store();
    view! {
        <h1 class="visually-hidden">"Overview"</h1>
        <div class="overview">
            <Hero />
            <section class="card wide" aria-labelledby="nodes-title">
                <h3 id="nodes-title">"Nodes" <a href="/nodes">"who sees whom"</a></h3>
                <NodeTable />
            </section>
            <section class="card tall" aria-labelledby="events-title">
                <h3 id="events-title">"What happened" <a href="/events">"all events"</a></h3>
                <Happened />
            </section>
            <section class="card" aria-labelledby="operations-title">
                <h3 id="operations-title">"Operations" <a href="/operations">"all operations"</a></h3>
                <Recent />
            </section>
            <section class="card" aria-labelledby="matrix-title">
                <h3 id="matrix-title">"Who sees whom"</h3>
                <Show when=move || store.loaded.get() fallback=|| skeleton(3)>
                    <Matrix />
                </Show>
            </section>
            <ChaosPanel />
        </div>
    }
}

#[component]
fn Hero() -> impl IntoView {
    let store = use_store();
    let state = expect_context::<State>();
    let tone = Memo::new(move |_| state.with(|state| state.tone));
    let headline = Memo::new(move |_| state.with(|state| state.headline.clone()));
    let consequence = Memo::new(move |_| state.with(|state| state.consequence.clone()));
    let detail = Memo::new(move |_| state.with(|state| state.detail.clone()));
    let latest = move |note: fn(&Figures) -> String| {
        Signal::derive(move || {
            store
                .sample
                .with(|sample| sample.as_ref().map(|sample| note(&Figures::of(sample))).unwrap_or_default())
        })
    };
    view! {
        <section class="card hero">
            <div class=move || format!("statement {}", tone.get().class())>
                <p
                    class="sentence"
                    role="status"
                    aria-live="polite"
                    data-testid="state-sentence"
                    data-tone=move || tone.get().class()
                >
                    {move || sign(tone.get())} <span>{move || prose(&headline.get())} " " {move || prose(&consequence.get())}</span>
                </p>
                <p class="detail">{move || prose(&detail.get())}</p>
            </div>
            <Figure
                label="Writes"
                id="figure-writes"
                value=|figures| figures.writes_per_s.map(rate)
                line=|figures| figures.writes_per_s
                note=Signal::stored("proposed by the leader".to_owned())
            />
            <Figure
                label="Commit p99"
                id="figure-p99"
                value=|figures| figures.commit_p99_us.map(micros)
                line=|figures| figures.commit_p99_us.map(|us| us as f64)
                note=latest(|figures| match figures.commit_p50_us.map(micros) {
                    Some(p50) => format!("p50 {} {}", p50.number, p50.unit),
                    None => "no write in 10 s".to_owned(),
                })
            />
            <Figure
                label="Replication lag"
                id="figure-lag"
                value=|figures| {
                    figures.lag.map(|lag| format::Quantity { number: format::grouped(lag), unit: if lag == 1 { "entry" } else { "entries" } })
                }
                line=|figures| figures.lag.map(|lag| lag as f64)
                note=Signal::stored("of the one furthest behind".to_owned())
            />
            <Leader />
        </section>
    }
}

/// Who leads, which term, and since when.
#[component]
fn Leader() -> impl IntoView {
    let store = use_store();
    let leader = Memo::new(move |_| {
        store.sample.with(|sample| {
            figures::leader(sample.as_ref()?).map(|leader| (leader.report.node, leader.report.term))
        })
    });
    view! {
        <div class="figure" data-testid="figure-leader">
            <div class="figure-label">"Leader"</div>
            {move || match leader.get() {
                Some((node, term)) => {
                    view! {
                        <div class="figure-value">
                            <a class="plain" href=format!("/nodes/{node}")>{badge(node)} " node " {node.0}</a>
                        </div>
                        <div class="figure-note">
                            "term " {term}
                            {store
                                .elected
                                .get()
                                .filter(|elected| elected.leader == node && elected.term == term)
                                .map(|elected| {
                                    view! { " since " {moment(elected.at)} " · " {revision(elected.revision)} }
                                })}
                        </div>
                    }
                        .into_any()
                }
                None => {
                    view! {
                        <div class="figure-value none">{format::NONE}</div>
                        <div class="figure-note">"nobody says that it leads"</div>
                    }
                        .into_any()
                }
            }}
        </div>
    }
}

#[component]
fn Happened() -> impl IntoView {
    let store = use_store();
    let entries = Memo::new(move |_| {
        store.entries.with(|entries| {
            entries.iter().filter(|entry| entry.is_headline).take(EVENTS).cloned().collect::<Vec<_>>()
        })
    });
    view! {
        <Show when=move || store.loaded.get() fallback=|| skeleton(6)>
            <Show
                when=move || !entries.with(Vec::is_empty)
                fallback=|| {
                    view! {
                        <Empty title="Nothing has happened yet">
                            <p>"Every change of the cluster is a line here: who leads, who is up, what operators did."</p>
                        </Empty>
                    }
                }
            >
                <ul class="feed">
                    <For each=move || entries.get() key=key let(entry)>
                        <EventRow entry />
                    </For>
                </ul>
                <p class="quiet">"Steps, opinions and audit entries are left to the page of all events."</p>
            </Show>
        </Show>
    }
}

#[component]
fn Recent() -> impl IntoView {
    let store = use_store();
    let latest = Memo::new(move |_| {
        store.operations.with(|operations| operations.iter().take(OPERATIONS).cloned().collect::<Vec<_>>())
    });
    view! {
        <Show when=move || store.loaded.get() fallback=|| skeleton(4)>
            <Show when=move || !latest.with(Vec::is_empty) fallback=NoOperations>
                <div class="table operations" role="table" aria-label="The latest operations">
                    {operation_head()}
                    <For each=move || latest.get() key=|operation| (operation.id, operation.revision) let(operation)>
                        <OperationRow operation />
                    </For>
                </div>
                <p class="quiet">
                    {move || {
                        let all = store.operations.with(Vec::len) as u64;
                        (all > OPERATIONS as u64).then(|| format!("The latest of {}.", count(all, "operation")))
                    }}
                </p>
            </Show>
        </Show>
    }
}

/// What an operation is, and the button that makes the first one.
#[component]
pub fn NoOperations() -> impl IntoView {
    let store = use_store();
    let desk = use_desk();
    view! {
        <Empty title="No operation has run yet">
            <p>
                "An operation is a plan being run: every action shows its plan first, then its steps as they are done, and can be taken back where that means something."
            </p>
            {move || {
                store
                    .successor()
                    .filter(|_| store.is_live())
                    .map(|id| {
                        view! {
                            <button type="button" on:click=move |_| desk.hand_over(id)>
                                {format!("See the plan to hand over to node {id}")}
                            </button>
                        }
                    })
            }}
        </Empty>
    }
}
