//! `/v1/demo`: chaos, in a demo alone. The supervisor of the demo does it; this node passes the request on.

use crate::demo_child::protocol::{self, Request};
use crate::http::{extract::PathIds, openapi::problems, problem::ApiError};
use axum::{Json, http::StatusCode};
use ringmaster_common::{
    demo::{Chaos, DemoNode},
    error::Code,
    id::NodeId,
    page::Page,
};

/// The processes of the demo
#[utoipa::path(
    get, path = "/v1/demo/nodes", tag = "demo", operation_id = "demo_nodes",
    responses((status = 200, description = "In the order of ids", body = Page<DemoNode>), ListRefusals)
)]
pub async fn list() -> Result<Json<Page<DemoNode>>, ApiError> {
    Ok(Json(Page { items: protocol::ask(Request::List).await?, next: None }))
}

problems!(ListRefusals: [], NotADemo, DemoFailed);

/// Start one more node
#[utoipa::path(
    post, path = "/v1/demo/nodes", tag = "demo", operation_id = "add_demo_node",
    responses((status = 201, description = "Started", body = DemoNode), AddRefusals)
)]
pub async fn add() -> Result<(StatusCode, Json<DemoNode>), ApiError> {
    Ok((StatusCode::CREATED, Json(one(Request::AddNode).await?)))
}

problems!(AddRefusals: [], NotADemo, DemoFailed);

/// Send a real signal to a node's process, or restart it
#[utoipa::path(
    post, path = "/v1/demo/nodes/{id}/{chaos}", tag = "demo", operation_id = "chaos",
    params(
        ("id" = NodeId, Path, description = "A node's id", example = 2),
        ("chaos" = Chaos, Path, description = "The action", example = "pause")
    ),
    responses((status = 200, description = "Done", body = DemoNode), ChaosRefusals)
)]
pub async fn chaos(PathIds(node, chaos): PathIds<NodeId, String>) -> Result<Json<DemoNode>, ApiError> {
    let Some(chaos) = Chaos::ALL.iter().find(|known| known.as_str() == chaos).copied() else {
        let known: Vec<_> = Chaos::ALL.iter().map(|known| known.as_str()).collect();
        let detail = format!("a node takes {}, not {chaos}", known.join(", "));
        return Err(ApiError::new(Code::UnknownRoute, detail));
    };
    Ok(Json(one(Request::Chaos { node, chaos }).await?))
}

problems!(ChaosRefusals: [], InvalidRequest, UnknownRoute, UnknownNode, NotADemo, DemoFailed);

async fn one(request: Request) -> Result<DemoNode, ApiError> {
    let answer = protocol::ask(request).await?;
    answer.into_iter().next().ok_or_else(|| {
        ApiError::new(Code::DemoFailed, "the supervisor of the demo named no node in its answer")
    })
}
