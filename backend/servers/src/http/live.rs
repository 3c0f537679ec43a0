//! `/v1/upstreams/{upstream}/live`: measurements and decisions of this node's own proxy.
//!
//! None of it is replicated: the proxy of another node has seen other requests. So each response names its node, and
//! is the same with and without a quorum.

use crate::http::{
    Api,
    extract::{PathId, PathIds},
    openapi::problems,
    problem::ApiError,
};
use axum::{Json, extract::State, http::StatusCode};
use ringmaster_common::traffic::live::{Decision, UpstreamMetrics};
use ringmaster_services::live;
use serde::Serialize;
use utoipa::ToSchema;

/// Decisions of one node's proxy.
#[derive(Debug, Serialize, ToSchema)]
pub struct Decisions {
    /// Some of the last decisions, the oldest first.
    pub items: Vec<Decision>,
}

/// The metrics of an upstream at this node's proxy
#[utoipa::path(
    get, path = "/v1/upstreams/{upstream}/live", tag = "traffic", operation_id = "upstream_live",
    params(("upstream" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, description = "Measured once a second", body = UpstreamMetrics), LiveRefusals)
)]
pub async fn metrics(
    State(api): State<Api>,
    PathId(upstream): PathId<String>,
) -> Result<Json<UpstreamMetrics>, ApiError> {
    Ok(Json(live::metrics(&api.services, &upstream)?))
}

/// Why this node's proxy chose the endpoints that it chose
#[utoipa::path(
    get, path = "/v1/upstreams/{upstream}/decisions", tag = "traffic", operation_id = "upstream_decisions",
    params(("upstream" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, description = "Some of the last decisions", body = Decisions), LiveRefusals)
)]
pub async fn decisions(
    State(api): State<Api>,
    PathId(upstream): PathId<String>,
) -> Result<Json<Decisions>, ApiError> {
    Ok(Json(Decisions { items: live::decisions(&api.services, &upstream)? }))
}

/// Send a heartbeat of an endpoint
///
/// For upstreams whose health check is `heartbeat`. Any node takes it; the nodes pass it on to each other.
#[utoipa::path(
    post, path = "/v1/upstreams/{upstream}/endpoints/{endpoint}/heartbeat", tag = "traffic", operation_id = "heartbeat",
    params(
        ("upstream" = String, Path, description = "The upstream's name", example = "web"),
        ("endpoint" = String, Path, description = "The endpoint's id", example = "e1")
    ),
    responses((status = 204, description = "Received"), HeartbeatRefusals)
)]
pub async fn heartbeat(
    State(api): State<Api>,
    PathIds(upstream, endpoint): PathIds<String, String>,
) -> Result<StatusCode, ApiError> {
    live::heartbeat(&api.services, &upstream, &endpoint)?;
    Ok(StatusCode::NO_CONTENT)
}

problems!(LiveRefusals: [], UnknownUpstream);
problems!(HeartbeatRefusals: [], UnknownEndpoint);
