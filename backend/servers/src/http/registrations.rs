//! Endpoints that register themselves, and clients that look for the endpoints of a service.

use crate::http::{
    Api,
    extract::{JsonBody, PathId, QueryOf, Write},
    openapi::problems,
    problem::ApiError,
    response_metadata as metadata,
};
use axum::{Json, extract::State, http::StatusCode, response::Response};
use ringmaster_common::{
    id::Revision,
    traffic::register::{Deregister, HealthyEndpoints, Register, Registered},
};
use ringmaster_services::registrations;
use serde::Deserialize;
use std::time::Duration;

/// Register an endpoint, or renew its registration
///
/// The same request again is a renewal, and costs no entry of the log. An endpoint that is not renewed within its TTL
/// is removed.
#[utoipa::path(
    post, path = "/v1/upstreams/{upstream}/register", tag = "traffic", operation_id = "register",
    params(("upstream" = String, Path, description = "The upstream's name", example = "web"), Write),
    request_body(content = Register, examples(
        ("plain" = (value = json!({ "id": "worker-7", "addr": "127.0.0.1:9107", "ttl_ms": 10000 })))
    )),
    responses((status = 200, description = "Registered", body = Registered), RegisterRefusals)
)]
pub async fn register(
    State(api): State<Api>,
    PathId(upstream): PathId<String>,
    Write(request): Write,
    JsonBody(body): JsonBody<Register>,
) -> Result<Response, ApiError> {
    let registered = registrations::register(&api.services, request, upstream, body).await?;
    Ok(metadata::written(StatusCode::OK, registered))
}

problems!(RegisterRefusals: [WRITE, BODY], UnknownUpstream, InvalidUpstream, EndpointTaken, UpgradeUnfinished, LimitReached, NotReady);

/// End a registration
#[utoipa::path(
    post, path = "/v1/upstreams/{upstream}/deregister", tag = "traffic", operation_id = "deregister",
    params(("upstream" = String, Path, description = "The upstream's name", example = "web"), Write),
    request_body(content = Deregister, examples(("plain" = (value = json!({ "id": "worker-8" }))))),
    responses((status = 204, description = "The registration has ended"), DeregisterRefusals)
)]
pub async fn deregister(
    State(api): State<Api>,
    PathId(upstream): PathId<String>,
    Write(request): Write,
    JsonBody(body): JsonBody<Deregister>,
) -> Result<Response, ApiError> {
    let deregistered = registrations::deregister(&api.services, request, upstream, body.id).await?;
    Ok(metadata::no_content(deregistered))
}

problems!(DeregisterRefusals: [WRITE, BODY], UnknownUpstream, UnknownEndpoint, EndpointTaken, UpgradeUnfinished, NotReady);

/// Which change to wait for.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HealthyQuery {
    /// Wait until the upstream has changed after this revision: the one of the response before.
    revision: Option<Revision>,
    /// The longest wait, up to 10 s. Then the response is the present state.
    #[serde(default)]
    wait_ms: u64,
}

/// The endpoints that get requests now
///
/// For clients that balance their requests themselves. The response comes from the state that this node has applied.
/// With `revision` and `wait_ms` it waits for a change, so that a client that asks again and again stays up to date.
#[utoipa::path(
    get, path = "/v1/upstreams/{upstream}/healthy", tag = "traffic", operation_id = "healthy_endpoints",
    params(("upstream" = String, Path, description = "The upstream's name", example = "web"), HealthyQuery),
    responses((status = 200, description = "The endpoints that get requests", body = HealthyEndpoints), HealthyRefusals)
)]
pub async fn healthy(
    State(api): State<Api>,
    PathId(upstream): PathId<String>,
    QueryOf(query): QueryOf<HealthyQuery>,
) -> Result<Json<HealthyEndpoints>, ApiError> {
    let wait = Duration::from_millis(query.wait_ms);
    Ok(Json(registrations::healthy(&api.services, &upstream, query.revision, wait).await?))
}

problems!(HealthyRefusals: [], InvalidRequest, UnknownUpstream);
