//! Draining a node, so that it can be stopped without an effect on clients.
//!
//! A drained node still votes and keeps its data; it leads nothing and is no candidate in an election. So it counts for
//! the quorum as long as it runs, and a drain is blocked where the others have no quorum without it.

use crate::{
    activate_node,
    blocker::Blocker,
    draft::{
        ENTRY_WITHIN, PREFLIGHT_WITHIN, draft, find, leader, step, texts_of_blockers, texts_of_warnings,
    },
    quorum::{Voters, living, majority, spare_voters, voter_sets},
    transfer_leadership::{TRANSFER_WITHIN, successor},
    warning::Warning,
    words::named,
};
use ringmaster_cluster::{
    State,
    observations::Observations,
    plans::{Draft, DraftStep, FactKey},
    steps::{Check, StepSpec},
};
use ringmaster_common::{
    action::Action,
    cluster::{Node, NodeStatus},
    duration::millis,
    error::Refusal,
    id::NodeId,
    plan::{Impact, Scope},
};

pub fn plan(
    state: &State,
    observations: &Observations,
    action: Action,
    id: NodeId,
) -> Result<Draft, Refusal> {
    let node = find(state, id)?;
    let leader = leader(state)?;
    let leads = leader == id;
    let next = successor(state, observations, |other| other != id);
    let mut warnings = Vec::new();
    let sets = voter_sets(state, observations);
    let spare = |voters: &Voters| spare_voters(state, observations, voters);
    if sets.iter().any(|voters| voters.contains(&id) && spare(voters) <= 1) {
        warnings.push(Warning::NoSpareVoterWithout { node: id });
    }
    let mut blockers = blockers(state, observations, node);
    if matches!(node.status, NodeStatus::Draining | NodeStatus::Drained) {
        blockers.insert(0, Blocker::AlreadyDrained { node: id, status: node.status });
    }
    let transfer = match next.filter(|_| leads) {
        Some(next) => {
            format!(" It leads; leadership moves to another voter, probably {}.", named(state, next))
        }
        None => String::new(),
    };
    // A drain reads its node and all whose votes it counts.
    let mut nodes = state.membership.voters.clone();
    nodes.insert(id);
    let facts = [FactKey::Membership].into_iter().chain(nodes.into_iter().map(FactKey::Node));
    let draft = draft(state, observations, action, Scope::Cluster, facts);
    Ok(Draft {
        steps: steps(state, id),
        revert: Some(activate_node::steps(id)),
        undo: Some(Action::ActivateNode { node: id }),
        summary: format!(
            "Node {id} ({}) stops taking leadership and can then be stopped; its proxy keeps serving until it is \
             stopped.{transfer} It will not become leader until it is activated.",
            node.name
        ),
        impact: Impact {
            write_pause_bound_ms: leads.then(|| millis(observations.election_bound)),
            leader_after: if leads { next } else { Some(leader) },
            ..draft.impact
        },
        warnings: texts_of_warnings(&warnings),
        blockers: texts_of_blockers(&blockers),
        ..draft
    })
}

pub fn steps(state: &State, node: NodeId) -> Vec<DraftStep> {
    let others = state.membership.voters.iter().copied().filter(|other| *other != node).collect();
    vec![
        step(StepSpec::Preflight(Check::Drain { node }), "Check again: quorum is kept", PREFLIGHT_WITHIN),
        step(StepSpec::DrainNode { node }, format!("Mark node {node} as draining"), ENTRY_WITHIN),
        step(
            StepSpec::TransferLeadership { from: None, to: others },
            format!("Transfer leadership, if node {node} is the leader"),
            TRANSFER_WITHIN,
        ),
        step(StepSpec::MarkDrained { node }, format!("Mark node {node} as drained"), ENTRY_WITHIN),
    ]
}

pub fn preflight(state: &State, observations: &Observations, node: NodeId) -> Vec<Blocker> {
    match state.membership.get(node) {
        Some(node) => blockers(state, observations, node),
        None => vec![Blocker::UnknownNode { node }],
    }
}

/// What blocks draining `node` now.
fn blockers(state: &State, observations: &Observations, node: &Node) -> Vec<Blocker> {
    let id = node.id;
    let mut blockers = Vec::new();
    let lost = voter_sets(state, observations).into_iter().find_map(|voters| {
        let mut others = voters.clone();
        // A node that is drained already may be stopped at any moment.
        others.retain(|other| {
            *other != id && state.membership.get(*other).is_some_and(|node| node.status == NodeStatus::Up)
        });
        let (left, needed) = (living(state, observations, &others), majority(&voters));
        let is_needed = voters.contains(&id) && left < needed;
        is_needed.then_some(Blocker::QuorumNeedsNode { node: id, left, needed, voters: voters.len() })
    });
    blockers.extend(lost);
    if !node.is_alive() {
        let lifted_by = "remove the node instead, if it does not come back";
        blockers.push(Blocker::node_not_up(node, lifted_by));
    }
    if state.leader() == Some(id) && successor(state, observations, |other| other != id).is_none() {
        blockers.push(Blocker::NoSuccessor { leader: id, stays_voter: true });
    }
    blockers
}
