//! The table of nodes. Rows have one height and columns fixed widths, so that nothing moves while
//! metrics stream; each cell follows a signal of its own node.
//!
//! Test ids: `node-row-<id>`, `node-role-<id>`, `node-status-<id>`, `node-can-lose-<id>`,
//! `make-leader-<id>`.

use crate::{
    address::use_address,
    components::{
        icons::{live_status, node_link, role_chip, sign},
        live::{class_if, click, each, either, live, text},
        plan_panel::use_plan_panel,
        sorting::{Column, Order, SortKey, column, number, places},
        text::{quantity, quiet, skeleton},
    },
    format::{self, micros},
    leadership::ShownRole,
    store::{NodeSignals, Store, use_store},
    tone::Tone,
};
use leptos::prelude::*;
use ringmaster_common::{cluster::NodeStatus, id::NodeId};

const COLUMNS: [Column; 7] = [
    column("node", "Node"),
    column("zone", "Zone"),
    column("role", "Role"),
    column("status", "Status"),
    number("lag", "Lag", "Entries of the leader's log that it lacks"),
    number("rtt", "RTT", "Round-trip time from the node that this page is connected to"),
    Column {
        name: "lose",
        label: "Safe to stop",
        title: "Whether the cluster accepts writes without it",
        is_number: false,
    },
];
const ORDER: Order = Order { columns: &COLUMNS, latest_first: false, of: "" };

fn sort_key(column: usize, id: NodeId, node: NodeSignals) -> SortKey {
    let number = match COLUMNS[column].name {
        "zone" => return (node.facts.with(|node| node.zone.clone()), 0),
        "role" => rank(node.role.get()),
        "status" => u64::MAX - node.facts.with(|node| node.status as u64),
        "lag" => node.lag.get().map_or(0, |lag| lag + 1),
        "rtt" => node.rtt_us.get().map_or(0, |rtt| rtt + 1),
        "lose" => node.can_lose.with(|can| u64::from(can.answer)),
        _ => id.0,
    };
    (String::new(), number)
}

/// `sortable` keeps the order in the page's address.
pub fn node_table(sortable: bool) -> AnyView {
    let store = use_store();
    let address = use_address();
    let ids = Memo::new(move |_| {
        let ids = store.node_ids.get();
        if sortable { sorted(store, &ids, ORDER.of(address)) } else { ids }
    });
    view! {
        <div class="table nodes" role="table" aria-label="Nodes">
            {ORDER.headings(sortable, true)}
            {either(
                move || store.loaded.get(),
                move || each(ids, |id| *id, node_row),
                || skeleton(3),
            )}
        </div>
    }
    .into_any()
}

fn sorted(store: Store, ids: &[NodeId], (column, descending): (usize, bool)) -> Vec<NodeId> {
    let key = |id: &NodeId| store.node(*id).map_or_else(SortKey::default, |node| sort_key(column, *id, node));
    let keys: Vec<SortKey> = ids.iter().map(key).collect();
    places(&keys, descending).into_iter().map(|place| ids[place]).collect()
}

fn rank(role: ShownRole) -> u64 {
    match role {
        ShownRole::Leader => 0,
        ShownRole::Candidate => 1,
        ShownRole::Follower => 2,
        ShownRole::Learner => 3,
        ShownRole::FormerLeader(_) | ShownRole::WithoutQuorum(_) => 4,
        ShownRole::NotReporting => 5,
    }
}

fn node_row(id: NodeId) -> AnyView {
    let Some(node) = use_store().node(id) else { return ().into_any() };
    let facts = node.facts;
    let zone = text(move || facts.with(|node| node.zone.clone()));
    view! {
        <div class="row" role="row" data-testid=format!("node-row-{id}")>
            <span role="cell" class="cell-node">{node_link(id, node)}</span>
            <span role="cell" class="cell-zone" title=zone>{zone}</span>
            <span role="cell" class="cell-role" data-testid=format!("node-role-{id}")>
                {live(move || role_chip(node.role.get()))}
            </span>
            <span
                role="cell"
                class="cell-status"
                data-testid=format!("node-status-{id}")
                title=text(move || facts.with(|node| node.status_reason.clone()))
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
    text(move || node.lag.get().map_or_else(|| format::NONE.to_owned(), format::grouped))
}

/// The answer, with its reason.
pub fn can_lose(node: NodeSignals) -> AnyView {
    live(move || {
        node.can_lose.with(|can| {
            let tone = match can.answer {
                true if can.reason.starts_with("yes") => Tone::Good,
                // It is down already: nothing good, and no further harm.
                true => Tone::Note,
                false => Tone::Warning,
            };
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
    let panel = use_plan_panel();
    let why_not = move || {
        if let Some(reason) = store.cannot_plan() {
            Some(reason)
        } else if !node.facts.with(|node| node.voter) {
            Some("It is a learner, and only a voter can lead")
        } else if node.facts.with(|node| matches!(node.status, NodeStatus::Draining | NodeStatus::Drained)) {
            Some("It is drained: activate it first")
        } else if node.facts.with(|node| node.status == NodeStatus::Down) || node.report.with(Option::is_none)
        {
            Some("It does not report, so it cannot lead")
        } else {
            None
        }
    };
    let leads_for = text(move || {
        let elected = store.elected.get().filter(|elected| elected.leader == id);
        let since = elected.map(|elected| format::duration(format::age_ms(elected.at, store.now.get())));
        since.map_or_else(|| "leads".to_owned(), |since| format!("leads for {since}"))
    });
    let button = move || {
        view! {
            <button
                type="button"
                class="small"
                aria-label=format!("Make leader: node {id}")
                data-testid=format!("make-leader-{id}")
                disabled=class_if(move || why_not().is_some())
                title=text(move || {
                    why_not().unwrap_or("Shows the plan of the transfer; changes nothing yet").to_owned()
                })
                on:click=click(move || panel.transfer_leadership(id))
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
pub fn aside(value: impl Fn() -> String + Send + Sync + 'static) -> AnyView {
    live(move || quiet(value())).into_any()
}
