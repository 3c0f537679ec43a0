//! `/v1/plans`: the one door for what operators do.

use crate::{
    api::{
        Api,
        extract::{JsonBody, Mutation, OptionalJson, PageQuery, PathId, QueryOf, ReadQuery, page},
        problem::Refused,
    },
    state::command::Command,
};
use axum::{
    Json,
    extract::State as Extension,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use ringmaster_common::{
    action::Action,
    error::Code,
    id::PlanId,
    page::Page,
    plan::{ApplyRequest, Plan},
};
use serde::Deserialize;
use serde_json::Value;

/// A plan request whose action is not looked into yet, so that an unknown action gets a code of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPlanRequest {
    action: Value,
}

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

pub async fn list(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<Plan>>, Refused> {
    let (limit, before) = (query.limit()?, query.cursor(PlanId(u64::MAX))?);
    let state = api.read(query.consistency).await?;
    Ok(Json(page(state.plans.before(before).cloned(), limit, |plan| plan.id.to_string())))
}

pub async fn get(
    Extension(api): Extension<Api>,
    PathId(id): PathId<PlanId>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Json<Plan>, Refused> {
    let state = api.read(query.consistency).await?;
    Ok(Json(state.plans.find(id)?.plan.clone()))
}

pub async fn apply(
    Extension(api): Extension<Api>,
    PathId(id): PathId<PlanId>,
    mutation: Mutation,
    OptionalJson(body): OptionalJson<ApplyRequest>,
) -> Result<Response, Refused> {
    let command = Command::StartOperation { plan: id, keep_within_ms: body.keep_within_ms };
    let (operation, started) = api.group.operate(mutation.request, command, mutation.deadline).await?;
    let status = if started { StatusCode::ACCEPTED } else { StatusCode::OK };
    let location = format!("/v1/operations/{}", operation.id);
    Ok((status, [(header::LOCATION, location)], Json(operation)).into_response())
}
