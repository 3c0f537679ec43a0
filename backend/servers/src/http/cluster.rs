//! `/v1/cluster` and `/v1/nodes`: the cluster as the answering node knows it, replicated and measured.

use crate::http::{
    Api,
    extract::{PageQuery, PathId, QueryOf},
    openapi::problems,
    problem::ApiError,
};
use axum::{Json, extract::State};
use ringmaster_common::{
    cluster::{Cluster, NodeInfo},
    id::NodeId,
    page::Page,
};
use ringmaster_services::overview;

/// The cluster, as the answering node knows it
///
/// It needs no quorum: it is how a client learns that there is none.
#[utoipa::path(
    get, path = "/v1/cluster", tag = "cluster", operation_id = "cluster",
    responses((status = 200, description = "Replicated state and measurements", body = Cluster), ClusterRefusals)
)]
pub async fn cluster(State(api): State<Api>) -> Json<Cluster> {
    Json(overview::cluster(&api.services))
}

problems!(ClusterRefusals: []);

/// All members
///
/// With the measurements of each and their age, which nodes reach which, and whether the cluster can lose it.
#[utoipa::path(
    get, path = "/v1/nodes", tag = "cluster", operation_id = "nodes", params(PageQuery),
    responses((status = 200, description = "In the order of ids", body = Page<NodeInfo>), NodesRefusals)
)]
pub async fn nodes(
    State(api): State<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<NodeInfo>>, ApiError> {
    Ok(Json(overview::nodes(&api.services, query.paging(NodeId(0))?)))
}

problems!(NodesRefusals: [], InvalidRequest);

/// One member
#[utoipa::path(
    get, path = "/v1/nodes/{id}", tag = "cluster", operation_id = "node", params(("id" = NodeId, Path, description = "A node's id", example = 2)),
    responses((status = 200, description = "The member", body = NodeInfo), NodeRefusals)
)]
pub async fn node(State(api): State<Api>, PathId(id): PathId<NodeId>) -> Result<Json<NodeInfo>, ApiError> {
    Ok(Json(overview::node(&api.services, id)?))
}

problems!(NodeRefusals: [], InvalidRequest, UnknownNode);
