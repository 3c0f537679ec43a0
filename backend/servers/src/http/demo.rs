//! `/v1/demo`: chaos, in a demo alone. The demo's supervisor does it; this node only asks.

use crate::demo_child::protocol::{self, Request};
use crate::http::{openapi::problems, problem::Refused};
use axum::{Json, extract::Path, http::StatusCode};
use ringmaster_common::{
    demo::{Chaos, DemoNode},
    error::Code,
    id::NodeId,
    page::Page,
};

/// The processes of the demo
#[utoipa::path(
    get, path = "/demo/nodes", tag = "demo", operation_id = "demo_nodes",
    responses((status = 200, description = "In the order of ids", body = Page<DemoNode>), ListRefusals)
)]
pub async fn list() -> Result<Json<Page<DemoNode>>, Refused> {
    Ok(Json(Page { items: protocol::ask(Request::List).await?, next: None }))
}

problems!(ListRefusals: [], NotADemo, DemoFailed);

/// Start one more node
#[utoipa::path(
    post, path = "/demo/nodes", tag = "demo", operation_id = "add_demo_node",
    responses((status = 201, description = "It has started", body = DemoNode), AddRefusals)
)]
pub async fn add() -> Result<(StatusCode, Json<DemoNode>), Refused> {
    Ok((StatusCode::CREATED, Json(one(Request::AddNode).await?)))
}

problems!(AddRefusals: [], NotADemo, DemoFailed);

/// Send a real signal to a node's process, or restart it
#[utoipa::path(
    post, path = "/demo/nodes/{id}/{chaos}", tag = "demo", operation_id = "chaos",
    params(
        ("id" = NodeId, Path, description = "A node's id", example = 2),
        ("chaos" = Chaos, Path, description = "What is done to it", example = "pause")
    ),
    responses((status = 200, description = "It is done", body = DemoNode), ChaosRefusals)
)]
pub async fn chaos(Path((id, chaos)): Path<(String, String)>) -> Result<Json<DemoNode>, Refused> {
    let node: NodeId =
        id.parse().map_err(|_| Refused::new(Code::InvalidRequest, format!("{id:?} is not a node's id")))?;
    let Some(chaos) = Chaos::ALL.iter().find(|known| known.as_str() == chaos).copied() else {
        let known: Vec<_> = Chaos::ALL.iter().map(|known| known.as_str()).collect();
        return Err(Refused::new(
            Code::UnknownRoute,
            format!("a node takes {}, not {chaos}", known.join(", ")),
        ));
    };
    Ok(Json(one(Request::Chaos { node, chaos }).await?))
}

problems!(ChaosRefusals: [], InvalidRequest, UnknownRoute, UnknownNode, NotADemo, DemoFailed);

async fn one(request: Request) -> Result<DemoNode, Refused> {
    let answer = protocol::ask(request).await?;
    answer
        .into_iter()
        .next()
        .ok_or_else(|| Refused::new(Code::DemoFailed, "the demo's supervisor named no node in its answer"))
}
