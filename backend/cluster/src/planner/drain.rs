//! Emptying a node of its duties, so that it can be stopped without anybody noticing, and the way back.
//!
//! A drained node still votes and holds what it held; it leads nothing and stands in no election. So
//! it counts for the quorum as long as it runs, and what a drain asks is whether the others could do
//! without it.

use super::{
    Observations, find, footprint, living, majority, named, no_leader, spare_voters, subject, successor,
    unchanged,
};
use crate::{
    State,
    plans::{Draft, FactKey, Goal},
};
use ringmaster_common::{
    action::Action,
    cluster::{Node, NodeStatus},
    duration::millis,
    error::Refusal,
    id::NodeId,
    plan::{Blocker, Impact, Warning},
};

pub(super) fn drain(
    state: &State,
    observations: &Observations,
    action: Action,
    id: NodeId,
) -> Result<Draft, Refusal> {
    let node = find(state, id)?;
    let leader = state.leader().ok_or_else(no_leader)?;
    let leads = leader == id;
    let next = successor(state, observations, |other| other != id);
    let spare = spare_voters(state, &state.membership.voters);
    let mut warnings = Vec::new();
    if node.voter && spare <= 1 {
        warnings.push(Warning {
            code: "no_spare_voter".to_owned(),
            detail: format!("While node {id} is stopped, no other voter may fail."),
            subject: subject(id),
        });
    }
    let mut blockers = blockers(state, observations, node);
    if matches!(node.status, NodeStatus::Draining | NodeStatus::Drained) {
        blockers.insert(
            0,
            Blocker {
                code: "already_drained".to_owned(),
                detail: format!("node {id} is {} already", node.status.as_str()),
                subject: subject(id),
                lifted_by: format!("activate node {id} to end that"),
            },
        );
    }
    let hand_over = match next.filter(|_| leads) {
        Some(next) => format!(" It leads, and hands over to another voter, likely {}.", named(state, next)),
        None => String::new(),
    };
    Ok(Draft {
        summary: format!(
            "Node {id} ({}) is emptied of its duties and can be stopped then.{hand_over} It stands in no election \
             until it is activated again.",
            node.name
        ),
        footprint: facts(state, id),
        impact: Impact {
            write_pause_bound_ms: leads.then(|| millis(observations.election_bound)),
            leader_before: Some(leader),
            leader_after: if leads { next } else { Some(leader) },
            ..unchanged(state)
        },
        observations: Vec::new(),
        warnings,
        blockers,
        goal: Goal::DrainNode { node: id },
        revision: state.revision,
        undoes: None,
        action,
    })
}

pub(super) fn activate(state: &State, action: Action, id: NodeId) -> Result<Draft, Refusal> {
    let node = find(state, id)?;
    let mut blockers = Vec::new();
    if !matches!(node.status, NodeStatus::Draining | NodeStatus::Drained) {
        blockers.push(Blocker {
            code: "not_drained".to_owned(),
            detail: format!("node {id} is {}, not drained", node.status.as_str()),
            subject: subject(id),
            lifted_by: "there is nothing to end".to_owned(),
        });
    }
    Ok(Draft {
        summary: format!("Node {id} ({}) takes duties again, and may lead.", node.name),
        footprint: footprint(state, [FactKey::Node(id)]),
        impact: Impact { leader_before: state.leader(), leader_after: state.leader(), ..unchanged(state) },
        observations: Vec::new(),
        warnings: Vec::new(),
        blockers,
        goal: Goal::ActivateNode { node: id },
        revision: state.revision,
        undoes: None,
        action,
    })
}

/// What forbids draining `node` now.
pub(super) fn blockers(state: &State, observations: &Observations, node: &Node) -> Vec<Blocker> {
    let id = node.id;
    let voters = &state.membership.voters;
    let mut blockers = Vec::new();
    let mut others = voters.clone();
    // Those that are drained already may be stopped at any moment.
    others.retain(|other| {
        *other != id && state.membership.get(*other).is_some_and(|node| node.status == NodeStatus::Up)
    });
    let (left, needed) = (living(state, &others), majority(voters));
    if node.voter && left < needed {
        blockers.push(Blocker {
            code: "would_lose_quorum".to_owned(),
            detail: format!(
                "once node {id} is stopped, {left} of {} voters would be up and not drained, and writes need {needed}",
                voters.len()
            ),
            subject: subject(id),
            lifted_by: "bring back or activate another voter, or add one".to_owned(),
        });
    }
    if !node.is_alive() {
        blockers.push(Blocker {
            code: "node_not_up".to_owned(),
            detail: format!("node {id} is {}: {}", node.status.as_str(), node.status_reason),
            subject: subject(id),
            lifted_by: "a node that does not come back is removed, not drained".to_owned(),
        });
    }
    if state.leader() == Some(id) && successor(state, observations, |other| other != id).is_none() {
        blockers.push(Blocker {
            code: "no_successor".to_owned(),
            detail: format!("node {id} leads, and no other voter can lead now"),
            subject: subject(id),
            lifted_by: "wait until another voter is up and close behind".to_owned(),
        });
    }
    blockers
}

/// A drain stands on its node and on all whose votes it counts.
fn facts(state: &State, id: NodeId) -> Vec<ringmaster_common::plan::Fact> {
    let mut nodes = state.membership.voters.clone();
    nodes.insert(id);
    footprint(state, [FactKey::Membership].into_iter().chain(nodes.into_iter().map(FactKey::Node)))
}
