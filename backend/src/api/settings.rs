//! `/v1/settings`: plain GET and PUT, with ETag and If-Match.

use crate::{
    api::{
        Api,
        extract::{JsonBody, Mutation, PageQuery, QueryOf, ReadQuery, page},
        openapi::problems,
        problem::Refused,
    },
    state::{
        self,
        command::{Command, Outcome, Precondition},
    },
};
use axum::{
    Json,
    extract::{Path, State as Extension},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ringmaster_common::{
    error::{Code, Refusal},
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
        Some(setting) => Ok(answer(StatusCode::OK, &setting)),
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
        Outcome::Setting { setting, created: false } => Ok(answer(StatusCode::OK, &setting)),
        Outcome::Setting { setting, created: true } => {
            let location = [(header::LOCATION, format!("/v1/settings/{key}"))];
            Ok((location, answer(StatusCode::CREATED, &setting)).into_response())
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

fn answer(status: StatusCode, setting: &Setting) -> Response {
    let etag = HeaderValue::from_str(&format!("\"{}\"", setting.version)).expect("digits fit a header");
    (status, [(header::ETAG, etag)], Json(setting)).into_response()
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, Refusal> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Exists),
        (None, Some("*")) => Ok(Precondition::Absent),
        (Some(list), None) => list
            .split(',')
            .map(|tag| tag.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok())
            .collect::<Option<Vec<Revision>>>()
            .map(Precondition::AnyOf)
            .ok_or_else(|| {
                Refusal::new(
                    Code::InvalidRequest,
                    format!("If-Match takes ETags of settings, such as \"17\", not {list}"),
                )
            }),
        (_, Some(other)) => Err(Refusal::new(
            Code::InvalidRequest,
            format!("a PUT takes If-Match, or If-None-Match: *, and not If-None-Match: {other}"),
        )),
    }
}
