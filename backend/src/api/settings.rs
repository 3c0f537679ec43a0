//! `/v1/settings`: plain GET and PUT, with ETag and If-Match.

use crate::{
    api::{
        Api,
        extract::{JsonBody, Mutation, PageQuery, QueryOf, ReadQuery, page},
        problem::Refused,
    },
    raft::cluster_group::Consistency,
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
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutSetting {
    value: Value,
    /// May be given again, and must be that of the path then.
    key: Option<String>,
}

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

impl Api {
    /// A state for a read of a resource: linearizable unless asked for otherwise.
    pub async fn read(
        &self,
        consistency: Option<Consistency>,
    ) -> Result<std::sync::Arc<state::State>, Refusal> {
        let deadline = crate::clock::now() + super::WRITE_DEADLINE;
        self.group.read(consistency.unwrap_or(Consistency::Linearizable), deadline).await
    }
}
