//! `/v1/demo`: chaos, in a demo alone. The demo's supervisor does it; this node only asks.

use crate::{
    api::problem::Refused,
    demo::socket::{self, Request},
};
use axum::{Json, extract::Path, http::StatusCode};
use ringmaster_common::{
    demo::{Chaos, DemoNode},
    error::Code,
    id::NodeId,
    page::Page,
};

pub async fn list() -> Result<Json<Page<DemoNode>>, Refused> {
    Ok(Json(Page { items: socket::ask(Request::List).await?, next: None }))
}

pub async fn add() -> Result<(StatusCode, Json<DemoNode>), Refused> {
    Ok((StatusCode::CREATED, Json(one(Request::AddNode).await?)))
}

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

async fn one(request: Request) -> Result<DemoNode, Refused> {
    let answer = socket::ask(request).await?;
    answer
        .into_iter()
        .next()
        .ok_or_else(|| Refused::new(Code::DemoFailed, "the demo's supervisor named no node in its answer"))
}
