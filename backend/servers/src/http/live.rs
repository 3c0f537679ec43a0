//! `/v1/upstreams/{upstream}/live`: measurements and decisions of this node's own proxy.
//!
//! None of it is replicated: the proxy of another node has seen other requests. So each response names its node, and
//! is the same with and without a quorum. Only what still drains is a sum over all nodes.

use crate::http::{
    Api,
    extract::{Caller, PathId, PathIds, QueryOf, ReadQuery},
    openapi::problems,
    problem::ApiError,
    response_metadata as metadata,
};
use axum::{Json, extract::State, http::StatusCode, response::Response};
use ringmaster_common::traffic::live::{Decision, Draining, UpstreamMetrics};
use ringmaster_services::{draining, live};
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

/// The requests in flight at endpoints that receive no new requests
///
/// The sum over all nodes, for endpoints that were removed, are drained, in maintenance or on standby. An endpoint that is
/// absent has no request in flight, once no node is `unconfirmed`. The counts are up to a second old.
#[utoipa::path(
    get, path = "/v1/upstreams/{upstream}/draining", tag = "traffic", operation_id = "draining",
    params(("upstream" = String, Path, description = "Its name", example = "web"), ReadQuery),
    responses((status = 200, description = "What still drains", body = Draining), DrainingRefusals)
)]
pub async fn draining(
    State(api): State<Api>,
    caller: Caller,
    PathId(upstream): PathId<String>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, ApiError> {
    let found = draining::draining(&api.services, caller.read(query.consistency), &upstream).await?;
    Ok(metadata::read(found))
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
problems!(DrainingRefusals: [READ], UnknownUpstream);
problems!(HeartbeatRefusals: [], UnknownEndpoint);
