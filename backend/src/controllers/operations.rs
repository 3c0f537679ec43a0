//! The runner: brings about the running step of the operation that is under way.
//!
//! What the log says comes first: a step is committed as running before anything is done for it, and
//! its end is reported into the log. A new leader's runner finds the running step and brings it
//! about again; that does no harm, because a step is a desired state. The deadline of a step is
//! watched by the log, not here.

use crate::{
    clock,
    controllers::{PROPOSAL_DEADLINE, request},
    raft::cluster_group::ClusterGroup,
    state::{
        command::Command,
        operations::RunningStep,
        plans::{Goal, StepKind},
    },
};
use ringmaster_common::{
    error::{Code, Refusal},
    id::NodeId,
};
use std::time::Duration;

/// How often a step looks whether what it waits for has come.
const POLL_EVERY: Duration = Duration::from_millis(5);
/// How often the runner looks even if nothing was applied.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub async fn run(group: ClusterGroup) {
    let mut applied = group.published().watch();
    // The step that was last brought about, and in which term; another term does it again.
    let mut done = None;
    loop {
        if let Some((term, step)) = runnable(&group) {
            let this = (term, step.operation, step.position);
            if done != Some(this) {
                done = Some(this);
                tracing::info!(operation = %step.operation, step = step.kind.name(), term, "running a step");
                if !bring_about(&group, term, &step).await {
                    done = None;
                }
                continue;
            }
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, applied.changed()).await {
            return;
        }
    }
}

/// The running step, if this node is to run it: it leads, and the log has said so.
fn runnable(group: &ClusterGroup) -> Option<(u64, RunningStep)> {
    let term = group.leading()?;
    let state = group.state();
    state.election.as_ref().filter(|election| election.term == term)?;
    Some((term, state.operations.current()?.running_step()?))
}

/// Whether nothing is left to do for the step: its end is in the log, or will come by itself.
async fn bring_about(group: &ClusterGroup, term: u64, step: &RunningStep) -> bool {
    let target = step.goal.target();
    let result = match (step.kind, &step.goal) {
        (StepKind::Preflight, _) => preflight(group, target),
        (StepKind::CatchUp, _) => catch_up(group, term, step, target).await,
        (StepKind::HandOver, _) => {
            // Its end is the election; whoever wins it records that.
            match group.transfer(target).await {
                Ok(()) => return true,
                Err(error) => Err(Refusal::new(Code::TransferNotTaken, error)),
            }
        }
        // The report is a write that the new leader takes: that it is committed is the proof.
        (StepKind::Verify, _) => Ok(format!("node {} took this write", group.me())),
        (StepKind::Join, Goal::AddNode { node, .. }) => {
            let admitted = group
                .propose(
                    request(group.me()),
                    Command::AdmitNode { node: node.clone() },
                    clock::now() + PROPOSAL_DEADLINE,
                )
                .await;
            match admitted {
                Ok(_) => group
                    .add_learner(node.id, &node.peer_addr)
                    .await
                    .map(|()| format!("node {} is a learner", node.id))
                    .map_err(|error| Refusal::new(Code::MembershipRefused, error)),
                Err(refusal) => Err(refusal),
            }
        }
        (StepKind::Promote, Goal::AddNode { node, .. }) => group
            .promote(node.id)
            .await
            .map(|()| format!("node {} votes", node.id))
            .map_err(|error| Refusal::new(Code::MembershipRefused, error)),
        (StepKind::Join | StepKind::Promote, Goal::TransferLeadership { .. }) => {
            unreachable!("a transfer has no such step")
        }
    };
    report(group, term, step, result).await
}

fn preflight(group: &ClusterGroup, target: NodeId) -> Result<String, Refusal> {
    let state = group.state();
    let Some(node) = state.membership.get(target) else {
        return Err(Refusal::new(Code::UnknownNode, format!("node {target} is no longer a member")));
    };
    let observations = group.observations();
    match observations.transfer_blockers(node).as_slice() {
        [] => {
            let lag = observations.peers.get(&target).and_then(|peer| peer.lag).unwrap_or_default();
            Ok(format!("node {target} is up and lacks {lag} entries"))
        }
        [first, ..] => Err(Refusal::new(Code::PreflightFailed, first.detail.clone())),
    }
}

/// Waits until the target has all that the log held when the step began. Under load it never has
/// all at once; what comes later it gets on the way.
async fn catch_up(
    group: &ClusterGroup,
    term: u64,
    step: &RunningStep,
    target: NodeId,
) -> Result<String, Refusal> {
    let goal = group.status().last_log_index;
    let started = clock::now();
    loop {
        let replication = group.status().replication;
        let matched = replication.iter().find(|replication| replication.node == target);
        if matched.is_some_and(|replication| replication.matched_index >= goal) {
            return Ok(format!("node {target} has all up to {goal}"));
        }
        let still_wanted = runnable(group).is_some_and(|(now, running)| now == term && running == *step);
        if !still_wanted || clock::now().saturating_duration_since(started) > step.goal.bound(step.kind) {
            // The log has ended the step, or is about to; the report will be refused.
            return Err(Refusal::new(Code::StepTimeout, format!("node {target} did not catch up to {goal}")));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn report(
    group: &ClusterGroup,
    term: u64,
    step: &RunningStep,
    result: Result<String, Refusal>,
) -> bool {
    let command = Command::ReportStep { operation: step.operation, position: step.position, term, result };
    let deadline = clock::now() + PROPOSAL_DEADLINE;
    match group.propose(request(group.me()), command, deadline).await {
        Ok(_) => true,
        Err(refusal) => {
            // A stale report: the log ended the step first, or another leader runs it now. What was
            // not taken for another reason is brought about and reported again.
            tracing::info!(operation = %step.operation, %refusal, "a report was not taken");
            refusal.code == Code::StaleReport
        }
    }
}
