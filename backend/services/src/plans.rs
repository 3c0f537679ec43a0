//! Plans: every action of an operator is planned, shown and then applied.

use crate::{
    Read, ReadRequest, ServiceError, Services, WriteRequest, Written,
    page::{Paging, page},
};
use ringmaster_cluster::command::{Command, Outcome};
use ringmaster_common::{action::Action, id::PlanId, operation::Operation, page::Page, plan::Plan};

/// Makes a plan: the steps of the action, its impact, its warnings and its blockers. It changes nothing else.
pub async fn create(
    services: &Services,
    request: WriteRequest,
    action: Action,
) -> Result<Written<Plan>, ServiceError> {
    let deadline = request.deadline;
    let (request_id, asked) = request.into_command_request();
    match services.group.plan(asked, action, deadline).await {
        Ok(plan) => Ok(Written { revision: Some(plan.revision), value: plan, request_id }),
        Err(refusal) => Err(ServiceError::of_write(refusal, request_id)),
    }
}

/// The plans that are kept, the latest first.
pub async fn list(
    services: &Services,
    request: ReadRequest,
    paging: Paging<PlanId>,
) -> Result<Read<Page<Plan>>, ServiceError> {
    services
        .list(request, |state| {
            Ok(page(state.plans.before(paging.after).cloned(), paging.limit, |plan| plan.id.to_string()))
        })
        .await
}

pub async fn get(services: &Services, request: ReadRequest, id: PlanId) -> Result<Read<Plan>, ServiceError> {
    services.read(request).await?.find(|state| Ok(state.plans.find(id)?.plan.clone()))
}

/// An operation, and whether this very request started it.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub operation: Operation,
    pub started: bool,
}

/// Starts the operation of a plan, unless a fact that the plan looked at has changed since.
pub async fn apply(
    services: &Services,
    request: WriteRequest,
    plan: PlanId,
    keep_within_ms: Option<u64>,
) -> Result<Written<Applied>, ServiceError> {
    let written = services.operate(request, Command::StartOperation { plan, keep_within_ms }).await?;
    let Applied { operation, started } = &written.value;
    tracing::info!(request = written.request_id, %plan, operation = %operation.id, started, "a plan is applied");
    Ok(written)
}

impl Services {
    /// Writes a command whose outcome is an operation.
    pub(crate) async fn operate(
        &self,
        request: WriteRequest,
        command: Command,
    ) -> Result<Written<Applied>, ServiceError> {
        self.write(request, command).await?.expect(|outcome| match outcome {
            Outcome::Operation { operation, started } => Some(Applied { operation: *operation, started }),
            _ => None,
        })
    }
}
