//! Handing leadership over to a node of the operator's choice.

use super::{
    MAX_OBSERVATION_AGE, MAX_TRANSFER_LAG, Observations, PeerObservation, RECENTLY, find, footprint, named,
    no_leader, spare_voters, subject,
};
use crate::{
    State,
    plans::{Draft, FactKey, Goal, StepKind},
};
use ringmaster_common::{
    action::Action,
    cluster::{Node, NodeStatus},
    duration::millis,
    error::Refusal,
    id::{GroupId, NodeId},
    operation::StepStatus,
    plan::{Blocker, Impact, Observation, Warning},
};

pub(super) fn plan(
    state: &State,
    observations: &Observations,
    action: Action,
    to: NodeId,
) -> Result<Draft, Refusal> {
    let target = find(state, to)?;
    let from = state.leader().ok_or_else(no_leader)?;
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
    let spare = spare_voters(state, &state.membership.voters);
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
        footprint: footprint(state, [FactKey::Leadership, FactKey::Membership, FactKey::Node(to)]),
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
            lock: None,
            upstream: None,
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
                if target.status.is_ordered() {
                    format!("activate node {id}")
                } else {
                    format!("node {id} answers again")
                },
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

/// How long the last hand-over took that moved leadership: until the election was recorded.
fn last_pause(state: &State) -> Option<u64> {
    state
        .operations
        .latest(usize::MAX)
        .filter(|operation| matches!(operation.action, Action::TransferLeadership { .. }))
        .flat_map(|operation| &operation.steps)
        .find(|step| step.name == StepKind::HandOver.name() && step.status == StepStatus::Succeeded)
        .and_then(|step| step.took_ms())
}
