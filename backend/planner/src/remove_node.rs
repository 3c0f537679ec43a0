//! Removing a node from the cluster for good. Where it votes, a learner takes its place if one can.

use crate::{
    blocker::Blocker,
    change_voters::{self, MEMBERSHIP_WITHIN, arithmetic},
    draft::{draft, find, footprint, lags, leader, step, texts_of_blockers, texts_of_warnings},
    quorum::Voters,
    warning::Warning,
    words::{capital, named},
};
use ringmaster_cluster::{
    State,
    membership::MAX_DEPARTED,
    observations::Observations,
    plans::{Draft, DraftStep, FactKey},
    steps::StepSpec,
};
use ringmaster_common::{
    action::Action,
    cluster::{Node, NodeStatus},
    error::Refusal,
    id::NodeId,
    plan::Scope,
};

pub fn plan(
    state: &State,
    observations: &Observations,
    action: Action,
    id: NodeId,
) -> Result<Draft, Refusal> {
    let node = find(state, id)?;
    let leader = leader(state)?;
    let before = state.membership.voters.clone();
    let (after, replacement) = without(state, observations, node);
    let changes = after != before;
    let (mut blockers, mut warnings) = (Vec::new(), Vec::new());
    if changes {
        blockers = change_voters::preflight(state, observations, &before, &after);
        warnings = change_voters::warnings(state, observations, &before, &after);
    }
    if state.membership.departed.len() >= MAX_DEPARTED {
        blockers.push(Blocker::TooManyDeparted { node: id });
    }
    warnings.push(Warning::Final { node: id });
    let effect = match replacement {
        _ if !changes => " It does not vote, so the quorum does not change.".to_owned(),
        Some(other) => format!(" {} takes its place as a voter.", capital(&named(state, other))),
        None => format!(" {}", arithmetic(&after)),
    };
    let mut facts = change_voters::facts(state, &before, &after);
    if !before.contains(&id) {
        facts.extend(footprint(state, [FactKey::Node(id)]));
    }
    Ok(Draft {
        steps: steps(id, changes.then_some((&before, &after))),
        summary: format!("{} leaves the cluster for good.{effect}", capital(&named(state, id))),
        footprint: facts,
        observations: lags(observations, replacement),
        impact: change_voters::impact(state, observations, &before, &after, leader),
        warnings: texts_of_warnings(&warnings),
        blockers: texts_of_blockers(&blockers),
        ..draft(state, observations, action, Scope::Cluster, [])
    })
}

fn steps(node: NodeId, voters: Option<(&Voters, &Voters)>) -> Vec<DraftStep> {
    let mut steps = Vec::new();
    if let Some((before, after)) = voters {
        steps = change_voters::steps(before, after);
        for step in &mut steps {
            if let StepSpec::TransferLeadership { .. } = step.spec {
                step.title = format!("Transfer leadership, if node {node} is the leader");
            }
        }
    }
    steps.push(step(
        StepSpec::RemoveMember { node },
        format!("Remove node {node} from the cluster"),
        MEMBERSHIP_WITHIN,
    ));
    steps
}

/// The voters once `node` is gone. An odd number of voters stays odd where a learner can step in.
fn without(state: &State, observations: &Observations, node: &Node) -> (Voters, Option<NodeId>) {
    let mut after = state.membership.voters.clone();
    if !after.remove(&node.id) || !after.len().is_multiple_of(2) {
        return (after, None);
    }
    let replacement = state
        .membership
        .iter()
        .filter(|other| other.id != node.id && !other.voter && other.status == NodeStatus::Up)
        .min_by_key(|other| {
            let lag = observations.peers.get(&other.id).and_then(|peer| peer.lag);
            // The zone that loses a voter gets one, where that is possible.
            (other.zone != node.zone, lag.unwrap_or(u64::MAX), other.id)
        })
        .map(|other| other.id);
    after.extend(replacement);
    (after, replacement)
}
