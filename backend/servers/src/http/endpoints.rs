//! `/v1/upstreams/{upstream}/endpoints`: the addresses of a service, one by one.
//!
//! Endpoints are part of the configuration of their upstream, so they share its version.

use crate::http::{
    Api,
    etag::{self, IfMatch},
    extract::{Caller, JsonBody, PageQuery, PathId, PathIds, QueryOf, ReadQuery, Write},
    openapi::problems,
    problem::ApiError,
    response_metadata as metadata,
    upstreams::ADDED_BY_GET_TO_ENDPOINT,
};
use axum::{extract::State, response::Response};
use ringmaster_common::{
    error::{Code, Refusal},
    page::Page,
    traffic::upstream::{Endpoint, EndpointDetail, EndpointSpec},
};
use ringmaster_services::traffic::endpoints;
use serde_json::Value;

/// The endpoints of an upstream
#[utoipa::path(
    get, path = "/v1/upstreams/{upstream}/endpoints", tag = "traffic", operation_id = "endpoints",
    params(("upstream" = String, Path, description = "Its name", example = "web"), PageQuery),
    responses((status = 200, description = "In the order of the configuration; registered endpoints come last", body = Page<Endpoint>), ListRefusals)
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    PathId(upstream): PathId<String>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Response, ApiError> {
    let (request, paging) = (caller.read(query.consistency), query.paging(String::new())?);
    Ok(metadata::read(endpoints::list(&api.services, request, &upstream, paging).await?))
}

problems!(ListRefusals: [READ], UnknownUpstream);

/// One endpoint, with the history of its health
#[utoipa::path(
    get, path = "/v1/upstreams/{upstream}/endpoints/{endpoint}", tag = "traffic", operation_id = "endpoint",
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
    State(api): State<Api>,
    caller: Caller,
    PathIds(upstream, id): PathIds<String, String>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, ApiError> {
    let request = caller.read(query.consistency);
    Ok(etag::found(endpoints::get(&api.services, request, &upstream, &id).await?))
}

problems!(GetRefusals: [READ], UnknownUpstream, UnknownEndpoint);

/// Configure one endpoint
///
/// Its state and its health stay as they are, unless its address changes: then its health becomes unknown. A new
/// endpoint comes last.
#[utoipa::path(
    put, path = "/v1/upstreams/{upstream}/endpoints/{endpoint}", tag = "traffic", operation_id = "put_endpoint",
    params(
        ("upstream" = String, Path, description = "The upstream's name", example = "web"),
        ("endpoint" = String, Path, description = "The endpoint's id", example = "e3"),
        ("If-Match" = Option<String>, Header, min_length = 1, description = "Only if the upstream is at one of these versions"),
        Write
    ),
    request_body(content = EndpointSpec, examples(
        ("plain" = (value = json!({ "id": "e3", "addr": "127.0.0.1:9003", "weight": 2 })))
    )),
    responses(
        (status = 200, description = "Configured", body = EndpointDetail, headers(("ETag" = String, description = "The upstream's version"))),
        (status = 201, description = "Created", body = EndpointDetail, headers(
            ("ETag" = String, description = "The upstream's version"),
            ("Location" = String, description = "Its path")
        )),
        PutRefusals
    )
)]
pub async fn put(
    State(api): State<Api>,
    PathIds(upstream, id): PathIds<String, String>,
    IfMatch(precondition): IfMatch,
    Write(request): Write,
    JsonBody(body): JsonBody<Value>,
) -> Result<Response, ApiError> {
    let endpoint = request.check(endpoint_of(body, &id))?;
    let written = endpoints::put(&api.services, request, upstream, endpoint, precondition).await?;
    Ok(etag::stored(written, |detail| {
        format!("/v1/upstreams/{}/endpoints/{}", detail.upstream, detail.endpoint.id)
    }))
}

problems!(PutRefusals: [WRITE, BODY], UnknownUpstream, UnknownEndpoint, InvalidUpstream, EndpointTaken, UpgradeUnfinished, PreconditionFailed, LimitReached);

/// Reads an endpoint, whose id may be left out of the body.
fn endpoint_of(mut body: Value, id: &str) -> Result<EndpointSpec, Refusal> {
    if let Value::Object(fields) = &mut body {
        fields.entry("id").or_insert_with(|| Value::String(id.to_owned()));
    }
    let endpoint: EndpointSpec = etag::parse(body, ADDED_BY_GET_TO_ENDPOINT, Code::InvalidUpstream)?;
    if endpoint.id == id {
        return Ok(endpoint);
    }
    let detail = format!("the body names the endpoint {:?} and the path {id:?}", endpoint.id);
    Err(Refusal::new(Code::InvalidRequest, detail))
}

/// Delete an endpoint
///
/// Drain an endpoint before you delete it, so that its requests may end.
#[utoipa::path(
    delete, path = "/v1/upstreams/{upstream}/endpoints/{endpoint}", tag = "traffic", operation_id = "delete_endpoint",
    params(
        ("upstream" = String, Path, description = "The upstream's name", example = "web"),
        ("endpoint" = String, Path, description = "The endpoint's id", example = "e2"),
        ("If-Match" = Option<String>, Header, min_length = 1, description = "Only if the upstream is at one of these versions"),
        Write
    ),
    responses((status = 204, description = "Deleted"), DeleteRefusals)
)]
pub async fn delete(
    State(api): State<Api>,
    PathIds(upstream, endpoint): PathIds<String, String>,
    IfMatch(precondition): IfMatch,
    Write(request): Write,
) -> Result<Response, ApiError> {
    let deleted = endpoints::delete(&api.services, request, upstream, endpoint, precondition).await?;
    Ok(metadata::no_content(deleted))
}

problems!(DeleteRefusals: [WRITE], UnknownUpstream, UnknownEndpoint, UpgradeUnfinished, PreconditionFailed);
