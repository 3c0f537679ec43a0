//! Planners: from a request to a plan, by pure computation.
//!
//! A planner reads the replicated state and what was measured, and says what would happen: the goal,
//! its consequences, what could go wrong, and what forbids it. It changes nothing. What it read of
//! the state becomes the plan's footprint; what it read of the measurements is looked at again as
//! the operation's first step, by the same rules ([`preflight`]).

mod drain;
mod leadership;
mod locks;
mod membership;
mod traffic;

use crate::{
    State,
    plans::{Draft, FactKey, Goal},
};
use ringmaster_common::{
    action::Action,
    cluster::Node,
    error::{Code, Refusal},
    id::{GroupId, NodeId, OperationId},
    operation::OperationStatus,
    plan::{Blocker, Fact, Impact},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How many entries a node may be behind and still be handed the leadership. Catching up from there
/// takes well under the time that the step has.
pub const MAX_TRANSFER_LAG: u64 = 1_000;
/// A node that came up less than this ago is worth a warning.
pub const RECENTLY: Duration = Duration::from_secs(60);
/// A measurement older than this says nothing about now.
pub const MAX_OBSERVATION_AGE: Duration = Duration::from_secs(2);

/// What the leader measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observations {
    pub peers: BTreeMap<NodeId, PeerObservation>,
    pub endpoints: EndpointRates,
    /// The longest that an election takes when the leader is lost.
    pub election_bound: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerObservation {
    /// Entries of the leader's log that the peer lacks; none where the leader does not know.
    pub lag: Option<u64>,
    /// Since the leader last heard from it.
    pub age: Duration,
}

/// What proxies send to endpoints, by upstream and endpoint; who gets nothing is left out.
pub type EndpointRates = BTreeMap<(String, String), EndpointRate>;

/// What all proxies together send to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EndpointRate {
    pub requests_per_s: f64,
    pub in_flight: u32,
    /// Of the oldest report that tells of it.
    pub age: Duration,
}

/// The plan for `action`, or why there cannot be one.
pub fn plan(state: &State, observations: &Observations, action: Action) -> Result<Draft, Refusal> {
    let mut draft = draft(state, observations, action)?;
    draft.blockers.extend(under_way(state));
    Ok(draft)
}

/// One operation runs at a time.
fn under_way(state: &State) -> Option<Blocker> {
    let operation = &state.operations.current()?.operation;
    let id = operation.id;
    let (detail, lifted_by) = if operation.status == OperationStatus::AwaitingKeep {
        (
            format!("operation {id} waits to be kept ({})", operation.action),
            format!("keep or abort operation {id}"),
        )
    } else {
        (
            format!("operation {id} is under way ({})", operation.action),
            format!("wait for the outcome of operation {id}"),
        )
    };
    Some(Blocker {
        code: Code::OperationRunning.as_str().to_owned(),
        detail,
        subject: FactKey::Operation(id).to_string(),
        lifted_by,
    })
}

fn draft(state: &State, observations: &Observations, action: Action) -> Result<Draft, Refusal> {
    match action.clone() {
        Action::TransferLeadership { group: GroupId::CLUSTER, to } => {
            leadership::plan(state, observations, action, to)
        }
        Action::TransferLeadership { group, .. } => Err(Refusal::new(
            Code::UnknownGroup,
            format!("there is no Raft group {group}; group 0 is the cluster group"),
        )),
        Action::AddNode { node } => membership::add(state, observations, action, node),
        Action::ChangeVoters { voters } => membership::change_voters(state, observations, action, voters),
        Action::RemoveNode { node } => membership::remove(state, observations, action, node),
        Action::DrainNode { node } => drain::drain(state, observations, action, node),
        Action::ActivateNode { node } => drain::activate(state, action, node),
        Action::ReleaseLock { name, token } => locks::release(state, action, name, token),
        Action::SetEndpointState { upstream, endpoint, state: after } => {
            traffic::set_state(state, observations, action, upstream, endpoint, after)
        }
        Action::FailOverUpstream { upstream, to } => {
            traffic::fail_over(state, observations, action, upstream, to)
        }
        Action::Undo { operation } => undo(state, observations, action, operation),
    }
}

/// What forbids going on, by what holds now. An operation's first step asks it again.
pub fn preflight(state: &State, observations: &Observations, goal: &Goal) -> Vec<Blocker> {
    match goal {
        Goal::TransferLeadership { to, .. } => match state.membership.get(*to) {
            Some(target) => observations.transfer_blockers(target),
            None => vec![gone(*to)],
        },
        Goal::ChangeVoters { before, after } => membership::blockers(state, observations, before, after),
        Goal::RemoveNode { voters: Some((before, after)), .. } => {
            membership::blockers(state, observations, before, after)
        }
        Goal::DrainNode { node } => match state.membership.get(*node) {
            Some(target) => drain::blockers(state, observations, target),
            None => vec![gone(*node)],
        },
        Goal::SetEndpointState { upstream, endpoint, after, .. } => {
            traffic::blockers(state, upstream, endpoint, *after)
        }
        Goal::FailOver { upstream, to, .. } => traffic::fail_over_blockers(state, upstream, to),
        Goal::AddNode { .. }
        | Goal::RemoveNode { voters: None, .. }
        | Goal::ActivateNode { .. }
        | Goal::ReleaseLock { .. } => Vec::new(),
    }
}

/// Taking back what an operation did is planned on the state of now, like anything else.
fn undo(
    state: &State,
    observations: &Observations,
    action: Action,
    id: OperationId,
) -> Result<Draft, Refusal> {
    let record = state.operations.find(id)?;
    let operation = &record.operation;
    let refuse = |detail: String| Err(Refusal::new(Code::NotUndoable, detail));
    if let Some(by) = operation.undone_by {
        return refuse(format!("operation {id} was undone already, by operation {by}"));
    }
    match operation.status {
        OperationStatus::Succeeded => {}
        OperationStatus::AwaitingKeep => {
            return refuse(format!("operation {id} waits to be kept; abort it to take it back"));
        }
        other => {
            return refuse(format!("operation {id} {}; only what succeeded can be undone", other.as_str()));
        }
    }
    let Some(back) = record.goal.undone_by() else {
        return refuse(format!("there is no way back from: {}", operation.action));
    };
    let mut draft = draft(state, observations, back)?;
    draft.action = action;
    draft.undoes = Some(id);
    draft.footprint.extend(footprint(state, [FactKey::Operation(id)]));
    Ok(draft)
}

/// The first voter-to-be of a successor, where a leader has to make room: the one that lacks least.
pub fn successor(
    state: &State,
    observations: &Observations,
    may_lead: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    state
        .membership
        .iter()
        .filter(|node| may_lead(node.id) && observations.transfer_blockers(node).is_empty())
        .min_by_key(|node| observations.peers.get(&node.id).and_then(|peer| peer.lag))
        .map(|node| node.id)
}

/// How many of `voters` may fail with the rest still taking writes, by who is alive now.
fn spare_voters(state: &State, voters: &BTreeSet<NodeId>) -> u64 {
    living(state, voters).saturating_sub(majority(voters)) as u64
}

fn living(state: &State, voters: &BTreeSet<NodeId>) -> usize {
    voters.iter().filter_map(|id| state.membership.get(*id)).filter(|node| node.is_alive()).count()
}

fn majority(voters: &BTreeSet<NodeId>) -> usize {
    voters.len() / 2 + 1
}

fn find(state: &State, id: NodeId) -> Result<&Node, Refusal> {
    state.membership.get(id).ok_or_else(|| {
        Refusal::new(Code::UnknownNode, format!("node {id} is not a member; {}", state.membership.known()))
    })
}

fn no_leader() -> Refusal {
    Refusal::new(Code::NoLeader, "no leader has been elected yet; try again in a moment")
}

fn gone(id: NodeId) -> Blocker {
    Blocker {
        code: Code::UnknownNode.as_str().to_owned(),
        detail: format!("node {id} is no longer a member"),
        subject: subject(id),
        lifted_by: "plan again".to_owned(),
    }
}

fn footprint(state: &State, facts: impl IntoIterator<Item = FactKey>) -> Vec<Fact> {
    facts.into_iter().map(|fact| Fact { fact: fact.to_string(), version: state.version(&fact) }).collect()
}

fn unchanged(state: &State) -> Impact {
    let voters = &state.membership.voters;
    let spare = spare_voters(state, voters);
    Impact {
        voters_before: voters.len() as u64,
        voters_after: voters.len() as u64,
        may_fail_before: spare,
        may_fail_after: spare,
        ..Impact::default()
    }
}

fn subject(id: NodeId) -> String {
    FactKey::Node(id).to_string()
}

fn named(state: &State, id: NodeId) -> String {
    match state.membership.get(id) {
        Some(node) => format!("node {id} ({})", node.name),
        None => format!("node {id}"),
    }
}

/// "node 4", "nodes 4 and 5", "nodes 1, 2 and 3"
fn nodes(ids: impl IntoIterator<Item = NodeId>) -> String {
    let ids: Vec<_> = ids.into_iter().map(|id| id.to_string()).collect();
    match ids.as_slice() {
        [] => "no node".to_owned(),
        [one] => format!("node {one}"),
        [others @ .., last] => format!("nodes {} and {last}", others.join(", ")),
    }
}
