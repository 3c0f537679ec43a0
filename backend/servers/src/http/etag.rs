//! Resources that are configured by PUT and DELETE under ETags: preconditions, bodies and responses.
//!
//! The body of a GET may be put back unchanged: fields that a GET adds are ignored, and every other unknown field is
//! refused by its name. A PUT answers with the resource and the version that this PUT stored.

use crate::http::{problem::ApiError, response_metadata as metadata};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use ringmaster_cluster::command::Precondition;
use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
};
use ringmaster_services::{Read, Stored, Written};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The precondition that If-Match or If-None-Match state.
#[derive(Debug)]
pub struct IfMatch(pub Precondition);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(IfMatch(precondition(&parts.headers)?))
    }
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
                    format!("If-Match takes ETags of earlier responses, such as \"17\", not {list}"),
                )
            }),
        (_, Some(other)) => Err(Refusal::new(
            Code::InvalidRequest,
            format!("a change takes If-Match, or If-None-Match: *, and not If-None-Match: {other}"),
        )),
    }
}

/// The response to a GET: the resource, with its version as the ETag.
pub fn found<T: Serialize>(read: Read<Stored<T>>) -> Response {
    let version = read.value.version;
    tagged(metadata::read(read.map(|stored| stored.resource)), version)
}

/// The response to a PUT: the resource that it stored. 201 with its location where there was none before.
pub fn stored<T: Serialize>(written: Written<Stored<T>>, location: impl FnOnce(&T) -> String) -> Response {
    let (version, created) = (written.value.version, written.value.created);
    let location = created.then(|| location(&written.value.resource));
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let response = tagged(metadata::written(status, written.map(|stored| stored.resource)), version);
    match location {
        Some(location) => metadata::at_location(response, &location),
        None => response,
    }
}

fn tagged(mut response: Response, version: Revision) -> Response {
    let etag = HeaderValue::from_str(&format!("\"{version}\"")).expect("digits fit a header");
    response.headers_mut().insert(header::ETAG, etag);
    response
}

/// Reads a body as a configuration, without the fields that only a GET adds. An error names the field.
pub fn parse<T: DeserializeOwned>(mut body: Value, added_by_get: &[&str], code: Code) -> Result<T, Refusal> {
    // A list would be read as the fields of an object in their order, and an empty one as all defaults.
    if !body.is_object() {
        return Err(Refusal::new(code, "the body is a JSON object"));
    }
    remove(&mut body, added_by_get);
    serde_path_to_error::deserialize(body).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        Refusal::new(code, format!("{place}{}", error.inner()))
    })
}

/// Removes fields of an object.
pub fn remove(value: &mut Value, fields: &[&str]) {
    if let Value::Object(object) = value {
        for field in fields {
            object.remove(*field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(header::HeaderName, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn preconditions_are_those_of_rfc_9110_for_strong_etags() {
        fn known(of: &[(header::HeaderName, &str)]) -> Result<Precondition, Refusal> {
            precondition(&headers(of))
        }
        assert_eq!(known(&[]), Ok(Precondition::None));
        assert_eq!(known(&[(header::IF_MATCH, "*")]), Ok(Precondition::Exists));
        assert_eq!(known(&[(header::IF_NONE_MATCH, "*")]), Ok(Precondition::Absent));
        let any_of = Precondition::AnyOf(vec![Revision(5), Revision(17)]);
        assert_eq!(known(&[(header::IF_MATCH, "\"5\", \"17\"")]), Ok(any_of));
        for refused in [(header::IF_MATCH, "W/\"5\""), (header::IF_NONE_MATCH, "\"5\"")] {
            assert_eq!(known(&[refused]).unwrap_err().code, Code::InvalidRequest);
        }
    }

    #[test]
    fn a_put_answers_with_its_own_version_and_201_only_where_it_created() {
        let write = |created| Written {
            value: Stored { resource: "value", version: Revision(7), created },
            revision: Some(Revision(7)),
            request_id: "r".to_owned(),
        };
        let response = stored(write(true), |_| "/v1/settings/a".to_owned());
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers()[header::LOCATION], "/v1/settings/a");
        let response = stored(write(false), |_| unreachable!("it was there"));
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::ETAG], "\"7\"");
        assert_eq!(response.headers()["ringmaster-request-id"], "r");
    }
}
