//! `/v1/upstreams/{upstream}/endpoints`: the addresses of a service, one by one.
//!
//! They are part of their upstream's configuration, so its version is theirs.

use crate::http::{
    Api,
    configured::{answer, answer_put, precondition, read},
    extract::{JsonBody, Mutation, PageQuery, PathId, QueryOf, ReadQuery, page},
    openapi::problems,
    problem::Refused,
    upstreams::TOLD_OF_ENDPOINT,
};
use axum::{
    Json,
    extract::{Path, State as Extension},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use ringmaster_cluster::traffic::TrafficCommand;
use ringmaster_common::{
    error::{Code, Refusal},
    page::Page,
    traffic::upstream::{Endpoint, EndpointDetail, EndpointSpec},
};
use serde_json::Value;

/// The endpoints of an upstream
#[utoipa::path(
    get, path = "/upstreams/{upstream}/endpoints", tag = "traffic", operation_id = "endpoints",
    params(("upstream" = String, Path, description = "Its name", example = "web"), PageQuery),
    responses((status = 200, description = "As they are configured; who registered themselves come last", body = Page<Endpoint>), ListRefusals)
)]
pub async fn list(
    Extension(api): Extension<Api>,
    PathId(name): PathId<String>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<Endpoint>>, Refused> {
    let (limit, after) = (query.limit()?, query.cursor(String::new())?);
    let state = api.read(query.consistency).await?;
    let endpoints = &state.upstreams.find(&name)?.upstream.config.endpoints;
    // The cursor names the endpoint that came last. Where it is gone by now, the list begins anew.
    let start = endpoints.iter().position(|endpoint| endpoint.id == after).map_or(0, |last| last + 1);
    Ok(Json(page(endpoints.iter().skip(start).cloned(), limit, |endpoint| endpoint.id.clone())))
}

problems!(ListRefusals: [READ], UnknownUpstream);

/// One endpoint, with who changed their mind about its health
#[utoipa::path(
    get, path = "/upstreams/{upstream}/endpoints/{endpoint}", tag = "traffic", operation_id = "endpoint",
    params(
        ("upstream" = String, Path, description = "The upstream's name", example = "web"),
        ("endpoint" = String, Path, description = "The endpoint's id", example = "e1"),
        ReadQuery
    ),
    responses(
        (status = 200, description = "The endpoint", body = EndpointDetail, headers(("ETag" = String, description = "The version of its upstream"))),
        GetRefusals
    )
)]
pub async fn get(
    Extension(api): Extension<Api>,
    Path((name, id)): Path<(String, String)>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, Refused> {
    let state = api.read(query.consistency).await?;
    let record = state.upstreams.find(&name)?;
    Ok(answer(StatusCode::OK, record.upstream.version, &record.detail(&id)?))
}

problems!(GetRefusals: [READ], UnknownUpstream, UnknownEndpoint);

/// Configure one endpoint
///
/// Its state and its health stay as they are, unless its address is another one now: of that nobody knows anything
/// yet. A new endpoint comes last.
#[utoipa::path(
    put, path = "/upstreams/{upstream}/endpoints/{endpoint}", tag = "traffic", operation_id = "put_endpoint",
    params(
        ("upstream" = String, Path, description = "The upstream's name", example = "web"),
        ("endpoint" = String, Path, description = "The endpoint's id", example = "e3"),
        ("If-Match" = Option<String>, Header, description = "Only if the upstream is at one of these versions"),
        Mutation
    ),
    request_body(content = EndpointSpec, examples(
        ("plain" = (value = json!({ "id": "e3", "addr": "127.0.0.1:9003", "weight": 2 })))
    )),
    responses(
        (status = 200, description = "It is configured", body = EndpointDetail, headers(("ETag" = String, description = "The upstream's version"))),
        (status = 201, description = "It is there, for the first time", body = EndpointDetail, headers(
            ("ETag" = String, description = "The upstream's version"),
            ("Location" = String, description = "Where it is")
        )),
        PutRefusals
    )
)]
pub async fn put(
    Extension(api): Extension<Api>,
    Path((upstream, id)): Path<(String, String)>,
    headers: HeaderMap,
    mutation: Mutation,
    JsonBody(mut body): JsonBody<Value>,
) -> Result<Response, Refused> {
    if let Value::Object(fields) = &mut body {
        fields.entry("id").or_insert_with(|| Value::String(id.clone()));
    }
    let endpoint: EndpointSpec = read(body, TOLD_OF_ENDPOINT, Code::InvalidUpstream)?;
    if endpoint.id != id {
        return Err(Refused::new(
            Code::InvalidRequest,
            format!("the body names the endpoint {:?} and the path {id:?}", endpoint.id),
        ));
    }
    endpoint.check().map_err(|detail| Refusal::new(Code::InvalidUpstream, detail))?;
    let precondition = precondition(&headers)?;
    let command = TrafficCommand::PutEndpoint { upstream: upstream.clone(), endpoint, precondition };
    let (created, state) = api.configure(mutation, command).await?;
    let record = state.upstreams.find(&upstream)?;
    let place = format!("/v1/upstreams/{upstream}/endpoints/{id}");
    Ok(answer_put(created, place, record.upstream.version, &record.detail(&id)?))
}

problems!(PutRefusals: [WRITE, BODY], UnknownUpstream, UnknownEndpoint, InvalidUpstream, EndpointTaken, UpgradeUnfinished, PreconditionFailed, LimitReached);

/// Delete an endpoint
///
/// One that gets requests should be drained first.
#[utoipa::path(
    delete, path = "/upstreams/{upstream}/endpoints/{endpoint}", tag = "traffic", operation_id = "delete_endpoint",
    params(
        ("upstream" = String, Path, description = "The upstream's name", example = "web"),
        ("endpoint" = String, Path, description = "The endpoint's id", example = "e2"),
        ("If-Match" = Option<String>, Header, description = "Only if the upstream is at one of these versions"),
        Mutation
    ),
    responses((status = 204, description = "It is gone"), DeleteRefusals)
)]
pub async fn delete(
    Extension(api): Extension<Api>,
    Path((upstream, endpoint)): Path<(String, String)>,
    headers: HeaderMap,
    mutation: Mutation,
) -> Result<StatusCode, Refused> {
    let precondition = precondition(&headers)?;
    api.configure(mutation, TrafficCommand::DeleteEndpoint { upstream, endpoint, precondition }).await?;
    Ok(StatusCode::NO_CONTENT)
}

problems!(DeleteRefusals: [WRITE], UnknownUpstream, UnknownEndpoint, UpgradeUnfinished, PreconditionFailed);
