//! The runner: brings about the running step of the operation that is under way.
//!
//! What the log says comes first: a step is committed as running before anything is done for it, and
//! its end is reported into the log. A new leader's runner finds the running step and brings it
//! about again; that does no harm, because a step is a desired state. The deadline of a step is
//! watched by the log, not here.

mod failover;
mod members;

use crate::{PROPOSAL_DEADLINE, REST, request};
use ringmaster_cluster::{
    command::{Command, StatusChange},
    operations::RunningStep,
    planner,
    plans::{Goal, StepKind},
    traffic::TrafficCommand,
};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{
    cluster::NodeStatus,
    error::{Code, Refusal},
};
use ringmaster_net::clock;
use ringmaster_telemetry::Telemetry;
use std::{sync::Arc, time::Duration};

/// How often a step looks whether what it waits for has come.
const POLL_EVERY: Duration = Duration::from_millis(5);
/// How often the runner looks even if nothing was applied, while an operation is under way: for the report that was
/// not taken.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub async fn run(group: ClusterGroup, telemetry: Arc<Telemetry>) {
    let mut applied = group.published().watch_control();
    // The step that was last brought about, and in which term; another term does it again.
    let mut done = None;
    loop {
        group.until_leading().await;
        if let Some((term, step)) = runnable(&group) {
            let this = (term, step.operation, step.position);
            if done != Some(this) {
                done = Some(this);
                tracing::info!(operation = %step.operation, step = step.kind.name(), term, "running a step");
                if bring_about(&group, &telemetry, term, &step).await {
                    continue;
                }
                // What was not taken is tried again, after a pause.
                done = None;
            }
        }
        let pause = if group.state().operations.current().is_some() { LOOK_EVERY } else { REST };
        if let Ok(Err(_)) = tokio::time::timeout(pause, applied.changed()).await {
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
async fn bring_about(group: &ClusterGroup, telemetry: &Telemetry, term: u64, step: &RunningStep) -> bool {
    let result = match step.kind {
        StepKind::Preflight => preflight(group, &step.goal),
        _ if matches!(step.goal, Goal::FailOver { .. }) => {
            failover::bring_about(group, telemetry, term, step).await
        }
        StepKind::Fence => Err(out_of_place(step)),
        StepKind::CatchUp => catch_up(group, term, step).await,
        StepKind::HandOver if step.goal.may_lead(group.me()) => {
            Ok(format!("node {} leads, and goes on leading", group.me()))
        }
        StepKind::HandOver => match hand_over(group, &step.goal).await {
            // Its end is the election; whoever wins it records that.
            Ok(()) => return true,
            Err(refusal) => Err(refusal),
        },
        // The report is a write that the new leader takes: that it is committed is the proof.
        StepKind::Verify => Ok(format!("node {} took this write", group.me())),
        StepKind::Join | StepKind::Promote | StepKind::ChangeVoters | StepKind::Leave => {
            let bound = step.goal.bound(step.kind);
            match tokio::time::timeout(bound, members::bring_about(group, term, step)).await {
                Ok(result) => result,
                Err(_) => {
                    Err(Refusal::new(Code::StepTimeout, "the change of members was not committed in time"))
                }
            }
        }
        StepKind::Drain => {
            order(group, term, step, NodeStatus::Draining, "it is being emptied of its duties").await
        }
        StepKind::Settle => order(group, term, step, NodeStatus::Drained, "it can be stopped").await,
        StepKind::ReleaseLock => release_lock(group, term, step).await,
        StepKind::SetEndpointState => set_endpoint_state(group, term, step).await,
        StepKind::Activate => order(group, term, step, NodeStatus::Up, "it was activated").await,
    };
    report(group, term, step, result).await
}

fn preflight(group: &ClusterGroup, goal: &Goal) -> Result<String, Refusal> {
    let observations = group.observations();
    match planner::preflight(&group.state(), &observations, goal).as_slice() {
        [] => Ok(match goal {
            Goal::TransferLeadership { to, .. } => {
                let lag = observations.peers.get(to).and_then(|peer| peer.lag).unwrap_or_default();
                format!("node {to} is up and lacks {lag} entries")
            }
            _ => "nothing speaks against it".to_owned(),
        }),
        [first, ..] => Err(Refusal::new(Code::PreflightFailed, first.detail.clone())),
    }
}

async fn hand_over(group: &ClusterGroup, goal: &Goal) -> Result<(), Refusal> {
    let to = match goal {
        Goal::TransferLeadership { to, .. } => *to,
        _ => planner::successor(&group.state(), &group.observations(), |id| goal.may_lead(id)).ok_or_else(
            || {
                Refusal::new(
                    Code::PreflightFailed,
                    "no other voter can lead now: none is up and close behind",
                )
            },
        )?,
    };
    group.transfer(to).await.map_err(|error| Refusal::new(Code::TransferNotTaken, error))
}

/// Orders the status of the node that the step is about.
async fn order(
    group: &ClusterGroup,
    term: u64,
    step: &RunningStep,
    status: NodeStatus,
    reason: &str,
) -> Result<String, Refusal> {
    let (Goal::DrainNode { node } | Goal::ActivateNode { node }) = step.goal else {
        return Err(out_of_place(step));
    };
    let change = StatusChange { node, status, reason: format!("{reason} (operation {})", step.operation) };
    let deadline = clock::now() + PROPOSAL_DEADLINE;
    group.propose_in(term, request(group.me()), Command::OrderStatus { change }, deadline).await?;
    Ok(format!("node {node} is {}", status.as_str()))
}

/// Takes a lock away from those whom the plan named, if they hold it still.
async fn release_lock(group: &ClusterGroup, term: u64, step: &RunningStep) -> Result<String, Refusal> {
    let Goal::ReleaseLock { name, tokens } = &step.goal else { return Err(out_of_place(step)) };
    let command = Command::ForceRelease { name: name.clone(), tokens: tokens.clone() };
    let deadline = clock::now() + PROPOSAL_DEADLINE;
    group.propose_in(term, request(group.me()), command, deadline).await?;
    let state = group.state();
    let holders = state.locks.detail(name, state.clock).map(|detail| detail.lock.holders).unwrap_or_default();
    Ok(match holders.as_slice() {
        [] => format!("nobody holds {name}"),
        [first, ..] => format!("{} holds {name} now, by token {}", first.owner, first.token),
    })
}

async fn set_endpoint_state(group: &ClusterGroup, term: u64, step: &RunningStep) -> Result<String, Refusal> {
    let Goal::SetEndpointState { upstream, endpoint, after, .. } = &step.goal else {
        return Err(out_of_place(step));
    };
    let command = TrafficCommand::SetEndpointState {
        upstream: upstream.clone(),
        endpoint: endpoint.clone(),
        state: *after,
    };
    let deadline = clock::now() + PROPOSAL_DEADLINE;
    group.propose_in(term, request(group.me()), Command::Traffic(Box::new(command)), deadline).await?;
    Ok(format!("endpoint {endpoint} of {upstream} is in state {}", after.as_str()))
}

/// A goal has the steps that it has; a log that says otherwise was written by another version.
fn out_of_place(step: &RunningStep) -> Refusal {
    Refusal::new(
        Code::Internal,
        format!("there is no step {} to this goal in this version", step.kind.name()),
    )
}

/// Waits until those who are to lead or to vote have all that the log held when the step began.
/// Under load they never have all at once; what comes later they get on the way.
async fn catch_up(group: &ClusterGroup, term: u64, step: &RunningStep) -> Result<String, Refusal> {
    let goal = group.status().last_log_index;
    let started = clock::now();
    loop {
        let replication = group.status().replication;
        let mut behind = step.goal.catching_up();
        behind.retain(|id| {
            let matched = replication.iter().find(|replication| replication.node == *id);
            *id != group.me() && matched.is_none_or(|replication| replication.matched_index < goal)
        });
        let Some(slowest) = behind.first() else {
            return Ok(match step.goal.catching_up().len() {
                0 => "nobody had to".to_owned(),
                1 => format!("it has all up to {goal}"),
                _ => format!("they have all up to {goal}"),
            });
        };
        let still_wanted = runnable(group).is_some_and(|(now, running)| now == term && running == *step);
        if !still_wanted || clock::now().saturating_duration_since(started) > step.goal.bound(step.kind) {
            // The log has ended the step, or is about to; the report will be refused.
            let then = match step.goal {
                Goal::AddNode { .. } => "; it stays a learner: see to its process, or remove the node",
                _ => "",
            };
            let why = format!("node {slowest} did not catch up to entry {goal}{then}");
            return Err(Refusal::new(Code::StepTimeout, why));
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
    match group.propose_in(term, request(group.me()), command, deadline).await {
        Ok(_) => true,
        Err(refusal) => {
            // A stale report: the log ended the step first, or another leader runs it now. What was
            // not taken for another reason is brought about and reported again.
            tracing::info!(operation = %step.operation, %refusal, "a report was not taken");
            refusal.code == Code::StaleReport
        }
    }
}
