//! The runner: executes the running step of each unfinished operation, all of them side by side.
//!
//! The log comes first: a step is committed as running before anything is done for it, and its end is reported into the
//! log. A new leader's runner finds the running steps and executes them again; that does no harm, because a step is a
//! desired state. The deadline of a step is watched by the log, not here.
//!
//! What always holds: once its operation has ended, or another term has begun, the execution of a step is dropped where
//! it stands, and the log refuses what it may have proposed until then. There are never more executions than the state
//! has unfinished operations, which is bounded there.

mod failover;
mod members;
mod webhook;

use self::failover::Former;
use crate::{IDLE_INTERVAL, PROPOSAL_DEADLINE, request};
use futures::{StreamExt, stream::FuturesUnordered};
use ringmaster_cluster::{
    command::{Command, Outcome, Response, StatusChange},
    operations::RunningStep,
    steps::{Check, StepSpec},
    traffic::TrafficCommand,
};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{
    cluster::NodeStatus,
    error::{Code, Refusal},
    id::NodeId,
};
use ringmaster_net::clock;
use ringmaster_planner as planner;
use ringmaster_telemetry::Telemetry;
use std::{collections::BTreeSet, future, sync::Arc, time::Duration};

/// How often a step checks whether the state that it waits for has come.
const STEP_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How often the runner looks for steps even if nothing was applied, while an operation is unfinished.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

pub async fn run(group: ClusterGroup, telemetry: Arc<Telemetry>) {
    let mut applied = group.published().watch_control();
    loop {
        let term = group.until_leading().await;
        let mut executions = FuturesUnordered::new();
        let mut executing = BTreeSet::new();
        // Another term drops all executions and begins anew.
        while group.leading() == Some(term) {
            let steps = runnable(&group, term);
            let pause = if steps.is_empty() { IDLE_INTERVAL } else { POLL_INTERVAL };
            for step in steps {
                if executing.insert((step.operation, step.position)) {
                    executions.push(execute(Execution { group: &group, telemetry: &telemetry, term, step }));
                }
            }
            tokio::select! {
                Some(ended) = executions.next() => {
                    executing.remove(&ended);
                }
                changed = applied.changed() => {
                    // A closed channel means that the node is shutting down.
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// The running steps, if this node is to run them: it leads, and the log has recorded its election.
fn runnable(group: &ClusterGroup, term: u64) -> Vec<RunningStep> {
    let state = group.state();
    if state.election.as_ref().is_none_or(|election| election.term != term) {
        return Vec::new();
    }
    state.operations.running_steps().collect()
}

/// The execution of one step, in one term.
struct Execution<'a> {
    group: &'a ClusterGroup,
    telemetry: &'a Telemetry,
    term: u64,
    step: RunningStep,
}

/// Executes the step and reports its end, unless it ends otherwise before.
async fn execute(execution: Execution<'_>) -> (ringmaster_common::id::OperationId, u32) {
    let RunningStep { operation, position, spec, .. } = &execution.step;
    tracing::info!(%operation, step = spec.name(), term = execution.term, "executing a step");
    tokio::select! {
        biased;
        () = execution.until_over() => {}
        () = async { execution.report(execution.execute_step().await).await } => {}
    }
    (*operation, *position)
}

impl Execution<'_> {
    /// Waits until the step does not run any more, or another term has begun.
    async fn until_over(&self) {
        let mut applied = self.group.published().watch_control();
        loop {
            let runs = self.group.leading() == Some(self.term)
                && self.group.state().operations.running_steps().any(|running| running == self.step);
            if !runs {
                return;
            }
            // A closed channel means that the node is shutting down, which drops this.
            if let Ok(Err(_)) = tokio::time::timeout(POLL_INTERVAL, applied.changed()).await {
                future::pending::<()>().await;
            }
        }
    }

    async fn execute_step(&self) -> Result<String, Refusal> {
        match &self.step.spec {
            StepSpec::Preflight(check) => self.preflight(check),
            StepSpec::CatchUp { nodes } => self.catch_up(nodes).await,
            StepSpec::TransferLeadership { to, .. } => self.transfer_leadership(to).await,
            // The report is a write that the new leader commits: that it is committed is the proof.
            StepSpec::VerifyLeader { .. } => Ok(format!("node {} committed this write", self.group.me())),
            StepSpec::AddLearner { node } => self.add_learner(node).await,
            StepSpec::PromoteLearner { node } => self.promote_learner(*node).await,
            StepSpec::ChangeVoters { voters } => self.change_voters(voters).await,
            StepSpec::RemoveMember { node } => self.remove_member(*node).await,
            StepSpec::DrainNode { node } => {
                self.order(*node, NodeStatus::Draining, "it stops taking leadership").await
            }
            StepSpec::MarkDrained { node } => {
                self.order(*node, NodeStatus::Drained, "it can be stopped").await
            }
            StepSpec::ActivateNode { node } => self.order(*node, NodeStatus::Up, "it was activated").await,
            StepSpec::ReleaseLock { name, tokens } => {
                let command = Command::ForceRelease { name: name.clone(), tokens: tokens.clone() };
                Ok(match self.propose(command).await?.outcome {
                    Outcome::LockForced { next: Some(next) } => {
                        format!("{} holds {name} now, by token {}", next.owner, next.token)
                    }
                    _ => format!("{name} has no holder"),
                })
            }
            StepSpec::SetEndpointState { upstream, endpoint, state } => {
                self.propose_traffic(TrafficCommand::SetEndpointState {
                    upstream: upstream.clone(),
                    endpoint: endpoint.clone(),
                    state: *state,
                })
                .await?;
                Ok(format!("endpoint {endpoint} of {upstream} is in state {}", state.as_str()))
            }
            StepSpec::ClearPrimary { upstream, from, to } => {
                self.clear_primary(upstream, from.as_deref(), to).await
            }
            StepSpec::FencePrimary { upstream, from: Some(from), addr, epoch, webhook } => {
                let former = Former { upstream, endpoint: from, addr: addr.as_deref(), epoch: *epoch };
                self.fence(&former, webhook.as_deref()).await
            }
            StepSpec::FencePrimary { from: None, .. } => Ok("there was no other primary to fence".to_owned()),
            StepSpec::SetPrimary { upstream, endpoint } => self.promote_endpoint(upstream, endpoint).await,
            StepSpec::VerifyPrimary { upstream, endpoint } => self.verify_primary(upstream, endpoint).await,
        }
    }

    fn preflight(&self, check: &Check) -> Result<String, Refusal> {
        let observations = self.group.observations();
        match planner::preflight(&self.group.state(), &observations, check).as_slice() {
            [] => Ok(match check {
                Check::LeadershipTarget { node } => {
                    let lag = observations.peers.get(node).and_then(|peer| peer.lag).unwrap_or_default();
                    format!("node {node} is up and lacks {lag} entries")
                }
                _ => "no objection".to_owned(),
            }),
            [first, ..] => Err(Refusal::new(Code::PreflightFailed, first.detail.clone())),
        }
    }

    /// Waits until these nodes have every entry that the log held when the step began. Under load they never have all
    /// at once; later entries they get on the way.
    async fn catch_up(&self, nodes: &BTreeSet<NodeId>) -> Result<String, Refusal> {
        let goal = self.group.status().last_log_index;
        loop {
            let replication = self.group.status().replication;
            let has_all = |id: &NodeId| {
                *id == self.group.me()
                    || replication.iter().any(|peer| peer.node == *id && peer.matched_index >= goal)
            };
            if nodes.iter().all(has_all) {
                return Ok(match nodes.len() {
                    0 => "no node had to".to_owned(),
                    1 => format!("it has every entry up to {goal}"),
                    _ => format!("they have every entry up to {goal}"),
                });
            }
            tokio::time::sleep(STEP_POLL_INTERVAL).await;
        }
    }

    async fn transfer_leadership(&self, to: &BTreeSet<NodeId>) -> Result<String, Refusal> {
        let me = self.group.me();
        if to.contains(&me) {
            return Ok(format!("node {me} leads and continues to lead"));
        }
        let target = match to.first() {
            Some(only) if to.len() == 1 => *only,
            _ => planner::successor(&self.group.state(), &self.group.observations(), |id| to.contains(&id))
                .ok_or_else(|| {
                Refusal::new(
                    Code::PreflightFailed,
                    "no other voter can lead now: none is up and has nearly caught up",
                )
            })?,
        };
        self.group.transfer(target).await.map_err(|error| Refusal::new(Code::TransferNotTaken, error))?;
        // The election ends the step; its winner records that.
        future::pending().await
    }

    async fn order(&self, node: NodeId, status: NodeStatus, reason: &str) -> Result<String, Refusal> {
        let reason = format!("{reason} (operation {})", self.step.operation);
        let change = StatusChange { node, status, reason };
        self.propose(Command::OrderStatus { change }).await?;
        Ok(format!("node {node} is {}", status.as_str()))
    }

    /// Proposes a change that the log refuses unless the step runs. A change whose outcome is unknown is proposed
    /// again: it may be in the log, a step is a desired state, and the log ends a step that is late. So is one that
    /// found no leader: this node may be the leader again, in the same term, once a quorum answers it.
    async fn propose(&self, command: Command) -> Result<Response, Refusal> {
        let RunningStep { operation, position, .. } = self.step;
        let command = Command::ForStep { operation, position, term: self.term, command: Box::new(command) };
        loop {
            match self.propose_plain(command.clone()).await {
                Err(refusal) if matches!(refusal.code, Code::OutcomeUnknown | Code::NoLeader) => {
                    tracing::info!(%operation, %refusal, "a change of a step is proposed again");
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn propose_traffic(&self, command: TrafficCommand) -> Result<Response, Refusal> {
        self.propose(Command::Traffic(Box::new(command))).await
    }

    async fn propose_plain(&self, command: Command) -> Result<Response, Refusal> {
        let deadline = clock::now() + PROPOSAL_DEADLINE;
        self.group.propose_if_term(self.term, request(self.group.me()), command, deadline).await
    }

    /// Reports the end of the step until the log has it.
    async fn report(&self, result: Result<String, Refusal>) {
        let RunningStep { operation, position, .. } = self.step;
        loop {
            let report = Command::ReportStep { operation, position, term: self.term, result: result.clone() };
            let Err(refusal) = self.propose_plain(report).await else { return };
            tracing::info!(%operation, %refusal, "the report of a step was not accepted");
            if refusal.code == Code::StaleReport {
                return;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
