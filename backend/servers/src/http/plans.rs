//! `/v1/plans`: the one door for what operators do.

use crate::http::{
    Api,
    extract::{JsonBody, Mutation, OptionalJson, PageQuery, PathId, QueryOf, ReadQuery, page},
    openapi::problems,
    problem::Refused,
};
use axum::{
    Json,
    extract::State as Extension,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use ringmaster_cluster::command::Command;
use ringmaster_common::{
    action::Action,
    error::Code,
    id::PlanId,
    operation::Operation,
    page::Page,
    plan::{ApplyRequest, Plan, PlanRequest},
};
use serde::Deserialize;
use serde_json::Value;

/// A plan request whose action is not looked into yet, so that an unknown action gets a code of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPlanRequest {
    action: Value,
}

/// Make a plan
///
/// It says what the action would do, what forbids it, and what it looked at. It changes nothing.
#[utoipa::path(
    post, path = "/plans", tag = "plans", operation_id = "create_plan", params(Mutation),
    request_body(content = PlanRequest, examples(
        ("transfer_leadership" = (
            summary = "Hand the leadership of the cluster group to node 2",
            value = json!({ "action": { "type": "transfer_leadership", "group": 0, "to": 2 } })
        )),
        ("add_node" = (
            summary = "Make a running process a member",
            value = json!({ "action": { "type": "add_node", "node": {
                "id": 9, "name": "nine", "zone": "b", "weight": 1, "api_addr": "127.0.0.1:7709",
                "peer_addr": "127.0.0.1:7809", "public_url": "http://127.0.0.1:7709"
            } } })
        )),
        ("change_voters" = (
            summary = "Have other nodes vote",
            value = json!({ "action": { "type": "change_voters", "voters": [1] } })
        )),
        ("remove_node" = (
            summary = "Take node 3 out of the cluster for good",
            value = json!({ "action": { "type": "remove_node", "node": 3 } })
        )),
        ("drain_node" = (
            summary = "Have others do what node 3 does",
            value = json!({ "action": { "type": "drain_node", "node": 3 } })
        )),
        ("activate_node" = (
            summary = "End a drain",
            value = json!({ "action": { "type": "activate_node", "node": 3 } })
        )),
        ("release_lock" = (
            summary = "Take a lock away from whoever holds it",
            value = json!({ "action": { "type": "release_lock", "name": "uploads" } })
        )),
        ("set_endpoint_state" = (
            summary = "Give an endpoint nothing new; what it has may end",
            value = json!({ "action": { "type": "set_endpoint_state", "upstream": "web", "endpoint": "e1", "state": "drain" } })
        )),
        ("fail_over_upstream" = (
            summary = "Have another endpoint be the primary",
            value = json!({ "action": { "type": "fail_over_upstream", "upstream": "web", "to": "e2" } })
        )),
        ("undo" = (
            summary = "Take back what operation 1 did",
            value = json!({ "action": { "type": "undo", "operation": 1 } })
        ))
    )),
    responses(
        (status = 201, description = "The plan", body = Plan, headers(("Location" = String, description = "Where it is"))),
        CreateRefusals
    )
)]
pub async fn create(
    Extension(api): Extension<Api>,
    mutation: Mutation,
    JsonBody(body): JsonBody<RawPlanRequest>,
) -> Result<Response, Refused> {
    let action = parse(body.action)?;
    let plan = api.group.plan(mutation.request, action, mutation.deadline).await?;
    let location = format!("/v1/plans/{}", plan.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(plan)).into_response())
}

problems!(CreateRefusals: [WRITE, BODY], UnknownAction, UnknownNode, UnknownGroup, UnknownOperation, UnknownLock, LockLost, NotUndoable, LimitReached);

fn parse(action: Value) -> Result<Action, Refused> {
    let kind = action.get("type").and_then(Value::as_str).unwrap_or_default();
    if !Action::TYPES.contains(&kind) {
        return Err(Refused::new(
            Code::UnknownAction,
            format!("there is no action {kind:?}; there are {}", Action::TYPES.join(", ")),
        ));
    }
    serde_json::from_value(action).map_err(|error| Refused::new(Code::InvalidRequest, error.to_string()))
}

/// All plans that are kept, the latest first
#[utoipa::path(
    get, path = "/plans", tag = "plans", operation_id = "plans", params(PageQuery),
    responses((status = 200, description = "The latest first", body = Page<Plan>), ListRefusals)
)]
pub async fn list(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<Plan>>, Refused> {
    let (limit, before) = (query.limit()?, query.cursor(PlanId(u64::MAX))?);
    let state = api.read(query.consistency).await?;
    Ok(Json(page(state.plans.before(before).cloned(), limit, |plan| plan.id.to_string())))
}

problems!(ListRefusals: [READ]);

/// One plan
#[utoipa::path(
    get, path = "/plans/{id}", tag = "plans", operation_id = "plan", params(("id" = PlanId, Path, description = "A plan's id", example = 1), ReadQuery),
    responses((status = 200, description = "The plan", body = Plan), GetRefusals)
)]
pub async fn get(
    Extension(api): Extension<Api>,
    PathId(id): PathId<PlanId>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Json<Plan>, Refused> {
    let state = api.read(query.consistency).await?;
    Ok(Json(state.plans.find(id)?.plan.clone()))
}

problems!(GetRefusals: [READ], UnknownPlan);

/// Apply a plan
///
/// It is refused if anything in its footprint has changed since it was made.
#[utoipa::path(
    post, path = "/plans/{id}/apply", tag = "plans", operation_id = "apply_plan", params(("id" = PlanId, Path, description = "A plan's id", example = 1), Mutation),
    request_body(content = Option<ApplyRequest>, examples(
        ("plain" = (summary = "For good", value = json!({}))),
        ("keep_within" = (summary = "Revert by itself unless it is kept", value = json!({ "keep_within_ms": 60000 })))
    )),
    responses(
        (status = 202, description = "The operation has started", body = Operation,
            headers(("Location" = String, description = "Where it is"))),
        (status = 200, description = "The operation that has started when the plan was applied before", body = Operation,
            headers(("Location" = String, description = "Where it is"))),
        ApplyRefusals
    )
)]
pub async fn apply(
    Extension(api): Extension<Api>,
    PathId(id): PathId<PlanId>,
    mutation: Mutation,
    OptionalJson(body): OptionalJson<ApplyRequest>,
) -> Result<Response, Refused> {
    let command = Command::StartOperation { plan: id, keep_within_ms: body.keep_within_ms };
    let request = mutation.request.id.clone();
    let (operation, started) = api.group.operate(mutation.request, command, mutation.deadline).await?;
    tracing::info!(request, plan = %id, operation = %operation.id, started, "a plan is applied");
    let status = if started { StatusCode::ACCEPTED } else { StatusCode::OK };
    let location = format!("/v1/operations/{}", operation.id);
    Ok((status, [(header::LOCATION, location)], Json(operation)).into_response())
}

problems!(ApplyRefusals: [WRITE, BODY], UnknownPlan, PlanStale, PlanExpired, PlanBlocked, OperationRunning, NotUndoable);
