//! The table of nodes. Rows have one height and columns fixed widths, so that nothing moves while
//! figures stream; each cell follows a signal of its own node.
//!
//! Test ids: `node-row-<id>`, `node-role-<id>`, `node-status-<id>`, `node-can-lose-<id>`,
//! `make-leader-<id>`.

use crate::{
    components::{
        desk::use_desk,
        marks::{NodeLink, labelled, role_chip, sign, status_tone},
        text::{quantity, skeleton},
    },
    format::{self, micros},
    situation::Tone,
    store::{NodeSignals, Store, use_store},
};
use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use ringmaster_common::{
    cluster::Role,
    id::{NodeId, Revision},
};
use std::cmp::Ordering;

/// What the table can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Node,
    Zone,
    Role,
    Status,
    Lag,
    Rtt,
    Lose,
}

const COLUMNS: [(Column, &str, &str, &str); 7] = [
    (Column::Node, "node", "Node", ""),
    (Column::Zone, "zone", "Zone", ""),
    (Column::Role, "role", "Role", ""),
    (Column::Status, "status", "Status", ""),
    (Column::Lag, "lag", "Lag", "Entries of the leader's log that it lacks"),
    (Column::Rtt, "rtt", "RTT", "Round-trip time from the node that this page is connected to"),
    (Column::Lose, "lose", "Can I lose it?", "Whether writes go on without it"),
];

/// `sortable` keeps the order in the page's address.
#[component]
pub fn NodeTable(#[prop(optional)] sortable: bool) -> impl IntoView {
    let store = use_store();
    let desk = use_desk();
    let query = use_query_map();
    let order = Memo::new(move |_| {
        let (key, descending) = query.with(|query| {
            (query.get("sort").unwrap_or_default(), query.get("order").as_deref() == Some("desc"))
        });
        let column =
            COLUMNS.iter().find(|(_, name, ..)| *name == key).map_or(Column::Node, |column| column.0);
        if sortable { (column, descending) } else { (Column::Node, false) }
    });
    let ids = Memo::new(move |_| {
        let (column, descending) = order.get();
        let mut ids = store.node_ids.get();
        ids.sort_by(|a, b| {
            let ordering = compare(store, column, *a, *b).then(a.cmp(b));
            if descending { ordering.reverse() } else { ordering }
        });
        ids
    });
    let heading = move |(column, name, label, title): (Column, &'static str, &'static str, &'static str)| {
        let number = matches!(column, Column::Lag | Column::Rtt);
        let class = format!("cell-{name}{}", if number { " number" } else { "" });
        let sorted = move || match order.get() {
            (by, false) if by == column && sortable => Some("ascending"),
            (by, true) if by == column && sortable => Some("descending"),
            _ => None,
        };
        let sort = move |_| {
            let (by, descending) = order.get_untracked();
            desk.set_parameter("sort", Some(name), true);
            desk.set_parameter("order", (by == column && !descending).then_some("desc"), true);
        };
        let content = if sortable {
            view! { <button type="button" class="sort" on:click=sort>{label}</button> }.into_any()
        } else {
            label.into_any()
        };
        view! {
            <span role="columnheader" class=class title=title aria-sort=sorted>{content}</span>
        }
    };
    view! {
        <div class="table nodes" role="table" aria-label="Nodes">
            <div class="row head" role="row">
                {COLUMNS.map(heading).collect_view()}
                <span role="columnheader"><span class="visually-hidden">"Action"</span></span>
            </div>
            <Show when=move || store.loaded.get() fallback=|| skeleton(3)>
                <For each=move || ids.get() key=|id| *id let(id)>
                    <NodeRow id />
                </For>
            </Show>
        </div>
    }
}

fn compare(store: Store, column: Column, a: NodeId, b: NodeId) -> Ordering {
    let (Some(left), Some(right)) = (store.node(a), store.node(b)) else { return a.cmp(&b) };
    match column {
        Column::Node => a.cmp(&b),
        Column::Zone => {
            left.facts.with(|node| node.zone.clone()).cmp(&right.facts.with(|node| node.zone.clone()))
        }
        Column::Role => rank(left.role()).cmp(&rank(right.role())),
        Column::Status => right.facts.with(|node| node.status).cmp(&left.facts.with(|node| node.status)),
        Column::Lag => left.lag.get().cmp(&right.lag.get()),
        Column::Rtt => left.rtt_us.get().cmp(&right.rtt_us.get()),
        Column::Lose => left.can_lose.with(|can| can.answer).cmp(&right.can_lose.with(|can| can.answer)),
    }
}

fn rank(role: Option<Role>) -> u8 {
    match role {
        Some(Role::Leader) => 0,
        Some(Role::Candidate) => 1,
        Some(Role::Follower) => 2,
        Some(Role::Learner) => 3,
        None => 4,
    }
}

#[component]
fn NodeRow(id: NodeId) -> impl IntoView {
    let store = use_store();
    let Some(node) = store.node(id) else { return ().into_any() };
    let facts = node.facts;
    let status = move || facts.with(|node| node.status);
    view! {
        <div class="row" role="row" data-testid=format!("node-row-{id}")>
            <span role="cell" class="cell-node"><NodeLink id /></span>
            <span role="cell" class="cell-zone" title=move || facts.with(|node| node.zone.clone())>
                {move || facts.with(|node| node.zone.clone())}
            </span>
            <span role="cell" class="cell-role" data-testid=format!("node-role-{id}")>
                {move || role_chip(node.role())}
            </span>
            <span
                role="cell"
                class="cell-status"
                data-testid=format!("node-status-{id}")
                title=move || facts.with(|node| node.status_reason.clone())
            >
                {move || labelled(status_tone(status()), status().as_str())}
            </span>
            <span role="cell" class="cell-lag number">{lag(node)}</span>
            <span role="cell" class="cell-rtt number">{move || quantity(node.rtt_us.get().map(micros))}</span>
            <span role="cell" class="cell-lose" data-testid=format!("node-can-lose-{id}")>{can_lose(node)}</span>
            <span role="cell" class="cell-action"><MakeLeader id node /></span>
        </div>
    }
    .into_any()
}

pub fn lag(node: NodeSignals) -> impl IntoView {
    move || match node.lag.get() {
        Some(lag) => format::grouped(lag),
        None => format::NONE.to_owned(),
    }
}

/// The answer, with its reason.
pub fn can_lose(node: NodeSignals) -> impl IntoView {
    move || {
        node.can_lose.with(|can| {
            let tone = if can.answer { Tone::Good } else { Tone::Warning };
            view! {
                <span class=format!("labelled {}", tone.class()) title=can.reason.clone()>
                    {sign(tone)} <span class="clip">{can.reason.clone()}</span>
                </span>
            }
        })
    }
}

/// Opens the plan that hands the leadership to this node. Why it may be blocked, the plan says.
#[component]
pub fn MakeLeader(id: NodeId, node: NodeSignals) -> impl IntoView {
    let store = use_store();
    let desk = use_desk();
    let leads = Memo::new(move |_| store.leader() == Some(id));
    let votes = move || node.facts.with(|node| node.voter);
    let why_not = Memo::new(move |_| {
        if !store.is_live() {
            Some("The page is not connected to any node")
        } else if leads.get() {
            Some("It leads already")
        } else if !votes() {
            Some("It is a learner, and only a voter can lead")
        } else {
            None
        }
    });
    view! {
        <Show
            when=move || !leads.get()
            fallback=move || {
                view! {
                    <span class="quiet since">
                        {move || {
                            store
                                .elected
                                .get()
                                .filter(|elected| elected.leader == id && elected.revision > Revision(0))
                                .map(|elected| {
                                    format!("for {}", format::duration(format::age_ms(elected.at, store.now.get())))
                                })
                        }}
                    </span>
                }
            }
        >
            <button
                type="button"
                class="small"
                data-testid=format!("make-leader-{id}")
                disabled=move || why_not.get().is_some()
                title=move || why_not.get().unwrap_or("See what handing over would do; nothing happens yet")
                on:click=move |_| desk.hand_over(id)
            >
                "Make leader"
            </button>
        </Show>
    }
}
