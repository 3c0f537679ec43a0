//! `/v1/upstreams`: services that requests are forwarded to.

use crate::http::{
    Api,
    configured::{answer, answer_put, precondition, read, without},
    extract::{JsonBody, Mutation, PageQuery, PathId, QueryOf, ReadQuery, page},
    openapi::problems,
    problem::Refused,
};
use axum::{
    Json,
    extract::State as Extension,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use ringmaster_cluster as state;
use ringmaster_cluster::traffic::TrafficCommand;
use ringmaster_common::{
    error::{Code, Refusal},
    page::Page,
    traffic::upstream::{Configured, EndpointSpec, Upstream, UpstreamSpec},
};
use serde_json::Value;

/// All upstreams
#[utoipa::path(
    get, path = "/upstreams", tag = "traffic", operation_id = "upstreams", params(PageQuery),
    responses((status = 200, description = "In the order of names", body = Page<Upstream>), ListRefusals)
)]
pub async fn list(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<Upstream>>, Refused> {
    let (limit, after) = (query.limit()?, query.cursor(String::new())?);
    let state = api.read(query.consistency).await?;
    let rest = state.upstreams.iter().filter(|upstream| upstream.name > after).cloned();
    Ok(Json(page(rest, limit, |upstream| upstream.name.clone())))
}

problems!(ListRefusals: [READ]);

/// One upstream, with what became of its endpoints
#[utoipa::path(
    get, path = "/upstreams/{upstream}", tag = "traffic", operation_id = "upstream",
    params(("upstream" = String, Path, description = "Its name", example = "web"), ReadQuery),
    responses(
        (status = 200, description = "The upstream", body = Upstream, headers(("ETag" = String, description = "The version of its configuration"))),
        GetRefusals
    )
)]
pub async fn get(
    Extension(api): Extension<Api>,
    PathId(name): PathId<String>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, Refused> {
    let state = api.read(query.consistency).await?;
    let upstream = &state.upstreams.find(&name)?.upstream;
    Ok(answer(StatusCode::OK, upstream.version, upstream))
}

problems!(GetRefusals: [READ], UnknownUpstream);

/// Configure an upstream
///
/// What became of its endpoints stays: their states (ready, drain, maintenance), their health, the primary, and who
/// registered themselves. What a GET tells may be put back as it is. An endpoint whose address is another one now
/// starts with unknown health.
#[utoipa::path(
    put, path = "/upstreams/{upstream}", tag = "traffic", operation_id = "put_upstream",
    params(
        ("upstream" = String, Path, description = "1 to 64 letters, digits, or any of . _ - after the first", example = "web"),
        ("If-Match" = Option<String>, Header, description = "Only if it is at one of these versions"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none yet"),
        Mutation
    ),
    request_body(content = Configured<EndpointSpec>, examples(
        ("checked" = (summary = "Two endpoints, checked by HTTP", value = json!({
            "policy": "least_connections",
            "health_check": { "type": "http", "path": "/", "interval_ms": 2000, "timeout_ms": 1000, "rise": 1, "fall": 2 },
            "endpoints": [
                { "id": "e1", "addr": "127.0.0.1:9001", "weight": 1 },
                { "id": "e2", "addr": "127.0.0.1:9002", "weight": 3 }
            ]
        }))),
        ("hashed" = (summary = "The same endpoint for the same user", value = json!({
            "policy": "consistent_hash", "hash_key": { "type": "header", "name": "x-user" },
            "endpoints": [
                { "id": "e1", "addr": "127.0.0.1:9001" }, { "id": "e2", "addr": "127.0.0.1:9002" }
            ]
        })))
    )),
    responses(
        (status = 200, description = "It is configured", body = Upstream, headers(("ETag" = String, description = "Its version"))),
        (status = 201, description = "It is there, for the first time", body = Upstream, headers(
            ("ETag" = String, description = "Its version"),
            ("Location" = String, description = "Where it is")
        )),
        PutRefusals
    )
)]
pub async fn put(
    Extension(api): Extension<Api>,
    PathId(name): PathId<String>,
    headers: HeaderMap,
    mutation: Mutation,
    JsonBody(body): JsonBody<Value>,
) -> Result<Response, Refused> {
    let spec = upstream_of(body)?;
    state::upstreams::check(&name, &spec)?;
    let precondition = precondition(&headers)?;
    let command = TrafficCommand::PutUpstream { name: name.clone(), spec, precondition };
    let (created, state) = api.configure(mutation, command).await?;
    let upstream = &state.upstreams.find(&name)?.upstream;
    Ok(answer_put(created, format!("/v1/upstreams/{name}"), upstream.version, upstream))
}

problems!(PutRefusals: [WRITE, BODY], InvalidUpstream, EndpointTaken, UpgradeUnfinished, PreconditionFailed, LimitReached);

/// Delete an upstream that no route leads to
#[utoipa::path(
    delete, path = "/upstreams/{upstream}", tag = "traffic", operation_id = "delete_upstream",
    params(
        ("upstream" = String, Path, description = "Its name", example = "retired"),
        ("If-Match" = Option<String>, Header, description = "Only if it is at one of these versions"),
        Mutation
    ),
    responses((status = 204, description = "It is gone"), DeleteRefusals)
)]
pub async fn delete(
    Extension(api): Extension<Api>,
    PathId(name): PathId<String>,
    headers: HeaderMap,
    mutation: Mutation,
) -> Result<StatusCode, Refused> {
    let precondition = precondition(&headers)?;
    api.configure(mutation, TrafficCommand::DeleteUpstream { name, precondition }).await?;
    Ok(StatusCode::NO_CONTENT)
}

problems!(DeleteRefusals: [WRITE], UnknownUpstream, UpstreamInUse, UpgradeUnfinished, PreconditionFailed);

/// What a GET tells of an upstream beside what is configured.
const TOLD_OF_UPSTREAM: &[&str] = &["name", "version", "updated_at", "updated_by", "primary"];
/// The same of an endpoint.
pub const TOLD_OF_ENDPOINT: &[&str] =
    &["state", "state_since", "health", "registered", "upstream", "is_serving", "health_history"];

/// Reads what is to be configured. Endpoints that a GET told of because they registered themselves are no part of
/// that.
fn upstream_of(mut body: Value) -> Result<UpstreamSpec, Refusal> {
    if let Some(Value::Array(endpoints)) = body.get_mut("endpoints") {
        endpoints.retain(|endpoint| endpoint.get("registered").is_none_or(Value::is_null));
        endpoints.iter_mut().for_each(|endpoint| without(endpoint, TOLD_OF_ENDPOINT));
    }
    read(body, TOLD_OF_UPSTREAM, Code::InvalidUpstream)
}
