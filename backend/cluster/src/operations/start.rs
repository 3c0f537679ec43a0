//! Applying a plan: what it is refused for, and the operation that it becomes.

use super::OperationRecord;
use crate::{Context, State, limits::Limits, outcome::Outcome, plans::PlanRecord};
use ringmaster_common::{
    error::{Code, Refusal},
    event::Event,
    id::{OperationId, PlanId},
    operation::{Operation, OperationStatus, Step, StepStatus},
    plan::PlannedStep,
};
use std::time::Duration;

impl State {
    pub(crate) fn start_operation(
        &mut self,
        context: &mut Context,
        id: PlanId,
        keep_within_ms: Option<u64>,
    ) -> Result<Outcome, Refusal> {
        // An operation may be kept longer than its plan.
        if let Some(operation) = self.operations.of_plan(id) {
            return self.operations.outcome(operation, false);
        }
        let record = self.plans.find(id)?.clone();
        self.check_start(context, &record, keep_within_ms)?;
        let PlanRecord { plan, steps, revert, undo, undoes, .. } = record;
        let started = OperationId(self.operations.last.0 + 1);
        let operation = Operation {
            id: started,
            plan: id,
            action: plan.action,
            scope: plan.scope,
            summary: plan.summary,
            status: OperationStatus::Running,
            steps: plan.steps.into_iter().map(pending).collect(),
            error: None,
            started_by: context.actor.to_string(),
            started_at: context.wall,
            ended_at: None,
            keep_within_ms,
            keep_until: None,
            undoable: plan.undoable,
            undo_of: undoes,
            undone_by: None,
            revision: context.revision,
        };
        context.emit(Event::OperationStarted { operation: Box::new(operation.clone()) });
        let operations = &mut self.operations;
        operations.last = started;
        let record = OperationRecord {
            operation,
            steps,
            revert,
            undo,
            reverts_from: None,
            due: None,
            taken_over: false,
        };
        operations.insert(record, context.limits);
        operations.edit(started, |record| record.set_step(context, 0, StepStatus::Running, None));
        self.plans.applied(id, started);
        self.operations.outcome(started, true)
    }

    /// What the plan cannot be applied for.
    fn check_start(
        &self,
        context: &Context,
        record: &PlanRecord,
        keep_within_ms: Option<u64>,
    ) -> Result<(), Refusal> {
        let plan = &record.plan;
        let id = plan.id;
        if context.now >= record.expires {
            return Err(Refusal::new(
                Code::PlanExpired,
                format!("plan {id} could be applied until {}; plan again", plan.expires_at),
            ));
        }
        if let [first, ..] = plan.blockers.as_slice() {
            return Err(Refusal::new(Code::PlanBlocked, format!("plan {id} is blocked: {}", first.detail)));
        }
        self.operations.check_free(&plan.scope)?;
        let most = context.limits.unfinished_operations;
        if self.operations.unfinished.len() >= most {
            return Err(Refusal::new(
                Code::OperationRunning,
                format!("{most} operations are unfinished, the most at a time; wait until one ends"),
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
        check_keep(context.limits, record.revert.is_some(), keep_within_ms)
    }
}

fn check_keep(limits: &Limits, reverts: bool, keep_within_ms: Option<u64>) -> Result<(), Refusal> {
    let Some(ms) = keep_within_ms else { return Ok(()) };
    if !reverts {
        return Err(Refusal::new(
            Code::NotUndoable,
            "this plan cannot be reverted automatically; apply it without keep_within_ms",
        ));
    }
    let range = &limits.keep_within;
    if !range.contains(&Duration::from_millis(ms)) {
        return Err(Refusal::new(
            Code::InvalidRequest,
            format!(
                "keep_within_ms takes {} to {}, not {ms}",
                range.start().as_millis(),
                range.end().as_millis()
            ),
        ));
    }
    Ok(())
}

pub(super) fn pending(planned: PlannedStep) -> Step {
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
