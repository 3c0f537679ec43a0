//! `/v1/upstreams/{upstream}/live`: what this node's own proxy measures, and why it decides as it does.
//!
//! None of it is agreed on: another node's proxy has seen other requests. So each answer names its node, and
//! is the same with and without a quorum.

use crate::http::{Api, extract::PathId, openapi::problems, problem::Refused};
use axum::{
    Json,
    extract::{Path, State as Extension},
    http::StatusCode,
};
use ringmaster_common::{
    error::{Code, Refusal},
    traffic::live::{Decision, UpstreamMetrics},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Decisions of one node's proxy.
#[derive(Debug, Serialize, ToSchema)]
pub struct Decisions {
    /// Few of them, as they come; the oldest first.
    pub items: Vec<Decision>,
}

/// What this node's proxy did for an upstream lately
#[utoipa::path(
    get, path = "/upstreams/{upstream}/live", tag = "traffic", operation_id = "upstream_live",
    params(("upstream" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, description = "Measured once a second", body = UpstreamMetrics), LiveRefusals)
)]
pub async fn figures(
    Extension(api): Extension<Api>,
    PathId(name): PathId<String>,
) -> Result<Json<UpstreamMetrics>, Refused> {
    let figures = api.proxy.metrics().borrow().clone();
    match figures.iter().find(|figures| figures.upstream == name) {
        Some(figures) => Ok(Json(figures.clone())),
        None => Err(unknown(&name)),
    }
}

/// Why this node's proxy sent requests where it did
#[utoipa::path(
    get, path = "/upstreams/{upstream}/decisions", tag = "traffic", operation_id = "upstream_decisions",
    params(("upstream" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, description = "Some of the last decisions", body = Decisions), LiveRefusals)
)]
pub async fn decisions(
    Extension(api): Extension<Api>,
    PathId(name): PathId<String>,
) -> Result<Json<Decisions>, Refused> {
    let items = api.proxy.decisions(&name).ok_or_else(|| unknown(&name))?;
    Ok(Json(Decisions { items }))
}

/// Tell that an endpoint lives
///
/// For upstreams whose health check is `heartbeat`. Any node may be told; the nodes tell each other.
#[utoipa::path(
    post, path = "/upstreams/{upstream}/endpoints/{endpoint}/heartbeat", tag = "traffic", operation_id = "heartbeat",
    params(
        ("upstream" = String, Path, description = "The upstream's name", example = "web"),
        ("endpoint" = String, Path, description = "The endpoint's id", example = "e1")
    ),
    responses((status = 204, description = "This node knows now"), BeatRefusals)
)]
pub async fn heartbeat(
    Extension(api): Extension<Api>,
    Path((upstream, endpoint)): Path<(String, String)>,
) -> Result<StatusCode, Refused> {
    if api.proxy.heartbeat(&upstream, &endpoint) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = format!("this node's proxy knows no endpoint {endpoint:?} of an upstream {upstream:?}");
    Err(Refusal::new(Code::UnknownEndpoint, detail).into())
}

fn unknown(name: &str) -> Refused {
    Refusal::new(Code::UnknownUpstream, format!("this node's proxy knows no upstream {name:?}")).into()
}

problems!(LiveRefusals: [], UnknownUpstream);
problems!(BeatRefusals: [], UnknownEndpoint);
