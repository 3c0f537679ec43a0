//! The table of nodes. Rows have one height and columns fixed widths, so that nothing moves while
//! figures stream; each cell follows a signal of its own node.
//!
//! Test ids: `node-row-<id>`, `node-role-<id>`, `node-status-<id>`, `node-can-lose-<id>`,
//! `make-leader-<id>`.

use crate::{
    address::{Address, use_address},
    components::{
        desk::use_desk,
        live::{each, either, flag, live, maybe, words},
        marks::{live_status, node_link, role_chip, sign},
        text::{quantity, quiet, skeleton},
    },
    format::{self, micros},
    situation::Tone,
    store::{NodeSignals, Store, use_store},
};
use leptos::prelude::*;
use ringmaster_common::{cluster::Role, id::NodeId};

/// A column: its name in the address, its heading, what it means, and what it is sorted by.
struct Column {
    name: &'static str,
    label: &'static str,
    title: &'static str,
    sort_key: fn(NodeId, NodeSignals) -> SortKey,
}

/// A text, or a number. Nodes that are alike keep the order of their ids.
type SortKey = (String, u64);

const COLUMNS: [Column; 7] = [
    Column { name: "node", label: "Node", title: "", sort_key: |id, _| (String::new(), id.0) },
    Column {
        name: "zone",
        label: "Zone",
        title: "",
        sort_key: |_, node| (node.facts.with(|node| node.zone.clone()), 0),
    },
    Column { name: "role", label: "Role", title: "", sort_key: |_, node| (String::new(), rank(node.role())) },
    Column {
        name: "status",
        label: "Status",
        title: "",
        sort_key: |_, node| (String::new(), u64::MAX - node.facts.with(|node| node.status as u64)),
    },
    Column {
        name: "lag",
        label: "Lag",
        title: "Entries of the leader's log that it lacks",
        sort_key: |_, node| (String::new(), node.lag.get().map_or(0, |lag| lag + 1)),
    },
    Column {
        name: "rtt",
        label: "RTT",
        title: "Round-trip time from the node that this page is connected to",
        sort_key: |_, node| (String::new(), node.rtt_us.get().map_or(0, |rtt| rtt + 1)),
    },
    Column {
        name: "lose",
        label: "Can I lose it?",
        title: "Whether writes go on without it",
        sort_key: |_, node| (String::new(), node.can_lose.with(|can| u64::from(can.answer))),
    },
];

/// By which column, and whether downwards, as the address has it.
fn order(address: Address) -> (usize, bool) {
    let name = address.parameter("sort");
    let column = COLUMNS.iter().position(|column| Some(column.name) == name.as_deref()).unwrap_or(0);
    (column, address.parameter("order").as_deref() == Some("desc"))
}

/// `sortable` keeps the order in the page's address.
pub fn node_table(sortable: bool) -> AnyView {
    let store = use_store();
    let address = use_address();
    let ids = Signal::derive(move || {
        let ids = store.node_ids.get();
        if sortable { sorted(store, ids, order(address)) } else { ids }
    });
    let headings = COLUMNS.iter().enumerate().map(|(index, column)| heading(index, column, sortable));
    view! {
        <div class="table nodes" role="table" aria-label="Nodes">
            <div class="row head" role="row">
                {headings.collect_view()}
                <span role="columnheader">
                    <span class="visually-hidden">"Action"</span>
                </span>
            </div>
            {either(
                move || store.loaded.get(),
                move || each(ids, |id| (id.0, 0), node_row),
                || skeleton(3),
            )}
        </div>
    }
    .into_any()
}

fn sorted(store: Store, ids: Vec<NodeId>, (column, descending): (usize, bool)) -> Vec<NodeId> {
    let mut sorted: Vec<(SortKey, NodeId)> = Vec::new();
    for (id, node) in ids.into_iter().filter_map(|id| Some((id, store.node(id)?))) {
        let key = (COLUMNS[column].sort_key)(id, node);
        let place = sorted.partition_point(|(known, _)| *known <= key);
        sorted.insert(place, (key, id));
    }
    let ids = sorted.into_iter().map(|(_, id)| id);
    if descending { ids.rev().collect() } else { ids.collect() }
}

fn heading(index: usize, column: &'static Column, sortable: bool) -> AnyView {
    let address = use_address();
    let number = if matches!(column.name, "lag" | "rtt") { " number" } else { "" };
    let is_sorted = maybe(move || {
        let (by, descending) = order(address);
        let direction = if descending { "descending" } else { "ascending" };
        (sortable && by == index).then(|| direction.to_owned())
    });
    let sort = move |_| {
        let (by, descending) = untrack(|| order(address));
        address.set_parameter("sort", Some(column.name), true);
        address.set_parameter("order", (by == index && !descending).then_some("desc"), true);
    };
    let content = if sortable {
        view! { <button type="button" class="sort" on:click=sort>{column.label}</button> }.into_any()
    } else {
        column.label.into_any()
    };
    view! {
        <span role="columnheader" class=format!("cell-{}{number}", column.name) title=column.title aria-sort=is_sorted>
            {content}
        </span>
    }
    .into_any()
}

fn rank(role: Option<Role>) -> u64 {
    match role {
        Some(Role::Leader) => 0,
        Some(Role::Candidate) => 1,
        Some(Role::Follower) => 2,
        Some(Role::Learner) => 3,
        None => 4,
    }
}

fn node_row(id: NodeId) -> AnyView {
    let Some(node) = use_store().node(id) else { return ().into_any() };
    let facts = node.facts;
    let zone = words(move || facts.with(|node| node.zone.clone()));
    view! {
        <div class="row" role="row" data-testid=format!("node-row-{id}")>
            <span role="cell" class="cell-node">{node_link(id, node)}</span>
            <span role="cell" class="cell-zone" title=zone>{zone}</span>
            <span role="cell" class="cell-role" data-testid=format!("node-role-{id}")>
                {live(move || role_chip(node.role()))}
            </span>
            <span
                role="cell"
                class="cell-status"
                data-testid=format!("node-status-{id}")
                title=words(move || facts.with(|node| node.status_reason.clone()))
            >
                {live_status(node)}
            </span>
            <span role="cell" class="cell-lag number">{lag(node)}</span>
            <span role="cell" class="cell-rtt number">{live(move || quantity(node.rtt_us.get().map(micros)))}</span>
            <span role="cell" class="cell-lose" data-testid=format!("node-can-lose-{id}")>{can_lose(node)}</span>
            <span role="cell" class="cell-action">{make_leader(id, node)}</span>
        </div>
    }
    .into_any()
}

fn lag(node: NodeSignals) -> Signal<String> {
    words(move || node.lag.get().map_or_else(|| format::NONE.to_owned(), format::grouped))
}

/// The answer, with its reason.
pub fn can_lose(node: NodeSignals) -> AnyView {
    live(move || {
        node.can_lose.with(|can| {
            let tone = if can.answer { Tone::Good } else { Tone::Warning };
            view! {
                <span class=format!("labelled {}", tone.class()) title=can.reason.clone()>
                    {sign(tone)} <span class="clip">{can.reason.clone()}</span>
                </span>
            }
        })
    })
    .into_any()
}

/// Opens the plan that hands the leadership to this node. Why it may be blocked, the plan says.
pub fn make_leader(id: NodeId, node: NodeSignals) -> AnyView {
    let store = use_store();
    let desk = use_desk();
    let why_not = move || {
        if !store.is_live() {
            Some("The page is not connected to any node")
        } else if !node.facts.with(|node| node.voter) {
            Some("It is a learner, and only a voter can lead")
        } else {
            None
        }
    };
    let leads_for = words(move || {
        let elected = store.elected.get().filter(|elected| elected.leader == id);
        let since = elected.map(|elected| format::duration(format::age_ms(elected.at, store.now.get())));
        since.map_or_else(|| "leads".to_owned(), |since| format!("leads for {since}"))
    });
    let button = move || {
        view! {
            <button
                type="button"
                class="small"
                data-testid=format!("make-leader-{id}")
                disabled=flag(move || why_not().is_some())
                title=words(move || {
                    why_not().unwrap_or("See what handing over would do; nothing happens yet").to_owned()
                })
                on:click=move |_| desk.hand_over(id)
            >
                "Make leader"
            </button>
        }
        .into_any()
    };
    either(
        move || store.leader() == Some(id),
        move || view! { <span class="quiet">{leads_for}</span> }.into_any(),
        button,
    )
    .into_any()
}

/// For headings that say more in small letters.
pub fn aside(text: impl Fn() -> String + Send + Sync + 'static) -> AnyView {
    let text = words(text);
    live(move || quiet(text.get())).into_any()
}
