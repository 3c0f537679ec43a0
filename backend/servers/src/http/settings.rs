//! `/v1/settings`: plain GET and PUT, with ETag and If-Match.

use crate::http::{
    Api,
    configured::{answer, answer_put, precondition},
    extract::{JsonBody, Mutation, PageQuery, QueryOf, ReadQuery, page},
    openapi::problems,
    problem::Refused,
};
use axum::{
    Json,
    extract::{Path, State as Extension},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use ringmaster_cluster as state;
use ringmaster_cluster::command::{Command, Outcome};
use ringmaster_common::{
    error::Code,
    id::Revision,
    page::Page,
    setting::{KNOWN, Known, Setting},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The body of a PUT.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutSetting {
    /// Any JSON up to 4 KiB.
    value: Value,
    /// May be given again, and must be that of the path then.
    key: Option<String>,
}

/// All settings that are set, and those with defaults
#[utoipa::path(
    get, path = "/settings", tag = "settings", operation_id = "settings", params(PageQuery),
    responses((status = 200, description = "In the order of keys", body = Page<Setting>), ListRefusals)
)]
pub async fn list(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<Setting>>, Refused> {
    let (limit, after) = (query.limit()?, query.cursor(String::new())?);
    let state = api.read(query.consistency).await?;
    let mut settings: BTreeMap<String, Setting> =
        KNOWN.iter().map(|known| (known.key.to_owned(), default_of(known))).collect();
    settings.extend(state.settings.iter().map(|setting| (setting.key.clone(), setting.clone())));
    let rest = settings.into_values().filter(|setting| setting.key > after);
    Ok(Json(page(rest, limit, |setting| setting.key.clone())))
}

problems!(ListRefusals: [READ]);

/// One setting
#[utoipa::path(
    get, path = "/settings/{*key}", tag = "settings", operation_id = "setting",
    params(("key" = String, Path, description = "May hold slashes", example = "nodes.suspect_after_ms"), ReadQuery),
    responses(
        (status = 200, description = "The setting", body = Setting, headers(("ETag" = String, description = "Its version"))),
        GetRefusals
    )
)]
pub async fn get(
    Extension(api): Extension<Api>,
    Path(key): Path<String>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, Refused> {
    let state = api.read(query.consistency).await?;
    match state.settings.get(&key).cloned().or_else(|| Known::find(&key).map(default_of)) {
        Some(setting) => Ok(answer(StatusCode::OK, setting.version, &setting)),
        None => Err(Refused::new(Code::UnknownSetting, format!("nobody has set {key:?}"))),
    }
}

problems!(GetRefusals: [READ], UnknownSetting);

/// Write a setting
///
/// A setting that Ringmaster knows is validated; every other key is free.
#[utoipa::path(
    put, path = "/settings/{*key}", tag = "settings", operation_id = "put_setting",
    params(
        ("key" = String, Path, description = "May hold slashes", example = "team"),
        ("If-Match" = Option<String>, Header, description = "Write it only if it is at one of these versions"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: write it only if nobody has set it"),
        Mutation
    ),
    request_body(content = PutSetting, examples(
        ("text" = (summary = "A text", value = json!({ "value": "blue" }))),
        ("object" = (summary = "Any JSON up to 4 KiB", value = json!({ "value": { "cpu": 4, "on_call": ["ada", "bob"] } })))
    )),
    responses(
        (status = 200, description = "It is written", body = Setting, headers(("ETag" = String, description = "Its version"))),
        (status = 201, description = "It is written, for the first time", body = Setting, headers(
            ("ETag" = String, description = "Its version"),
            ("Location" = String, description = "Where it is")
        )),
        PutRefusals
    )
)]
pub async fn put(
    Extension(api): Extension<Api>,
    Path(key): Path<String>,
    headers: HeaderMap,
    mutation: Mutation,
    JsonBody(body): JsonBody<PutSetting>,
) -> Result<Response, Refused> {
    if let Some(named) = body.key.filter(|named| *named != key) {
        return Err(Refused::new(
            Code::InvalidRequest,
            format!("the body names the setting {named:?} and the path {key:?}"),
        ));
    }
    state::settings::check(&key, &body.value)?;
    let precondition = precondition(&headers)?;
    let command = Command::PutSetting { key: key.clone(), value: body.value, precondition };
    let response = api.group.propose(mutation.request, command, mutation.deadline).await?;
    match response.outcome {
        Outcome::Setting { setting, created } => {
            Ok(answer_put(created, format!("/v1/settings/{key}"), setting.version, &setting))
        }
        _ => Err(Refused::new(Code::Internal, "the cluster answered with something else")),
    }
}

problems!(PutRefusals: [WRITE, BODY], InvalidSetting, ValueTooLarge, PreconditionFailed, LimitReached);

fn default_of(known: &Known) -> Setting {
    Setting {
        key: known.key.to_owned(),
        value: json!(known.default),
        version: Revision(0),
        updated_at: None,
        updated_by: None,
    }
}
