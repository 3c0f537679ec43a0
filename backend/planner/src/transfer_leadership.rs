//! Transferring leadership of the cluster group to a node of the operator's choice.

use crate::{
    blocker::{Blocker, MAX_TRANSFER_LAG},
    draft::{
        ENTRY_WITHIN, PREFLIGHT_WITHIN, draft, find, lags, leader, step, texts_of_blockers, texts_of_warnings,
    },
    warning::Warning,
    words::named,
};
use ringmaster_cluster::{
    State,
    observations::{Observations, PeerObservation},
    plans::{Draft, DraftStep, FactKey},
    steps::{Check, StepSpec},
};
use ringmaster_common::{
    action::Action,
    cluster::{Node, NodeStatus},
    duration::millis,
    error::Refusal,
    id::{GroupId, NodeId},
    operation::StepStatus,
    plan::{Impact, Scope},
};
use std::time::Duration;

/// A node that came up less than this ago is worth a warning.
const RECENTLY: Duration = Duration::from_secs(60);
/// A measurement older than this says nothing about now.
const MAX_OBSERVATION_AGE: Duration = Duration::from_secs(2);
/// The target is close behind already, so catching up is quick.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(2);
/// How long the election that a transfer causes may take.
pub const TRANSFER_WITHIN: Duration = Duration::from_secs(2);

pub fn plan(
    state: &State,
    observations: &Observations,
    action: Action,
    to: NodeId,
) -> Result<Draft, Refusal> {
    let target = find(state, to)?;
    let from = leader(state)?;
    let facts = [FactKey::Leadership, FactKey::Membership, FactKey::Node(to)];
    let draft = draft(state, observations, action, Scope::Cluster, facts);
    let draft = Draft {
        steps: steps(from, to),
        revert: Some(steps(to, from)),
        undo: Some(Action::TransferLeadership { group: GroupId::CLUSTER, to: from }),
        impact: Impact {
            write_pause_ms: last_pause(state),
            write_pause_bound_ms: Some(millis(TRANSFER_WITHIN)),
            leader_after: Some(to),
            ..draft.impact
        },
        ..draft
    };
    if from == to {
        return Ok(Draft {
            summary: format!("{} leads the cluster group already.", named(state, to)),
            blockers: texts_of_blockers(&[Blocker::AlreadyLeader { node: to }]),
            ..draft
        });
    }
    Ok(Draft {
        summary: format!(
            "Leadership of the cluster group moves from {} to {}. Writes pause for a moment; no acknowledged write is \
             lost, and no stream is cut.",
            named(state, from),
            named(state, to)
        ),
        observations: lags(observations, [to]),
        warnings: texts_of_warnings(&warnings(
            state,
            observations,
            target,
            draft.impact.failures_tolerated_before,
        )),
        blockers: texts_of_blockers(&target_blockers(observations, target)),
        impact: Impact {
            entries_behind: observations.peers.get(&to).and_then(|peer| peer.lag),
            ..draft.impact
        },
        ..draft
    })
}

fn steps(from: NodeId, to: NodeId) -> Vec<DraftStep> {
    vec![
        step(
            StepSpec::Preflight(Check::LeadershipTarget { node: to }),
            format!("Check again: node {to} is up and has nearly caught up"),
            PREFLIGHT_WITHIN,
        ),
        step(
            StepSpec::CatchUp { nodes: [to].into() },
            format!("Wait until node {to} has every entry"),
            CATCH_UP_WITHIN,
        ),
        step(
            StepSpec::TransferLeadership { from: Some(from), to: [to].into() },
            format!("Transfer leadership to node {to}"),
            TRANSFER_WITHIN,
        ),
        step(
            StepSpec::VerifyLeader { node: to },
            format!("Verify that node {to} accepts a write"),
            ENTRY_WITHIN,
        ),
    ]
}

pub fn preflight(state: &State, observations: &Observations, to: NodeId) -> Vec<Blocker> {
    match state.membership.get(to) {
        Some(target) => target_blockers(observations, target),
        None => vec![Blocker::UnknownNode { node: to }],
    }
}

fn warnings(state: &State, observations: &Observations, target: &Node, spare: u64) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let up_for = state.wall.as_millisecond() - target.status_since.as_millisecond();
    let up_for = u64::try_from(up_for).ok().map(Duration::from_millis);
    if let Some(up_for) = up_for.filter(|up_for| target.status == NodeStatus::Up && *up_for < RECENTLY) {
        let election_bound = observations.election_bound;
        warnings.push(Warning::RecentlyUp { node: target.id, up_for, election_bound });
    }
    if spare == 0 {
        warnings.push(Warning::NoSpareVoterNow);
    }
    warnings
}

/// Why leadership cannot be transferred to `target` now.
fn target_blockers(observations: &Observations, target: &Node) -> Vec<Blocker> {
    let node = target.id;
    let mut blockers = Vec::new();
    if !target.voter {
        blockers.push(Blocker::NotAVoter { node });
    }
    if target.status != NodeStatus::Up {
        let lifted_by = if target.status.is_ordered() {
            format!("activate node {node}")
        } else {
            format!("wait until node {node} answers again")
        };
        blockers.push(Blocker::node_not_up(target, lifted_by));
    }
    if observations.with_losses.contains(&node) {
        blockers.push(Blocker::NodeLostEntries { node });
    }
    match observations.peers.get(&node) {
        Some(peer) if peer.age > MAX_OBSERVATION_AGE => {
            blockers.push(Blocker::NodeSilent { node, silent_for: peer.age });
        }
        Some(PeerObservation { lag: Some(lag), .. }) if *lag > MAX_TRANSFER_LAG => {
            blockers.push(Blocker::NodeBehind { node, lag: *lag });
        }
        Some(PeerObservation { lag: Some(_), .. }) => {}
        Some(PeerObservation { lag: None, .. }) | None => blockers.push(Blocker::NodeUnobserved { node }),
    }
    blockers
}

/// The node that should lead next, of those that `may_lead`: the voter that is up and lacks the fewest entries.
pub fn successor(
    state: &State,
    observations: &Observations,
    may_lead: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    state
        .membership
        .iter()
        .filter(|node| may_lead(node.id) && target_blockers(observations, node).is_empty())
        .min_by_key(|node| observations.peers.get(&node.id).and_then(|peer| peer.lag))
        .map(|node| node.id)
}

/// How long the last transfer of leadership took: until the election was recorded.
fn last_pause(state: &State) -> Option<u64> {
    state
        .operations
        .latest(usize::MAX)
        .filter(|operation| matches!(operation.action, Action::TransferLeadership { .. }))
        .flat_map(|operation| &operation.steps)
        .find(|step| step.name == "transfer_leadership" && step.status == StepStatus::Succeeded)
        .and_then(|step| step.took_ms())
}
