//! `/v1/plans`: every action of an operator is a plan first.

use crate::http::{
    Api,
    extract::{Caller, JsonBody, OptionalJson, PageQuery, PathId, QueryOf, ReadQuery, Write},
    openapi::problems,
    problem::ApiError,
    response_metadata as metadata,
};
use axum::{extract::State, http::StatusCode, response::Response};
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    id::PlanId,
    operation::Operation,
    page::Page,
    plan::{ApplyRequest, Plan, PlanRequest},
};
use ringmaster_services::plans;
use serde::Deserialize;
use serde_json::Value;

/// A plan request with an action that is not parsed yet, so that an unknown action gets a code of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPlanRequest {
    action: Value,
}

/// Make a plan
///
/// It lists the steps and the impact of the action, its warnings and blockers, and the facts that it depends on. It
/// changes nothing.
#[utoipa::path(
    post, path = "/v1/plans", tag = "plans", operation_id = "create_plan", params(Write),
    request_body(content = PlanRequest, examples(
        ("transfer_leadership" = (
            summary = "Transfer the leadership of the cluster group to node 2",
            value = json!({ "action": { "type": "transfer_leadership", "group": 0, "to": 2 } })
        )),
        ("add_node" = (
            summary = "Add a running process as a member",
            value = json!({ "action": { "type": "add_node", "node": {
                "id": 9, "name": "nine", "zone": "b", "weight": 1, "api_addr": "127.0.0.1:7709",
                "peer_addr": "127.0.0.1:7809", "public_url": "http://127.0.0.1:7709"
            } } })
        )),
        ("change_voters" = (
            summary = "Change the voters",
            value = json!({ "action": { "type": "change_voters", "voters": [1] } })
        )),
        ("remove_node" = (
            summary = "Remove node 3 from the cluster",
            value = json!({ "action": { "type": "remove_node", "node": 3 } })
        )),
        ("drain_node" = (
            summary = "Drain node 3",
            value = json!({ "action": { "type": "drain_node", "node": 3 } })
        )),
        ("activate_node" = (
            summary = "End a drain",
            value = json!({ "action": { "type": "activate_node", "node": 3 } })
        )),
        ("release_lock" = (
            summary = "Take a lock away from its holders",
            value = json!({ "action": { "type": "release_lock", "name": "uploads" } })
        )),
        ("set_endpoint_state" = (
            summary = "Drain an endpoint: no new requests",
            value = json!({ "action": { "type": "set_endpoint_state", "upstream": "web", "endpoint": "e1", "state": "drain" } })
        )),
        ("fail_over_upstream" = (
            summary = "Fail over an upstream",
            value = json!({ "action": { "type": "fail_over_upstream", "upstream": "web", "to": "e2" } })
        )),
        ("undo" = (
            summary = "Undo operation 1",
            value = json!({ "action": { "type": "undo", "operation": 1 } })
        ))
    )),
    responses(
        (status = 201, description = "The plan", body = Plan, headers(("Location" = String, description = "Its path"))),
        CreateRefusals
    )
)]
pub async fn create(
    State(api): State<Api>,
    Write(request): Write,
    JsonBody(body): JsonBody<RawPlanRequest>,
) -> Result<Response, ApiError> {
    let action = request.check(parse(body.action))?;
    let plan = plans::create(&api.services, request, action).await?;
    let location = format!("/v1/plans/{}", plan.value.id);
    Ok(metadata::at_location(metadata::written(StatusCode::CREATED, plan), &location))
}

problems!(CreateRefusals: [WRITE, BODY], UnknownAction, UnknownNode, UnknownGroup, UnknownOperation, UnknownLock, LockLost, NotUndoable, LimitReached);

fn parse(action: Value) -> Result<Action, Refusal> {
    let kind = action.get("type").and_then(Value::as_str).unwrap_or_default();
    if !Action::TYPES.contains(&kind) {
        let detail = format!("there is no action {kind:?}; there are {}", Action::TYPES.join(", "));
        return Err(Refusal::new(Code::UnknownAction, detail));
    }
    serde_json::from_value(action).map_err(|error| Refusal::new(Code::InvalidRequest, error.to_string()))
}

/// All plans that are kept, the latest first
#[utoipa::path(
    get, path = "/v1/plans", tag = "plans", operation_id = "plans", params(PageQuery),
    responses((status = 200, description = "The latest first", body = Page<Plan>), ListRefusals)
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Response, ApiError> {
    let (request, paging) = (caller.read(query.consistency), query.paging(PlanId(u64::MAX))?);
    Ok(metadata::read(plans::list(&api.services, request, paging).await?))
}

problems!(ListRefusals: [READ]);

/// One plan
#[utoipa::path(
    get, path = "/v1/plans/{id}", tag = "plans", operation_id = "plan", params(("id" = PlanId, Path, description = "A plan's id", example = 1), ReadQuery),
    responses((status = 200, description = "The plan", body = Plan), GetRefusals)
)]
pub async fn get(
    State(api): State<Api>,
    caller: Caller,
    PathId(id): PathId<PlanId>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, ApiError> {
    Ok(metadata::read(plans::get(&api.services, caller.read(query.consistency), id).await?))
}

problems!(GetRefusals: [READ], UnknownPlan);

/// Apply a plan
///
/// It is refused if a fact in its footprint has changed since the plan was made.
#[utoipa::path(
    post, path = "/v1/plans/{id}/apply", tag = "plans", operation_id = "apply_plan", params(("id" = PlanId, Path, description = "A plan's id", example = 1), Write),
    request_body(content = Option<ApplyRequest>, examples(
        ("plain" = (summary = "Permanently", value = json!({}))),
        ("keep_within" = (summary = "Revert automatically unless it is kept", value = json!({ "keep_within_ms": 60000 })))
    )),
    responses(
        (status = 202, description = "The operation has started", body = Operation,
            headers(("Location" = String, description = "Its path"))),
        (status = 200, description = "The operation that an earlier request started", body = Operation,
            headers(("Location" = String, description = "Its path"))),
        ApplyRefusals
    )
)]
pub async fn apply(
    State(api): State<Api>,
    PathId(id): PathId<PlanId>,
    Write(request): Write,
    OptionalJson(body): OptionalJson<ApplyRequest>,
) -> Result<Response, ApiError> {
    let applied = plans::apply(&api.services, request, id, body.keep_within_ms).await?;
    let status = if applied.value.started { StatusCode::ACCEPTED } else { StatusCode::OK };
    let operation = applied.map(|applied| applied.operation);
    let location = format!("/v1/operations/{}", operation.value.id);
    Ok(metadata::at_location(metadata::written(status, operation), &location))
}

problems!(ApplyRefusals: [WRITE, BODY], UnknownPlan, PlanStale, PlanExpired, PlanBlocked, OperationRunning, NotUndoable);
