//! `/v1/routes`: which requests go to which upstream.

use crate::http::{
    Api,
    configured::{answer, answer_put, precondition, read},
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
    error::Code,
    page::Page,
    traffic::route::{Route, RouteSpec},
};
use serde_json::Value;

/// All routes
#[utoipa::path(
    get, path = "/routes", tag = "traffic", operation_id = "routes", params(PageQuery),
    responses((status = 200, description = "In the order of names", body = Page<Route>), ListRefusals)
)]
pub async fn list(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<Route>>, Refused> {
    let (limit, after) = (query.limit()?, query.cursor(String::new())?);
    let state = api.read(query.consistency).await?;
    let rest = state.routes.iter().filter(|route| route.name > after).cloned();
    Ok(Json(page(rest, limit, |route| route.name.clone())))
}

problems!(ListRefusals: [READ]);

/// One route
#[utoipa::path(
    get, path = "/routes/{route}", tag = "traffic", operation_id = "route",
    params(("route" = String, Path, description = "Its name", example = "web"), ReadQuery),
    responses(
        (status = 200, description = "The route", body = Route, headers(("ETag" = String, description = "Its version"))),
        GetRefusals
    )
)]
pub async fn get(
    Extension(api): Extension<Api>,
    PathId(name): PathId<String>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, Refused> {
    let state = api.read(query.consistency).await?;
    let route = state.routes.find(&name)?;
    Ok(answer(StatusCode::OK, route.version, route))
}

problems!(GetRefusals: [READ], NoSuchRoute);

/// Configure a route
///
/// Of all routes that match a request, the one whose host is named wins over those for any host, and among these the
/// longest path prefix. Two routes that match the very same requests are refused.
#[utoipa::path(
    put, path = "/routes/{route}", tag = "traffic", operation_id = "put_route",
    params(
        ("route" = String, Path, description = "1 to 64 letters, digits, or any of . _ - after the first", example = "web"),
        ("If-Match" = Option<String>, Header, description = "Only if it is at one of these versions"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none yet"),
        Mutation
    ),
    request_body(content = RouteSpec, examples(
        ("prefix" = (summary = "All below a path", value = json!({ "path_prefix": "/", "upstream": "web" }))),
        ("host" = (summary = "A host, without the prefix, at a bounded rate", value = json!({
            "host": "app.example.org", "path_prefix": "/api", "rewrite_prefix": "/", "upstream": "web",
            "set_request_headers": { "x-forwarded-by": "ringmaster" }, "rate_limit_per_s": 500
        })))
    )),
    responses(
        (status = 200, description = "It is configured", body = Route, headers(("ETag" = String, description = "Its version"))),
        (status = 201, description = "It is there, for the first time", body = Route, headers(
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
    let spec: RouteSpec = read(body, TOLD_OF_ROUTE, Code::InvalidRoute)?;
    state::routes::check(&name, &spec)?;
    let precondition = precondition(&headers)?;
    let command = TrafficCommand::PutRoute { name: name.clone(), spec, precondition };
    let (created, state) = api.configure(mutation, command).await?;
    let route = state.routes.find(&name)?;
    Ok(answer_put(created, format!("/v1/routes/{name}"), route.version, route))
}

problems!(PutRefusals: [WRITE, BODY], UnknownUpstream, NoSuchRoute, InvalidRoute, RouteShadows, ListenerTaken, UpgradeUnfinished, PreconditionFailed, LimitReached);

/// Delete a route
#[utoipa::path(
    delete, path = "/routes/{route}", tag = "traffic", operation_id = "delete_route",
    params(
        ("route" = String, Path, description = "Its name", example = "retired"),
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
    api.configure(mutation, TrafficCommand::DeleteRoute { name, precondition }).await?;
    Ok(StatusCode::NO_CONTENT)
}

problems!(DeleteRefusals: [WRITE], NoSuchRoute, UpgradeUnfinished, PreconditionFailed);

/// What a GET tells of a route beside what is configured.
const TOLD_OF_ROUTE: &[&str] = &["name", "version", "updated_at", "updated_by"];
