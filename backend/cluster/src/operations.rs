//! Operations: plans being run.
//!
//! A step is a desired state. That it runs is committed first, its effect is brought about by the
//! leader's runner and may be brought about twice, and its end is reported into the log. So an
//! operation outlives its runner: the next leader finds the running step, and goes on with it.
//!
//! What always holds:
//! - One operation is under way at a time, from its start until it is final.
//! - A running operation has exactly one running step, with a deadline in cluster time.
//! - A runner of an older term is not listened to.
//! - A hand-over ends with the election that it caused, whoever wins.

use crate::{
    Context, State,
    command::{ClusterTime, Outcome},
    plans::{Goal, StepKind},
};
use imbl::OrdMap;
use ringmaster_common::{
    error::{Code, Refusal},
    event::Event,
    id::{NodeId, OperationId, PlanId},
    operation::{Operation, OperationStatus, Step, StepStatus},
    plan::PlannedStep,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// How many of the latest operations are kept.
pub const MAX_OPERATIONS: usize = 1000;
/// The longest that an operator may wait before keeping an operation.
pub const MAX_KEEP_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest: less would revert before anybody could have looked.
pub const MIN_KEEP_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Operations {
    by_id: OrdMap<OperationId, Arc<OperationRecord>>,
    last: OperationId,
    /// The one that is under way.
    current: Option<OperationId>,
}

/// An operation, and what only the server needs to know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationRecord {
    pub operation: Operation,
    pub goal: Goal,
    /// While it takes itself back: the goal of that. Its steps stand behind those of `goal`.
    pub reverting: Option<Goal>,
    /// When the running step has failed, or the operation is reverted unless it is kept.
    pub due: Option<ClusterTime>,
}

/// The step that the runner has to bring about.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningStep {
    pub operation: OperationId,
    pub position: u32,
    pub kind: StepKind,
    pub goal: Goal,
}

/// What an operation that was given up may leave behind, and what to do about it.
fn what_is_left(goal: &Goal) -> String {
    match goal {
        Goal::AddNode { node, .. } => format!(
            "; node {0} is a member all the same, and goes on joining if it is started; to take it out: ringmaster \
             apply remove_node --node {0}",
            node.id
        ),
        Goal::ChangeVoters { .. } | Goal::RemoveNode { voters: Some(_), .. } => {
            "; the change of voters may still come about; look at who votes before you plan again".to_owned()
        }
        _ => String::new(),
    }
}

impl OperationRecord {
    fn goal_of(&self, position: usize) -> (&Goal, usize) {
        let forward = self.goal.steps().len();
        match &self.reverting {
            Some(goal) if position >= forward => (goal, position - forward),
            _ => (&self.goal, position),
        }
    }

    fn kind(&self, position: usize) -> Option<StepKind> {
        let (goal, position) = self.goal_of(position);
        goal.steps().get(position).copied()
    }

    fn running_position(&self) -> Option<usize> {
        self.operation.steps.iter().position(|step| step.status == StepStatus::Running)
    }

    pub fn running_step(&self) -> Option<RunningStep> {
        let position = self.running_position()?;
        Some(RunningStep {
            operation: self.operation.id,
            position: position.try_into().ok()?,
            kind: self.kind(position)?,
            goal: self.goal_of(position).0.clone(),
        })
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
        } else if self.reverting.is_some() {
            let error = self.operation.error.clone();
            self.set_status(context, OperationStatus::Reverted, error);
        } else if self.operation.keep_within_ms.is_some() {
            self.set_status(context, OperationStatus::AwaitingKeep, None);
        } else {
            self.set_status(context, OperationStatus::Succeeded, None);
        }
    }

    /// The running step failed, or was given up, and what would have followed is skipped.
    fn stop(&mut self, context: &mut Context, position: usize, status: OperationStatus, why: Refusal) {
        let step = if status == OperationStatus::Failed { StepStatus::Failed } else { StepStatus::Skipped };
        self.set_step(context, position, step, Some(why.detail.clone()));
        for position in position + 1..self.operation.steps.len() {
            self.set_step(context, position, StepStatus::Skipped, None);
        }
        self.set_status(context, status, Some(why));
    }

    fn revert(&mut self, context: &mut Context, why: Refusal) {
        let Some(inverse) = self.goal.inverse() else { return };
        let first = self.operation.steps.len();
        let steps: Vec<Step> = inverse
            .planned_steps()
            .into_iter()
            .map(|planned| pending(PlannedStep { name: format!("revert_{}", planned.name), ..planned }))
            .collect();
        self.reverting = Some(inverse);
        self.operation.steps.extend_from_slice(&steps);
        context.emit(Event::StepsAdded { operation: self.operation.id, steps });
        self.set_status(context, OperationStatus::Running, Some(why));
        self.set_step(context, first, StepStatus::Running, None);
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

    /// The operation that is under way.
    pub fn current(&self) -> Option<&OperationRecord> {
        self.by_id.get(&self.current?).map(Arc::as_ref)
    }

    /// Newest first, below `id`.
    pub fn before(&self, id: OperationId) -> impl Iterator<Item = &Operation> {
        self.by_id.range(..id).rev().map(|(_, record)| &record.operation)
    }

    pub fn latest(&self, count: usize) -> impl Iterator<Item = &Operation> {
        self.by_id.values().rev().take(count).map(|record| &record.operation)
    }

    fn edit<T>(&mut self, id: OperationId, change: impl FnOnce(&mut OperationRecord) -> T) -> Option<T> {
        let record = Arc::make_mut(self.by_id.get_mut(&id)?);
        let result = change(record);
        if record.operation.status.is_final() && self.current == Some(id) {
            self.current = None;
        }
        Some(result)
    }

    /// An undo that succeeded is noted at what it undid.
    fn note_undone(&mut self, context: &mut Context, id: OperationId) {
        let done = self.get(id).filter(|operation| operation.status == OperationStatus::Succeeded);
        let Some(undone) = done.and_then(|operation| operation.undo_of) else { return };
        self.edit(undone, |record| {
            record.operation.undone_by = Some(id);
            record.operation.revision = context.revision;
            context.emit(Event::OperationUndone { operation: undone, by: id });
        });
    }

    /// Does what has become due: a step past its deadline has failed, an operation that nobody kept
    /// is reverted.
    pub(super) fn expire(&mut self, context: &mut Context) {
        let Some(record) = self.current() else { return };
        if record.due.is_none_or(|due| due > context.now) {
            return;
        }
        let id = record.operation.id;
        let left = record.running_step().map(|step| what_is_left(&step.goal)).unwrap_or_default();
        self.edit(id, |record| match record.running_position() {
            Some(position) => {
                let step = &record.operation.steps[position];
                let why = Refusal::new(
                    Code::StepTimeout,
                    format!("the step {} did not end within {} ms{left}", step.name, step.bound_ms),
                );
                record.stop(context, position, OperationStatus::Failed, why);
            }
            None => {
                let why = Refusal::new(Code::NotKept, "nobody kept it in time");
                record.revert(context, why);
            }
        });
    }

    /// An election ends a hand-over, and upsets a transfer that was planned from another leader.
    pub(super) fn leader_elected(&mut self, context: &mut Context, term: u64, leader: NodeId) {
        let Some(running) = self.current().and_then(OperationRecord::running_step) else { return };
        let RunningStep { operation, position, kind, goal } = running;
        let won = format!("node {leader} won the election of term {term}");
        let failed = match (kind, &goal) {
            (StepKind::HandOver, _) if goal.may_lead(leader) => None,
            (StepKind::HandOver | StepKind::Verify, Goal::TransferLeadership { to, .. }) if leader != *to => {
                Some(Refusal::new(Code::TransferNotTaken, format!("{won}, not node {to}")))
            }
            (StepKind::HandOver, _) => {
                Some(Refusal::new(Code::TransferNotTaken, format!("{won}, and is not to lead any more")))
            }
            (StepKind::Preflight | StepKind::CatchUp, Goal::TransferLeadership { from, .. })
                if leader != *from =>
            {
                Some(Refusal::new(Code::PreflightFailed, format!("{won} before the hand-over")))
            }
            // The step goes on under the new term.
            _ => return,
        };
        let position = position as usize;
        self.edit(operation, |record| match failed {
            None => record.succeed(context, position, won),
            Some(why) => record.stop(context, position, OperationStatus::Failed, why),
        });
    }

    pub(super) fn report_step(
        &mut self,
        context: &mut Context,
        current_term: u64,
        id: OperationId,
        position: u32,
        term: u64,
        result: Result<String, Refusal>,
    ) -> Result<(), Refusal> {
        let record = self.find(id)?;
        let position = position as usize;
        if term != current_term || record.running_position() != Some(position) {
            return Err(Refusal::new(
                Code::StaleReport,
                format!("step {position} of operation {id} is not run by a runner of term {term}"),
            ));
        }
        self.edit(id, |record| match result {
            Ok(detail) => record.succeed(context, position, detail),
            Err(why) => record.stop(context, position, OperationStatus::Failed, why),
        });
        self.note_undone(context, id);
        Ok(())
    }

    pub(super) fn abort(&mut self, context: &mut Context, id: OperationId) -> Result<Outcome, Refusal> {
        let record = self.find(id)?;
        let why = Refusal::new(Code::AbortedByOperator, format!("{} aborted it", context.actor));
        match (record.operation.status, record.running_step()) {
            (OperationStatus::AwaitingKeep, _) => {
                self.edit(id, |record| record.revert(context, why));
            }
            (OperationStatus::Running, Some(running))
                if running.kind.abortable() && record.reverting.is_none() && !record.joined(&running) =>
            {
                let position = running.position as usize;
                self.edit(id, |record| record.stop(context, position, OperationStatus::Aborted, why));
            }
            (OperationStatus::Running, Some(running)) => {
                return Err(Refusal::new(
                    Code::NotAbortable,
                    format!(
                        "operation {id} is at the step {}, from which there is no way back; wait for its outcome",
                        running.kind.name()
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
        self.answer(id, false)
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
        self.answer(id, false)
    }

    fn answer(&self, id: OperationId, started: bool) -> Result<Outcome, Refusal> {
        Ok(Outcome::Operation { operation: Box::new(self.find(id)?.operation.clone()), started })
    }
}

impl OperationRecord {
    /// Whether the running step comes after the node became a member.
    fn joined(&self, running: &RunningStep) -> bool {
        matches!(running.goal, Goal::AddNode { .. }) && running.position > 0
    }
}

impl State {
    pub(super) fn start_operation(
        &mut self,
        context: &mut Context,
        id: PlanId,
        keep_within_ms: Option<u64>,
    ) -> Result<Outcome, Refusal> {
        // It may be known longer than its plan.
        if let Some(operation) = self.operations.of_plan(id) {
            return self.operations.answer(operation, false);
        }
        let record = self.plans.find(id)?;
        let plan = &record.plan;
        if context.now >= record.expires {
            return Err(Refusal::new(
                Code::PlanExpired,
                format!("plan {id} could be applied until {}; plan again", plan.expires_at),
            ));
        }
        if let [first, ..] = plan.blockers.as_slice() {
            return Err(Refusal::new(Code::PlanBlocked, format!("plan {id} is blocked: {}", first.detail)));
        }
        if let Some(current) = self.operations.current() {
            return Err(Refusal::new(
                Code::OperationRunning,
                format!(
                    "operation {} is under way ({}); {}",
                    current.operation.id,
                    current.operation.action,
                    if current.operation.status == OperationStatus::AwaitingKeep {
                        "keep or abort it first"
                    } else {
                        "wait for its outcome"
                    }
                ),
            ));
        }
        let facts = self.drift(&plan.footprint);
        if !facts.is_empty() {
            let names: Vec<_> = facts.iter().map(|fact| fact.fact.as_str()).collect();
            return Err(Refusal {
                facts: facts.clone(),
                ..Refusal::new(
                    Code::PlanStale,
                    format!("{} changed since plan {id} was made; plan again", names.join(", ")),
                )
            });
        }
        check_keep(record.goal.inverse().is_some(), keep_within_ms)?;
        let operations = &mut self.operations;
        operations.last = OperationId(operations.last.0 + 1);
        let operation = Operation {
            id: operations.last,
            plan: id,
            action: plan.action.clone(),
            summary: plan.summary.clone(),
            status: OperationStatus::Running,
            steps: plan.steps.iter().cloned().map(pending).collect(),
            error: None,
            started_by: context.actor.to_string(),
            started_at: context.wall,
            ended_at: None,
            keep_within_ms,
            keep_until: None,
            undoable: plan.undoable,
            undo_of: record.undoes,
            undone_by: None,
            revision: context.revision,
        };
        let record = OperationRecord { operation, goal: record.goal.clone(), reverting: None, due: None };
        context.emit(Event::OperationStarted { operation: record.operation.clone() });
        let started = operations.last;
        operations.by_id.insert(started, Arc::new(record));
        operations.current = Some(started);
        operations.edit(started, |record| record.set_step(context, 0, StepStatus::Running, None));
        if operations.by_id.len() > MAX_OPERATIONS
            && let Some(&(oldest, _)) = operations.by_id.get_min()
        {
            operations.by_id.remove(&oldest);
        }
        self.plans.applied(id, started);
        self.operations.answer(started, true)
    }
}

fn check_keep(reverts: bool, keep_within_ms: Option<u64>) -> Result<(), Refusal> {
    let Some(ms) = keep_within_ms else { return Ok(()) };
    if !reverts {
        return Err(Refusal::new(
            Code::NotUndoable,
            "what this plan does cannot revert by itself; apply it without keep_within_ms",
        ));
    }
    if !(MIN_KEEP_WITHIN..=MAX_KEEP_WITHIN).contains(&Duration::from_millis(ms)) {
        return Err(Refusal::new(
            Code::InvalidRequest,
            format!(
                "keep_within_ms takes {} to {}, not {ms}",
                MIN_KEEP_WITHIN.as_millis(),
                MAX_KEEP_WITHIN.as_millis()
            ),
        ));
    }
    Ok(())
}

fn pending(planned: PlannedStep) -> Step {
    Step {
        name: planned.name,
        title: planned.title,
        bound_ms: planned.bound_ms,
        status: StepStatus::Pending,
        started_at: None,
        ended_at: None,
        detail: None,
    }
}
