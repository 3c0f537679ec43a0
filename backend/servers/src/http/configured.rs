//! What is configured by PUT and DELETE under ETags: preconditions, bodies and answers.
//!
//! What a GET tells may be put back as it is: fields that only tell are let go, and every other field that
//! is not known is refused by its name.

use crate::http::{Api, extract::Mutation, problem::Refused};
use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ringmaster_cluster::{
    State,
    command::{Command, Outcome, Precondition},
    traffic::TrafficCommand,
};
use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::sync::Arc;

/// What If-Match and If-None-Match ask for.
pub fn precondition(headers: &HeaderMap) -> Result<Precondition, Refusal> {
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
                    format!("If-Match takes ETags that were answered, such as \"17\", not {list}"),
                )
            }),
        (_, Some(other)) => Err(Refusal::new(
            Code::InvalidRequest,
            format!("a change takes If-Match, or If-None-Match: *, and not If-None-Match: {other}"),
        )),
    }
}

/// The value, with its version as the ETag.
pub fn answer(status: StatusCode, version: Revision, value: &impl Serialize) -> Response {
    let etag = HeaderValue::from_str(&format!("\"{version}\"")).expect("digits fit a header");
    (status, [(header::ETAG, etag)], Json(value)).into_response()
}

/// The same for what was just put: 201 and its place, if there was nothing before.
pub fn answer_put(created: bool, place: String, version: Revision, value: &impl Serialize) -> Response {
    if created {
        return ([(header::LOCATION, place)], answer(StatusCode::CREATED, version, value)).into_response();
    }
    answer(StatusCode::OK, version, value)
}

/// Reads a body as what can be configured, without what only tells. An error names the field.
pub fn read<T: DeserializeOwned>(mut body: Value, only_told: &[&str], code: Code) -> Result<T, Refusal> {
    // A list would be read as an object's fields in their order, and an empty one as all defaults.
    if !body.is_object() {
        return Err(Refusal::new(code, "the body is a JSON object"));
    }
    without(&mut body, only_told);
    serde_path_to_error::deserialize(body).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        Refusal::new(code, format!("{place}{}", error.inner()))
    })
}

pub fn without(value: &mut Value, fields: &[&str]) {
    if let Value::Object(object) = value {
        for field in fields {
            object.remove(*field);
        }
    }
}

impl Api {
    /// Proposes a change, and gives a state that has it, with whether something was created.
    pub async fn configure(
        &self,
        mutation: Mutation,
        command: TrafficCommand,
    ) -> Result<(bool, Arc<State>), Refused> {
        let Mutation { request, deadline } = mutation;
        let response = self.group.propose(request, Command::Traffic(Box::new(command)), deadline).await?;
        self.group.wait_applied(response.revision, deadline).await?;
        let created = matches!(response.outcome, Outcome::Configured { created: true });
        Ok((created, self.group.state()))
    }
}
