//! Actions for a member: lead, vote, drain, activate, remove. Each button opens a plan.
//!
//! Nothing is decided here. A button that makes no sense is not shown; whether one that does is allowed
//! now, and why not, the plan says.
//!
//! Test ids: `make-leader-<id>`, `vote-<id>`, `drain-<id>`, `activate-<id>`, `remove-<id>`.

use crate::{
    components::{
        live::live,
        node_table::make_leader,
        plan_button::{Offer, plan_button},
    },
    store::{NodeSignals, Store, use_store},
};
use leptos::prelude::*;
use ringmaster_common::{
    action::Action,
    cluster::{Node, NodeStatus},
    id::NodeId,
};
use std::collections::BTreeSet;

/// The actions for a member, in the order of the buttons.
pub fn actions(store: Store, id: NodeId) -> Vec<Offer> {
    store.with_view(|view| {
        let Some(node) = view.nodes.get(&id) else { return Vec::new() };
        let votes_then = |other: &&Node| (other.id == id) != other.voter;
        let mut voters = BTreeSet::new();
        voters.extend(view.nodes.values().filter(votes_then).map(|node| node.id));
        let mut actions = Vec::new();
        if !voters.is_empty() {
            let label = if node.voter { "Make learner" } else { "Make voter" };
            actions.push(Offer::new("vote", label, Action::ChangeVoters { voters }));
        }
        actions.push(match node.status {
            NodeStatus::Draining | NodeStatus::Drained => {
                Offer::new("activate", "Activate", Action::ActivateNode { node: id })
            }
            _ => Offer::new("drain", "Drain", Action::DrainNode { node: id }),
        });
        actions.push(Offer::new("remove", "Remove", Action::RemoveNode { node: id }));
        actions
    })
}

pub fn member_controls(id: NodeId, node: NodeSignals) -> AnyView {
    let store = use_store();
    let offered = Memo::new(move |_| actions(store, id));
    view! {
        <div class="controls" role="group" aria-label=format!("Actions for node {id}")>
            {make_leader(id, node)}
            {live(move || offered.get().into_iter().map(|offer| plan_button("node", &id.to_string(), offer)).collect_view())}
        </div>
    }
    .into_any()
}
