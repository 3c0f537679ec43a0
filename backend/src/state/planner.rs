//! Planners: from a request to a plan, by pure computation.
//!
//! A planner reads the replicated state and what was measured, and says what would happen: the goal,
//! its consequences, what could go wrong, and what forbids it. It changes nothing. What it read of
//! the state becomes the plan's footprint; what it read of the measurements is looked at again as
//! the operation's first step, by the same rules ([`Observations::transfer_blockers`]).

use crate::state::{
    State,
    membership::{MAX_NAME_BYTES, MAX_NODES, VOTERS},
    plans::{Draft, FactKey, Goal, StepKind},
};
use ringmaster_common::{
    action::{Action, NewNode},
    cluster::{Node, NodeStatus, may_fail},
    duration::millis,
    error::{Code, Refusal},
    id::{GroupId, NodeId, OperationId},
    operation::OperationStatus,
    plan::{Blocker, Fact, Impact, Observation, Warning},
};
use std::{collections::BTreeMap, time::Duration};

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

/// The plan for `action`, or why there cannot be one.
pub fn plan(state: &State, observations: &Observations, action: Action) -> Result<Draft, Refusal> {
    match &action {
        Action::TransferLeadership { group: GroupId::CLUSTER, to } => {
            let to = *to;
            transfer(state, observations, action, to)
        }
        Action::TransferLeadership { group, .. } => Err(Refusal::new(
            Code::UnknownGroup,
            format!("there is no Raft group {group}; group 0 is the cluster group"),
        )),
        Action::AddNode { node } => {
            let node = node.clone();
            add(state, observations, action, node)
        }
        Action::ChangeVoters { .. }
        | Action::RemoveNode { .. }
        | Action::DrainNode { .. }
        | Action::ActivateNode { .. } => Err(Refusal::new(
            Code::UnknownAction,
            format!("this version makes no plan for {}", action.type_name()),
        )),
        Action::Undo { operation } => {
            let operation = *operation;
            undo(state, observations, action, operation)
        }
    }
}

fn transfer(
    state: &State,
    observations: &Observations,
    action: Action,
    to: NodeId,
) -> Result<Draft, Refusal> {
    let target = find(state, to)?;
    let from = state.leader().ok_or_else(|| {
        Refusal::new(Code::NoLeader, "no leader has been elected yet; try again in a moment")
    })?;
    let goal = Goal::TransferLeadership { group: GroupId::CLUSTER, from, to };
    let mut blockers = Vec::new();
    if from == to {
        blockers.push(Blocker {
            code: "already_leader".to_owned(),
            detail: format!("node {to} leads already"),
            subject: subject(to),
            lifted_by: "choose another node".to_owned(),
        });
    } else {
        blockers.extend(observations.transfer_blockers(target));
    }
    let voters = state.membership.voters.len();
    let living = state.membership.living_voters();
    let spare = living.saturating_sub(voters / 2 + 1) as u64;
    let observed = observations.peers.get(&to);
    Ok(Draft {
        revision: state.revision,
        undoes: None,
        summary: if from == to {
            format!("{} leads the cluster group already.", named(state, to))
        } else {
            format!(
                "Leadership of the cluster group moves from {} to {}. Writes pause for a moment; no acknowledged \
                 write is lost, and no stream is cut.",
                named(state, from),
                named(state, to)
            )
        },
        footprint: footprint(state, &[FactKey::Leadership, FactKey::Membership, FactKey::Node(to)]),
        observations: observed
            .filter(|_| from != to)
            .map(|peer| Observation {
                what: format!("entries that node {to} lacks"),
                value: peer.lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string()),
                age_ms: millis(peer.age),
            })
            .into_iter()
            .collect(),
        impact: Impact {
            write_pause_ms: last_pause(state),
            write_pause_bound_ms: Some(millis(goal.bound(StepKind::HandOver))),
            entries_behind: observed.and_then(|peer| peer.lag).filter(|_| from != to),
            voters_before: voters as u64,
            voters_after: voters as u64,
            may_fail_before: spare,
            may_fail_after: spare,
            leader_before: Some(from),
            leader_after: Some(to),
        },
        warnings: if from == to { Vec::new() } else { transfer_warnings(state, observations, target, spare) },
        blockers,
        goal,
        action,
    })
}

fn transfer_warnings(state: &State, observations: &Observations, target: &Node, spare: u64) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let up_for = state.wall.as_millisecond() - target.status_since.as_millisecond();
    if target.status == NodeStatus::Up && (0..RECENTLY.as_millis() as i64).contains(&up_for) {
        warnings.push(Warning {
            code: "recently_up".to_owned(),
            detail: format!(
                "Node {} is up for {} s. If it fails again, the next election takes up to {} ms.",
                target.id,
                up_for / 1000,
                observations.election_bound.as_millis()
            ),
            subject: subject(target.id),
        });
    }
    if spare == 0 {
        warnings.push(Warning {
            code: "no_spare_voter".to_owned(),
            detail: "No voter may fail: if one does while leadership moves, writes stop until it is back."
                .to_owned(),
            subject: "group/0".to_owned(),
        });
    }
    warnings
}

impl Observations {
    /// What forbids handing the leadership to `target`. Asked by the planner, and again by the
    /// operation's first step.
    pub fn transfer_blockers(&self, target: &Node) -> Vec<Blocker> {
        let id = target.id;
        let blocker = |code: &str, detail: String, lifted_by: String| Blocker {
            code: code.to_owned(),
            detail,
            subject: subject(id),
            lifted_by,
        };
        let mut blockers = Vec::new();
        if !target.voter {
            blockers.push(blocker(
                "not_a_voter",
                format!("node {id} is a learner, and only a voter can lead"),
                "make it a voter".to_owned(),
            ));
        }
        if target.status != NodeStatus::Up {
            blockers.push(blocker(
                "node_not_up",
                format!("node {id} is {}: {}", target.status.as_str(), target.status_reason),
                format!("node {id} answers again"),
            ));
        }
        match self.peers.get(&id) {
            Some(peer) if peer.age > MAX_OBSERVATION_AGE => blockers.push(blocker(
                "node_silent",
                format!("nothing was heard from node {id} for {} ms", peer.age.as_millis()),
                format!("node {id} answers again"),
            )),
            Some(PeerObservation { lag: Some(lag), .. }) if *lag > MAX_TRANSFER_LAG => {
                blockers.push(blocker(
                    "node_behind",
                    format!("node {id} lacks {lag} entries, and {MAX_TRANSFER_LAG} is the most"),
                    format!("node {id} catches up by itself; plan again then"),
                ))
            }
            Some(PeerObservation { lag: Some(_), .. }) => {}
            Some(PeerObservation { lag: None, .. }) | None => blockers.push(blocker(
                "node_unobserved",
                format!("the leader has not measured yet how far node {id} has come"),
                "wait a moment and plan again".to_owned(),
            )),
        }
        blockers
    }
}

fn add(state: &State, observations: &Observations, action: Action, node: NewNode) -> Result<Draft, Refusal> {
    check_new(&node)?;
    let membership = &state.membership;
    let mut blockers = Vec::new();
    let mut block = |code: &str, detail: String, lifted_by: &str| {
        blockers.push(Blocker {
            code: code.to_owned(),
            detail,
            subject: subject(node.id),
            lifted_by: lifted_by.to_owned(),
        });
    };
    if membership.get(node.id).is_some() {
        block(
            "id_in_use",
            format!("node {} is a member already; {}", node.id, membership.known()),
            "start the node with another id",
        );
    }
    if let Some(other) = membership.iter().find(|other| other.peer_addr == node.peer_addr) {
        block(
            "address_in_use",
            format!("{} is the peer address of node {}", node.peer_addr, other.id),
            "give the node an address of its own",
        );
    }
    if membership.nodes.len() >= MAX_NODES {
        block("too_many_nodes", format!("a cluster holds {MAX_NODES} nodes"), "remove a node first");
    }
    let voters = membership.voters.len();
    let promote = voters < VOTERS;
    let voters_after = voters + usize::from(promote);
    let becomes = if promote {
        format!("It becomes a voter once it has caught up, so that {voters_after} vote.")
    } else {
        format!(
            "It stays a learner: {voters} voters are enough, and learners answer and stream like any other."
        )
    };
    Ok(Draft {
        revision: state.revision,
        summary: format!("Node {} ({}) joins the cluster {}. {becomes}", node.id, node.name, state.name),
        footprint: footprint(state, &[FactKey::Membership, FactKey::Node(node.id)]),
        goal: Goal::AddNode { node, promote },
        undoes: None,
        observations: Vec::new(),
        impact: Impact {
            write_pause_bound_ms: Some(millis(observations.election_bound)),
            voters_before: voters as u64,
            voters_after: voters_after as u64,
            may_fail_before: may_fail(voters) as u64,
            may_fail_after: may_fail(voters_after) as u64,
            leader_before: state.leader(),
            leader_after: state.leader(),
            ..Impact::default()
        },
        warnings: Vec::new(),
        blockers,
        action,
    })
}

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
    if operation.status != OperationStatus::Succeeded {
        return refuse(format!(
            "operation {id} {}; only what succeeded can be undone",
            operation.status.as_str().replace('_', " ")
        ));
    }
    let Some(Goal::TransferLeadership { to, .. }) = record.goal.inverse() else {
        return refuse(format!("there is no way back from: {}", operation.action));
    };
    let mut draft = transfer(state, observations, action, to)?;
    draft.undoes = Some(id);
    draft.footprint.extend(footprint(state, &[FactKey::Operation(id)]));
    Ok(draft)
}

/// Whether a process can be a member at all.
fn check_new(node: &NewNode) -> Result<(), Refusal> {
    let invalid = |detail: String| Err(Refusal::new(Code::InvalidRequest, detail));
    if node.id.0 == 0 || node.id.0 >= 1 << 53 {
        return invalid(format!("a node's id is from 1 to 2^53 - 1, not {}", node.id));
    }
    for (what, name) in [("name", &node.name), ("zone", &node.zone)] {
        let blank = name.chars().any(|c| c.is_control() || c.is_whitespace());
        if name.is_empty() || name.len() > MAX_NAME_BYTES || blank {
            return invalid(format!(
                "a {what} has 1 to {MAX_NAME_BYTES} bytes and no blanks, unlike {name:?}"
            ));
        }
    }
    for (what, addr) in [("api_addr", &node.api_addr), ("peer_addr", &node.peer_addr)] {
        let port = addr
            .rsplit_once(':')
            .and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
        if port.is_none_or(|port| port == 0) {
            return invalid(format!("{what} is host:port, not {addr:?}"));
        }
    }
    if !node.public_url.starts_with("http://") && !node.public_url.starts_with("https://") {
        return invalid(format!("public_url starts with http:// or https://, unlike {:?}", node.public_url));
    }
    Ok(())
}

fn find(state: &State, id: NodeId) -> Result<&Node, Refusal> {
    state.membership.get(id).ok_or_else(|| {
        Refusal::new(Code::UnknownNode, format!("node {id} is not a member; {}", state.membership.known()))
    })
}

fn footprint(state: &State, facts: &[FactKey]) -> Vec<Fact> {
    facts.iter().map(|fact| Fact { fact: fact.to_string(), version: state.version(*fact) }).collect()
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

/// How long the last successful hand-over took.
fn last_pause(state: &State) -> Option<u64> {
    state
        .operations
        .latest(usize::MAX)
        .flat_map(|operation| &operation.steps)
        .find(|step| step.name == StepKind::HandOver.name() && step.took_ms().is_some())
        .filter(|step| step.status == ringmaster_common::operation::StepStatus::Succeeded)
        .and_then(|step| step.took_ms())
}
