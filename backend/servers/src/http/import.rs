//! `/v1/traffic/import`: upstreams and routes that are put together, in one entry of the log.

use crate::http::{
    Api,
    extract::{JsonBody, Mutation, QueryOf},
    openapi::problems,
    problem::Refused,
};
use axum::{extract::State as Extension, http::StatusCode};
use ringmaster_cluster::traffic::TrafficCommand;
use ringmaster_cluster_group::Consistency;
use ringmaster_common::traffic::import::Import;
use serde::Deserialize;
use utoipa::IntoParams;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// Only say whether it would be accepted.
    #[serde(default)]
    check: bool,
}

/// Put upstreams and routes: all of them, or none
///
/// Each names the version that it has now, so that nobody's change is overwritten unseen. What is not named stays as it
/// is, and what became of endpoints stays, too. Where anything of it is refused, nothing has changed.
#[utoipa::path(
    post, path = "/traffic/import", tag = "traffic", operation_id = "import_traffic", params(ImportQuery, Mutation),
    request_body(content = Import, examples(
        ("new" = (summary = "An upstream and a route that are not there yet", value = json!({
            "upstreams": [{ "name": "imported", "version": null, "spec": { "endpoints": [{ "id": "e1", "addr": "127.0.0.1:9001" }] } }],
            "routes": [{ "name": "imported", "version": null, "spec": { "path_prefix": "/imported", "upstream": "imported" } }]
        })))
    )),
    responses((status = 204, description = "All of it is put, or would be"), ImportRefusals)
)]
pub async fn import(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<ImportQuery>,
    mutation: Mutation,
    JsonBody(import): JsonBody<Import>,
) -> Result<StatusCode, Refused> {
    if query.check {
        api.read(Some(Consistency::Linearizable)).await?.check_import(import)?;
    } else {
        api.configure(mutation, TrafficCommand::Import(import)).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

problems!(ImportRefusals: [WRITE, BODY], UnknownUpstream, InvalidUpstream, InvalidRoute, EndpointTaken, RouteShadows, ListenerTaken, UpgradeUnfinished, PreconditionFailed, LimitReached);
