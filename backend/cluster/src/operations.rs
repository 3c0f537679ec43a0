//! Operations: plans being run.
//!
//! A step is a desired state. That it runs is committed first, its effect is brought about by the leader's runner and
//! may be brought about twice, and its end is reported into the log. So an operation outlives its runner: the next
//! leader finds the running step and executes it.
//!
//! What always holds:
//! - Unfinished operations have disjoint scopes, and their number is bounded ([`Limits::unfinished_operations`]).
//! - A running operation has exactly one running step, with a deadline in cluster time.
//! - A report or a change for a step is refused unless that step runs, and comes from the leader of the latest term.
//! - A transfer of leadership ends with the election that it caused, whichever node wins.

use crate::{
    Context, State, limits::Limits, outcome::Outcome, plans::DraftStep, steps::StepSpec, time::ClusterTime,
};
use imbl::{OrdMap, OrdSet};
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    event::Event,
    id::{NodeId, OperationId, PlanId},
    operation::{Operation, OperationStatus, Step, StepStatus, won_election},
    plan::Scope,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

mod start;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Operations {
    by_id: OrdMap<OperationId, Arc<OperationRecord>>,
    last: OperationId,
    /// Those that are running or wait to be kept.
    unfinished: OrdSet<OperationId>,
    /// Those that clients see in the view: the latest, and all that are unfinished.
    shown: OrdSet<OperationId>,
}

/// An operation, and what only the server needs to know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationRecord {
    pub operation: Operation,
    /// What each step of the operation brings about.
    steps: Vec<StepSpec>,
    /// The steps that take it back. They are added to the others when it reverts.
    revert: Option<Vec<DraftStep>>,
    /// The action that undoes it.
    pub undo: Option<Action>,
    /// While it reverts: the position of the first step that does.
    reverts_from: Option<u32>,
    /// When the running step has failed, or the operation reverts unless it is kept.
    pub due: Option<ClusterTime>,
    /// The running step was begun by another leader than the present one. How far that one came is unknown.
    taken_over: bool,
}

/// The step that the runner has to execute.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningStep {
    pub operation: OperationId,
    pub position: u32,
    pub spec: StepSpec,
    pub bound: Duration,
    /// What stays behind if the step fails, as a sentence.
    pub left_behind: Option<String>,
    /// The step was begun by another leader than the present one. How far that one came is unknown.
    pub taken_over: bool,
}

/// A step that ended without reaching its state. Its operation has failed with it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FailedStep {
    pub operation: OperationId,
    /// The steps that had begun; the last one failed.
    pub begun: Vec<StepSpec>,
    pub why: Refusal,
    pub taken_over: bool,
}

impl OperationRecord {
    fn running_position(&self) -> Option<usize> {
        self.operation.steps.iter().position(|step| step.status == StepStatus::Running)
    }

    pub fn running_step(&self) -> Option<RunningStep> {
        let position = self.running_position()?;
        Some(RunningStep {
            operation: self.operation.id,
            position: position.try_into().ok()?,
            spec: self.steps.get(position)?.clone(),
            bound: Duration::from_millis(self.operation.steps.get(position)?.bound_ms),
            left_behind: self.left_behind(position),
            taken_over: self.taken_over,
        })
    }

    /// The steps of the present direction that have begun, up to the one at `position`.
    fn begun(&self, position: usize) -> &[StepSpec] {
        let first = self.reverts_from.map_or(0, |first| first as usize);
        self.steps.get(first..=position).unwrap_or_default()
    }

    fn left_behind(&self, position: usize) -> Option<String> {
        self.begun(position).iter().find_map(StepSpec::left_behind)
    }

    /// Whether nothing was changed yet.
    fn is_abortable(&self, position: usize) -> bool {
        self.reverts_from.is_none() && self.begun(position).iter().all(StepSpec::only_checks)
    }

    fn set_step(
        &mut self,
        context: &mut Context,
        position: usize,
        status: StepStatus,
        detail: Option<String>,
    ) {
        let now = context.wall;
        let Some(step) = self.operation.steps.get_mut(position) else { return };
        step.status = status;
        if status == StepStatus::Running {
            step.started_at = Some(now);
            self.taken_over = false;
            self.due = Some(context.now.after(Duration::from_millis(step.bound_ms)));
        } else {
            step.ended_at = Some(now);
            step.detail = detail;
        }
        let step = step.clone();
        self.operation.revision = context.revision;
        context.emit(Event::StepChanged {
            operation: self.operation.id,
            position: position.try_into().unwrap_or(u32::MAX),
            step,
        });
    }

    fn set_status(&mut self, context: &mut Context, status: OperationStatus, error: Option<Refusal>) {
        let operation = &mut self.operation;
        operation.status = status;
        operation.error = error;
        operation.ended_at = status.is_final().then_some(context.wall);
        operation.revision = context.revision;
        operation.keep_until = None;
        if status != OperationStatus::Running {
            self.due = None;
        }
        if status == OperationStatus::AwaitingKeep {
            let within = Duration::from_millis(operation.keep_within_ms.unwrap_or_default());
            operation.keep_until = Some(context.wall + within);
            self.due = Some(context.now.after(within));
        }
        context.emit(Event::OperationChanged {
            operation: operation.id,
            status,
            error: operation.error.clone(),
            ended_at: operation.ended_at,
            keep_until: operation.keep_until,
        });
    }

    /// The running step is done: the next one runs, or the operation has reached its goal.
    fn succeed(&mut self, context: &mut Context, position: usize, detail: String) {
        self.set_step(context, position, StepStatus::Succeeded, Some(detail));
        if position + 1 < self.operation.steps.len() {
            self.set_step(context, position + 1, StepStatus::Running, None);
        } else if self.reverts_from.is_some() {
            let error = self.operation.error.clone();
            self.set_status(context, OperationStatus::Reverted, error);
        } else if self.operation.keep_within_ms.is_some() {
            self.set_status(context, OperationStatus::AwaitingKeep, None);
        } else {
            self.set_status(context, OperationStatus::Succeeded, None);
        }
    }

    fn fail(&mut self, context: &mut Context, position: usize, why: Refusal) -> Option<FailedStep> {
        self.stop(context, position, OperationStatus::Failed, why.clone());
        let (operation, begun) = (self.operation.id, self.begun(position).to_vec());
        Some(FailedStep { operation, begun, why, taken_over: self.taken_over })
    }

    /// The running step failed, or was aborted, and the steps behind it are skipped.
    fn stop(&mut self, context: &mut Context, position: usize, status: OperationStatus, why: Refusal) {
        let step = if status == OperationStatus::Failed { StepStatus::Failed } else { StepStatus::Skipped };
        self.set_step(context, position, step, Some(why.detail.clone()));
        for position in position + 1..self.operation.steps.len() {
            self.set_step(context, position, StepStatus::Skipped, None);
        }
        self.set_status(context, status, Some(why));
    }

    fn revert(&mut self, context: &mut Context, why: Refusal) {
        let Some(revert) = self.revert.take() else { return };
        let first = self.operation.steps.len();
        let steps: Vec<Step> = revert
            .iter()
            .map(|step| {
                let planned = step.planned();
                Step { name: format!("revert_{}", planned.name), ..start::pending(planned) }
            })
            .collect();
        self.reverts_from = first.try_into().ok();
        self.steps.extend(revert.into_iter().map(|step| step.spec));
        self.operation.steps.extend_from_slice(&steps);
        context.emit(Event::StepsAdded { operation: self.operation.id, steps });
        self.set_status(context, OperationStatus::Running, Some(why));
        self.set_step(context, first, StepStatus::Running, None);
    }

    /// What an election does to the running step.
    fn elected(&mut self, context: &mut Context, term: u64, leader: NodeId) -> Option<FailedStep> {
        let position = self.running_position()?;
        self.taken_over = true;
        let won = won_election(leader, term);
        let not_taken = |why: String| Refusal::new(Code::TransferNotTaken, why);
        let why = match self.steps.get(position)? {
            StepSpec::TransferLeadership { to, .. } if to.contains(&leader) => {
                self.succeed(context, position, won);
                return None;
            }
            StepSpec::TransferLeadership { to, .. } => match to.first().filter(|_| to.len() == 1) {
                Some(to) => not_taken(format!("{won}, not node {to}")),
                None => not_taken(format!("{won}, and must not lead after this operation")),
            },
            StepSpec::VerifyLeader { node } if *node != leader => {
                not_taken(format!("{won}, not node {node}"))
            }
            _ => {
                // A transfer that was planned from another leader cannot be executed any more.
                let mut later = self.steps.iter().skip(position + 1);
                let upset = later.any(|step| {
                    matches!(step, StepSpec::TransferLeadership { from: Some(from), .. } if *from != leader)
                });
                if !upset {
                    return None;
                }
                Refusal::new(Code::PreflightFailed, format!("{won} before the transfer of leadership"))
            }
        };
        self.fail(context, position, why)
    }
}

impl Operations {
    pub fn get(&self, id: OperationId) -> Option<&Operation> {
        self.by_id.get(&id).map(|record| &record.operation)
    }

    pub fn find(&self, id: OperationId) -> Result<&OperationRecord, Refusal> {
        self.by_id
            .get(&id)
            .map(Arc::as_ref)
            .ok_or_else(|| Refusal::new(Code::UnknownOperation, format!("there is no operation {id}")))
    }

    fn of_plan(&self, plan: PlanId) -> Option<OperationId> {
        self.by_id
            .values()
            .rev()
            .find(|record| record.operation.plan == plan)
            .map(|record| record.operation.id)
    }

    /// Those that are running or wait to be kept, oldest first.
    pub fn unfinished(&self) -> impl Iterator<Item = &OperationRecord> {
        self.unfinished.iter().filter_map(|id| self.by_id.get(id)).map(Arc::as_ref)
    }

    /// The steps that the runner has to execute, at most one of each operation.
    pub fn running_steps(&self) -> impl Iterator<Item = RunningStep> {
        self.unfinished().filter_map(OperationRecord::running_step)
    }

    /// The unfinished operation of the same scope.
    pub fn in_scope(&self, scope: &Scope) -> Option<&Operation> {
        self.unfinished().map(|record| &record.operation).find(|operation| operation.scope == *scope)
    }

    /// A refusal while an operation of the same scope is unfinished: it has to end first.
    pub fn check_free(&self, scope: &Scope) -> Result<(), Refusal> {
        let Some(other) = self.in_scope(scope) else { return Ok(()) };
        let way_out = match other.status {
            OperationStatus::AwaitingKeep => "keep or abort it first",
            _ => "wait for its outcome",
        };
        let Operation { id, action, .. } = other;
        let text = format!("operation {id} changes the same scope, {scope} ({action}); {way_out}");
        Err(Refusal::new(Code::OperationRunning, text))
    }

    pub fn next_due(&self) -> Option<ClusterTime> {
        self.unfinished().filter_map(|record| record.due).min()
    }

    /// Newest first, below `id`.
    pub fn before(&self, id: OperationId) -> impl Iterator<Item = &Operation> {
        self.by_id.range(..id).rev().map(|(_, record)| &record.operation)
    }

    /// Newest first.
    pub fn latest(&self, count: usize) -> impl Iterator<Item = &Operation> {
        self.by_id.values().rev().take(count).map(|record| &record.operation)
    }

    /// Those that clients see in the view, oldest first.
    pub fn shown(&self) -> impl Iterator<Item = &Operation> {
        self.shown.iter().filter_map(|id| self.get(*id))
    }

    fn edit<T>(&mut self, id: OperationId, change: impl FnOnce(&mut OperationRecord) -> T) -> Option<T> {
        let record = Arc::make_mut(self.by_id.get_mut(&id)?);
        let result = change(record);
        if record.operation.status.is_final() {
            self.unfinished.remove(&id);
        }
        Some(result)
    }

    fn insert(&mut self, record: OperationRecord, limits: &Limits) {
        let id = record.operation.id;
        self.by_id.insert(id, Arc::new(record));
        self.unfinished.insert(id);
        self.shown.insert(id);
        let has_ended = |id: &&OperationId| !self.unfinished.contains(*id);
        let hidden =
            self.shown.iter().find(has_ended).filter(|_| self.shown.len() > limits.shown_operations).copied();
        let dropped =
            self.by_id.keys().find(has_ended).filter(|_| self.by_id.len() > limits.operations).copied();
        if let Some(id) = hidden {
            self.shown.remove(&id);
        }
        if let Some(id) = dropped {
            self.by_id.remove(&id);
        }
    }

    /// An undo that succeeded is noted at the operation that it undid.
    fn note_undone(&mut self, context: &mut Context, id: OperationId) {
        let done = self.get(id).filter(|operation| operation.status == OperationStatus::Succeeded);
        let Some(undone) = done.and_then(|operation| operation.undo_of) else { return };
        self.edit(undone, |record| {
            record.operation.undone_by = Some(id);
            record.operation.revision = context.revision;
            context.emit(Event::OperationUndone { operation: undone, by: id });
        });
    }

    /// Does what has become due: a step past its deadline has failed, an operation that was not kept reverts.
    pub(super) fn expire(&mut self, context: &mut Context) -> Vec<FailedStep> {
        let is_due = |record: &&OperationRecord| record.due.is_some_and(|due| due <= context.now);
        let due: Vec<_> = self.unfinished().filter(is_due).map(|record| record.operation.id).collect();
        let expire = |record: &mut OperationRecord, context: &mut Context| {
            let Some(position) = record.running_position() else {
                record.revert(context, Refusal::new(Code::NotKept, "it was not confirmed in time"));
                return None;
            };
            let left = record.left_behind(position).map_or_else(String::new, |left| format!("; {left}"));
            let step = &record.operation.steps[position];
            let why = format!("the step {} did not end within {} ms{left}", step.name, step.bound_ms);
            record.fail(context, position, Refusal::new(Code::StepTimeout, why))
        };
        due.into_iter().filter_map(|id| self.edit(id, |record| expire(record, context))?).collect()
    }

    /// Ends all that is unfinished: their steps and reverts were planned for other members.
    pub(super) fn fail_all(&mut self, context: &mut Context, why: &Refusal) -> Vec<FailedStep> {
        let ids: Vec<_> = self.unfinished.iter().copied().collect();
        let fail = |record: &mut OperationRecord, context: &mut Context| match record.running_position() {
            Some(position) => record.fail(context, position, why.clone()),
            None => {
                record.set_status(context, OperationStatus::Failed, Some(why.clone()));
                None
            }
        };
        ids.into_iter().filter_map(|id| self.edit(id, |record| fail(record, context))?).collect()
    }

    /// An election ends a transfer of leadership, and upsets one that was planned from another leader.
    pub(super) fn leader_elected(
        &mut self,
        context: &mut Context,
        term: u64,
        leader: NodeId,
    ) -> Vec<FailedStep> {
        let ids: Vec<_> = self.unfinished.iter().copied().collect();
        ids.into_iter()
            .filter_map(|id| self.edit(id, |record| record.elected(context, term, leader))?)
            .collect()
    }

    /// Whether the step runs, and `term` is the latest: else the runner that asks is late.
    pub(super) fn check_running(
        &self,
        current_term: u64,
        id: OperationId,
        position: u32,
        term: u64,
    ) -> Result<usize, Refusal> {
        let record = self.find(id)?;
        let wanted = position as usize;
        if term == current_term && record.running_position() == Some(wanted) {
            return Ok(wanted);
        }
        Err(Refusal::new(
            Code::StaleReport,
            format!("step {position} of operation {id} is not run by a runner of term {term}"),
        ))
    }

    pub(super) fn report_step(
        &mut self,
        context: &mut Context,
        current_term: u64,
        id: OperationId,
        position: u32,
        term: u64,
        result: Result<String, Refusal>,
    ) -> Result<Option<FailedStep>, Refusal> {
        let position = self.check_running(current_term, id, position, term)?;
        let failed = self.edit(id, |record| match result {
            Ok(detail) => {
                record.succeed(context, position, detail);
                None
            }
            Err(why) => record.fail(context, position, why),
        });
        self.note_undone(context, id);
        Ok(failed.flatten())
    }

    pub(super) fn abort(&mut self, context: &mut Context, id: OperationId) -> Result<Outcome, Refusal> {
        let record = self.find(id)?;
        let why = Refusal::new(Code::AbortedByOperator, format!("{} aborted it", context.actor));
        match (record.operation.status, record.running_position()) {
            (OperationStatus::AwaitingKeep, _) => {
                self.edit(id, |record| record.revert(context, why));
            }
            (OperationStatus::Running, Some(position)) if record.is_abortable(position) => {
                self.edit(id, |record| record.stop(context, position, OperationStatus::Aborted, why));
            }
            (OperationStatus::Running, Some(position)) => {
                return Err(Refusal::new(
                    Code::NotAbortable,
                    format!(
                        "operation {id} is at the step {} and can no longer be aborted; wait for its outcome",
                        record.operation.steps[position].name
                    ),
                ));
            }
            (status, _) => {
                return Err(Refusal::new(
                    Code::NotAbortable,
                    format!("operation {id} has ended: {}", status.as_str()),
                ));
            }
        }
        self.outcome(id, false)
    }

    pub(super) fn keep(&mut self, context: &mut Context, id: OperationId) -> Result<Outcome, Refusal> {
        let status = self.find(id)?.operation.status;
        if status != OperationStatus::AwaitingKeep {
            return Err(Refusal::new(
                Code::NotAwaitingKeep,
                format!("operation {id} does not wait to be kept: {}", status.as_str().replace('_', " ")),
            ));
        }
        self.edit(id, |record| record.set_status(context, OperationStatus::Succeeded, None));
        self.note_undone(context, id);
        self.outcome(id, false)
    }

    fn outcome(&self, id: OperationId, started: bool) -> Result<Outcome, Refusal> {
        Ok(Outcome::Operation { operation: Box::new(self.find(id)?.operation.clone()), started })
    }
}

impl State {
    /// Takes back what a failed step may not leave behind: an upstream whose failover ended while its old primary was
    /// certainly not fenced has that one again. One primary that may be down is better than none. A fence may have
    /// taken effect if its webhook was called and its answer is unknown, and after a fence the old primary has stopped:
    /// neither is taken back.
    pub(super) fn clean_up(&mut self, context: &mut Context, failed: impl IntoIterator<Item = FailedStep>) {
        for FailedStep { operation, begun, why, taken_over } in failed {
            let (is_fence, webhook) = match begun.last() {
                Some(StepSpec::ClearPrimary { .. }) => (false, None),
                Some(StepSpec::FencePrimary { webhook, .. }) => (true, webhook.as_deref()),
                _ => continue,
            };
            let cleared = begun.iter().find_map(|spec| match spec {
                StepSpec::ClearPrimary { upstream, from: Some(from), .. } => Some((upstream, from)),
                _ => None,
            });
            let Some((upstream, from)) = cleared else { continue };
            let Some(record) = self.upstreams.get(upstream) else { continue };
            // Nodes that were lost may have fenced it, too.
            let answer_is_unknown = is_fence && (why.code == Code::StepTimeout || taken_over)
                || why.code == Code::ClusterRecovered;
            let has_none = record.upstream.primary.as_ref().is_some_and(|primary| primary.endpoint.is_none());
            let webhook = webhook.or(record.upstream.config.fence_webhook());
            // The endpoint may be gone, or be another process by now: the upstream has no primary then.
            let is_there = record.latest_primary().is_some_and(|last| {
                last.endpoint == *from && record.endpoint(from).is_ok_and(|endpoint| last.is(endpoint))
            });
            if !has_none || !is_there || (answer_is_unknown && webhook.is_some()) {
                continue;
            }
            let reason = format!("operation {operation} failed: {}", why.detail);
            let _ = self.upstreams.set_primary(context, upstream, Some(from.clone()), &reason);
        }
    }
}
