//! `/v1/settings`: configuration of the whole cluster, one value a key.

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
    setting::Setting,
};
use ringmaster_services::settings;
use serde::Deserialize;
use serde_json::Value;

/// The body of a PUT.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutSetting {
    /// Any JSON up to 4 KiB.
    value: Value,
    /// Optional; if it is given, it must be the key of the path.
    key: Option<String>,
}

/// All settings that are set, and those with defaults
#[utoipa::path(
    get, path = "/v1/settings", tag = "settings", operation_id = "settings", params(PageQuery),
    responses((status = 200, description = "In the order of keys", body = Page<Setting>), ListRefusals)
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Response, ApiError> {
    let (request, paging) = (caller.read(query.consistency), query.paging(String::new())?);
    Ok(metadata::read(settings::list(&api.services, request, paging).await?))
}

problems!(ListRefusals: [READ]);

/// One setting
#[utoipa::path(
    get, path = "/v1/settings/{*key}", tag = "settings", operation_id = "setting",
    params(("key" = String, Path, description = "May hold slashes", example = "nodes.suspect_after_ms"), ReadQuery),
    responses(
        (status = 200, description = "The setting", body = Setting, headers(("ETag" = String, description = "Its version"))),
        GetRefusals
    )
)]
pub async fn get(
    State(api): State<Api>,
    caller: Caller,
    PathId(key): PathId<String>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, ApiError> {
    Ok(etag::found(settings::get(&api.services, caller.read(query.consistency), &key).await?))
}

problems!(GetRefusals: [READ], UnknownSetting);

/// Write a setting
///
/// A setting that Ringmaster knows is validated; every other key is free.
#[utoipa::path(
    put, path = "/v1/settings/{*key}", tag = "settings", operation_id = "put_setting",
    params(
        ("key" = String, Path, description = "May hold slashes", example = "team"),
        ("If-Match" = Option<String>, Header, min_length = 1, description = "Only if it is at one of these versions"),
        ("If-None-Match" = Option<String>, Header, min_length = 1, description = "`*`: only if it is not set"),
        Write
    ),
    request_body(content = PutSetting, examples(
        ("text" = (summary = "A text", value = json!({ "value": "blue" }))),
        ("object" = (summary = "Any JSON up to 4 KiB", value = json!({ "value": { "cpu": 4, "on_call": ["ada", "bob"] } })))
    )),
    responses(
        (status = 200, description = "Written", body = Setting, headers(("ETag" = String, description = "Its version"))),
        (status = 201, description = "Created", body = Setting, headers(
            ("ETag" = String, description = "Its version"),
            ("Location" = String, description = "Its path")
        )),
        PutRefusals
    )
)]
pub async fn put(
    State(api): State<Api>,
    PathId(key): PathId<String>,
    IfMatch(precondition): IfMatch,
    Write(request): Write,
    JsonBody(body): JsonBody<PutSetting>,
) -> Result<Response, ApiError> {
    let value = request.check(body.value_of(&key))?;
    let written = settings::put(&api.services, request, key, value, precondition).await?;
    Ok(etag::stored(written, |setting| format!("/v1/settings/{}", setting.key)))
}

problems!(PutRefusals: [WRITE, BODY], InvalidSetting, ValueTooLarge, PreconditionFailed, LimitReached);

/// Delete a setting
///
/// A setting that Ringmaster knows has its default again.
#[utoipa::path(
    delete, path = "/v1/settings/{*key}", tag = "settings", operation_id = "delete_setting",
    params(
        ("key" = String, Path, description = "May hold slashes", example = "retired"),
        ("If-Match" = Option<String>, Header, min_length = 1, description = "Only if it is at one of these versions"),
        Write
    ),
    responses((status = 204, description = "Deleted"), DeleteRefusals)
)]
pub async fn delete(
    State(api): State<Api>,
    PathId(key): PathId<String>,
    IfMatch(precondition): IfMatch,
    Write(request): Write,
) -> Result<Response, ApiError> {
    Ok(metadata::no_content(settings::delete(&api.services, request, key, precondition).await?))
}

problems!(DeleteRefusals: [WRITE], UnknownSetting, InvalidSetting, UpgradeUnfinished, PreconditionFailed);

impl PutSetting {
    fn value_of(self, key: &str) -> Result<Value, Refusal> {
        match self.key {
            Some(named) if named != key => {
                let detail = format!("the body names the setting {named:?} and the path {key:?}");
                Err(Refusal::new(Code::InvalidRequest, detail))
            }
            _ => Ok(self.value),
        }
    }
}
