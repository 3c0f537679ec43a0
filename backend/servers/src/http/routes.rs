//! `/v1/routes`: which requests go to which upstream.

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
    error::Code,
    page::Page,
    traffic::route::{Route, RouteSpec},
};
use ringmaster_services::traffic::routes;
use serde_json::Value;

/// The fields that a GET adds to the configuration.
const ADDED_BY_GET: &[&str] = &["name", "version", "updated_at", "updated_by"];

/// All routes
#[utoipa::path(
    get, path = "/v1/routes", tag = "traffic", operation_id = "routes", params(PageQuery),
    responses((status = 200, description = "In the order of names", body = Page<Route>), ListRefusals)
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Response, ApiError> {
    let (request, paging) = (caller.read(query.consistency), query.paging(String::new())?);
    Ok(metadata::read(routes::list(&api.services, request, paging).await?))
}

problems!(ListRefusals: [READ]);

/// One route
#[utoipa::path(
    get, path = "/v1/routes/{route}", tag = "traffic", operation_id = "route",
    params(("route" = String, Path, description = "Its name", example = "web"), ReadQuery),
    responses(
        (status = 200, description = "The route", body = Route, headers(("ETag" = String, description = "Its version"))),
        GetRefusals
    )
)]
pub async fn get(
    State(api): State<Api>,
    caller: Caller,
    PathId(name): PathId<String>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, ApiError> {
    Ok(etag::found(routes::get(&api.services, caller.read(query.consistency), &name).await?))
}

problems!(GetRefusals: [READ], NoSuchRoute);

/// Configure a route
///
/// Of all routes that match a request, a route with a host wins over the routes for any host, and among these the
/// longest path prefix wins. Two routes that match exactly the same requests are refused.
#[utoipa::path(
    put, path = "/v1/routes/{route}", tag = "traffic", operation_id = "put_route",
    params(
        ("route" = String, Path, description = "1 to 64 letters, digits, or any of . _ - after the first", example = "web"),
        ("If-Match" = Option<String>, Header, min_length = 1, description = "Only if it is at one of these versions"),
        ("If-None-Match" = Option<String>, Header, min_length = 1, description = "`*`: only if there is none yet"),
        Write
    ),
    request_body(content = RouteSpec, examples(
        ("prefix" = (summary = "All requests below a path", value = json!({ "path_prefix": "/", "upstream": "web" }))),
        ("host" = (summary = "One host, without the prefix, with a rate limit", value = json!({
            "host": "app.example.org", "path_prefix": "/api", "rewrite_prefix": "/", "upstream": "web",
            "set_request_headers": { "x-forwarded-by": "ringmaster" }, "rate_limit_per_s": 500
        })))
    )),
    responses(
        (status = 200, description = "Configured", body = Route, headers(("ETag" = String, description = "Its version"))),
        (status = 201, description = "Created", body = Route, headers(
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
    let spec: RouteSpec = request.check(etag::parse(body, ADDED_BY_GET, Code::InvalidRoute))?;
    let written = routes::put(&api.services, request, name, spec, precondition).await?;
    Ok(etag::stored(written, |route| format!("/v1/routes/{}", route.name)))
}

problems!(PutRefusals: [WRITE, BODY], UnknownUpstream, NoSuchRoute, InvalidRoute, RouteShadows, ListenerTaken, UpgradeUnfinished, PreconditionFailed, LimitReached);

/// Delete a route
#[utoipa::path(
    delete, path = "/v1/routes/{route}", tag = "traffic", operation_id = "delete_route",
    params(
        ("route" = String, Path, description = "Its name", example = "retired"),
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
    Ok(metadata::no_content(routes::delete(&api.services, request, name, precondition).await?))
}

problems!(DeleteRefusals: [WRITE], NoSuchRoute, UpgradeUnfinished, PreconditionFailed);
