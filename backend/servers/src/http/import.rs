//! `/v1/traffic/import`: upstreams and routes that are put together, in one entry of the log.

use crate::http::{
    Api,
    extract::{JsonBody, QueryOf, Write},
    openapi::problems,
    problem::ApiError,
    response_metadata as metadata,
};
use axum::{extract::State, response::Response};
use ringmaster_common::traffic::import::Import;
use ringmaster_services::traffic::import;
use serde::Deserialize;
use utoipa::IntoParams;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// Only check whether it would be accepted.
    #[serde(default)]
    check: bool,
}

/// Put upstreams and routes: all of them, or none
///
/// Each names the version that it has now, so that no change of another client is overwritten unseen. Resources that
/// are not named stay as they are, and so does the state of endpoints. If one of them is refused, nothing changes. The
/// body has up to 7 MiB.
#[utoipa::path(
    post, path = "/v1/traffic/import", tag = "traffic", operation_id = "import_traffic", params(ImportQuery, Write),
    request_body(content = Import, examples(
        ("new" = (summary = "A new upstream and a new route", value = json!({
            "upstreams": [{ "name": "imported", "version": null, "spec": { "endpoints": [{ "id": "e1", "addr": "127.0.0.1:9001" }] } }],
            "routes": [{ "name": "imported", "version": null, "spec": { "path_prefix": "/imported", "upstream": "imported" } }]
        })))
    )),
    responses((status = 204, description = "All of it is stored, or would be"), ImportRefusals)
)]
pub async fn import(
    State(api): State<Api>,
    QueryOf(query): QueryOf<ImportQuery>,
    Write(request): Write,
    JsonBody(body): JsonBody<Import>,
) -> Result<Response, ApiError> {
    if query.check {
        return Ok(metadata::no_content(import::check(&api.services, request, body).await?));
    }
    Ok(metadata::no_content(import::import(&api.services, request, body).await?))
}

problems!(ImportRefusals: [WRITE, BODY], UnknownUpstream, InvalidUpstream, InvalidRoute, EndpointTaken, RouteShadows, ListenerTaken, UpgradeUnfinished, PreconditionFailed, LimitReached);
