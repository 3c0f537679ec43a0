//! `/v1/upstreams`: the services that requests are forwarded to.

use crate::http::{
    Api,
    etag::{self, IfMatch},
    extract::{Caller, JsonBody, PageQuery, PathId, QueryOf, ReadQuery, Write},
    openapi::problems,
    problem::ApiError,
    response_metadata as metadata,
};
use axum::{extract::State, response::Response};
use ringmaster_common::{
    error::{Code, Refusal},
    page::Page,
    traffic::upstream::{Configured, EndpointSpec, Upstream, UpstreamSpec},
};
use ringmaster_services::traffic::upstreams;
use serde_json::Value;

/// The fields that a GET adds to the configuration of an upstream.
const ADDED_BY_GET: &[&str] = &["name", "version", "updated_at", "updated_by", "primary"];
/// The fields that a GET adds to the configuration of an endpoint.
pub const ADDED_BY_GET_TO_ENDPOINT: &[&str] =
    &["state", "state_since", "health", "registered", "upstream", "is_serving", "health_history"];

/// All upstreams
#[utoipa::path(
    get, path = "/v1/upstreams", tag = "traffic", operation_id = "upstreams", params(PageQuery),
    responses((status = 200, description = "In the order of names", body = Page<Upstream>), ListRefusals)
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Response, ApiError> {
    let (request, paging) = (caller.read(query.consistency), query.paging(String::new())?);
    Ok(metadata::read(upstreams::list(&api.services, request, paging).await?))
}

problems!(ListRefusals: [READ]);

/// One upstream, with the state of its endpoints
#[utoipa::path(
    get, path = "/v1/upstreams/{upstream}", tag = "traffic", operation_id = "upstream",
    params(("upstream" = String, Path, description = "Its name", example = "web"), ReadQuery),
    responses(
        (status = 200, description = "The upstream", body = Upstream, headers(("ETag" = String, description = "The version of its configuration"))),
        GetRefusals
    )
)]
pub async fn get(
    State(api): State<Api>,
    caller: Caller,
    PathId(name): PathId<String>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, ApiError> {
    Ok(etag::found(upstreams::get(&api.services, caller.read(query.consistency), &name).await?))
}

problems!(GetRefusals: [READ], UnknownUpstream);

/// Configure an upstream
///
/// The states of its endpoints (ready, drain, maintenance), their health, the primary and the registered endpoints stay
/// as they are. The body of a GET may be put back unchanged. The health of an endpoint whose address changes becomes
/// unknown.
#[utoipa::path(
    put, path = "/v1/upstreams/{upstream}", tag = "traffic", operation_id = "put_upstream",
    params(
        ("upstream" = String, Path, description = "1 to 64 letters, digits, or any of . _ - after the first", example = "web"),
        ("If-Match" = Option<String>, Header, min_length = 1, description = "Only if it is at one of these versions"),
        ("If-None-Match" = Option<String>, Header, min_length = 1, description = "`*`: only if there is none yet"),
        Write
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
        (status = 200, description = "Configured", body = Upstream, headers(("ETag" = String, description = "Its version"))),
        (status = 201, description = "Created", body = Upstream, headers(
            ("ETag" = String, description = "Its version"),
            ("Location" = String, description = "Its path")
        )),
        PutRefusals
    )
)]
pub async fn put(
    State(api): State<Api>,
    PathId(name): PathId<String>,
    IfMatch(precondition): IfMatch,
    Write(request): Write,
    JsonBody(body): JsonBody<Value>,
) -> Result<Response, ApiError> {
    let spec = request.check(upstream_of(body))?;
    let written = upstreams::put(&api.services, request, name, spec, precondition).await?;
    Ok(etag::stored(written, |upstream| format!("/v1/upstreams/{}", upstream.name)))
}

problems!(PutRefusals: [WRITE, BODY], InvalidUpstream, EndpointTaken, UpgradeUnfinished, PreconditionFailed, LimitReached);

/// Reads the configuration of an upstream, without the registered endpoints that a GET lists beside it.
fn upstream_of(mut body: Value) -> Result<UpstreamSpec, Refusal> {
    if let Some(Value::Array(endpoints)) = body.get_mut("endpoints") {
        endpoints.retain(|endpoint| endpoint.get("registered").is_none_or(Value::is_null));
        endpoints.iter_mut().for_each(|endpoint| etag::remove(endpoint, ADDED_BY_GET_TO_ENDPOINT));
    }
    etag::parse(body, ADDED_BY_GET, Code::InvalidUpstream)
}

/// Delete an upstream that no route leads to
#[utoipa::path(
    delete, path = "/v1/upstreams/{upstream}", tag = "traffic", operation_id = "delete_upstream",
    params(
        ("upstream" = String, Path, description = "Its name", example = "retired"),
        ("If-Match" = Option<String>, Header, min_length = 1, description = "Only if it is at one of these versions"),
        Write
    ),
    responses((status = 204, description = "Deleted"), DeleteRefusals)
)]
pub async fn delete(
    State(api): State<Api>,
    PathId(name): PathId<String>,
    IfMatch(precondition): IfMatch,
    Write(request): Write,
) -> Result<Response, ApiError> {
    Ok(metadata::no_content(upstreams::delete(&api.services, request, name, precondition).await?))
}

problems!(DeleteRefusals: [WRITE], UnknownUpstream, UpstreamInUse, OperationRunning, UpgradeUnfinished, PreconditionFailed);
