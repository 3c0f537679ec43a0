//! Results of services as responses: the value as JSON, the metadata as headers.
//!
//! A read is marked with the revision that the node had applied and with the age of that state: 0 where the leader
//! confirmed it, else the time since this node heard of a leader. A write is marked with the id of its request, and
//! with the revision that carried it out where there is one.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ringmaster_common::{duration::millis, headers};
use ringmaster_services::{Read, ReadAt, Written};
use serde::Serialize;

const REVISION: HeaderName = HeaderName::from_static(headers::REVISION);
const AGE_MS: HeaderName = HeaderName::from_static(headers::AGE_MS);
const REQUEST_ID: HeaderName = HeaderName::from_static(headers::REQUEST_ID);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Room for the headers of a usual response, so that their table does not grow.
const HEADERS: usize = 12;

/// A value as a JSON body.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("the types of the API are plain data");
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(header::CONTENT_TYPE, JSON);
    response
}

/// The value that a read found.
pub fn read<T: Serialize>(read: Read<T>) -> Response {
    let mut response = json(StatusCode::OK, &read.value);
    set_read_at(response.headers_mut(), read.at);
    response
}

/// The value that a write answers with.
pub fn written<T: Serialize>(status: StatusCode, written: Written<T>) -> Response {
    let mut response = json(status, &written.value);
    set_written(response.headers_mut(), &written);
    response
}

/// A write that answers with no value.
pub fn no_content<T>(written: Written<T>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().reserve(HEADERS);
    set_written(response.headers_mut(), &written);
    response
}

/// Names the place of a new resource.
pub fn at_location(mut response: Response, path: &str) -> Response {
    // A name that does not fit a header has no location.
    if let Ok(location) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

pub fn set_read_at(headers: &mut HeaderMap, at: ReadAt) {
    headers.insert(REVISION, HeaderValue::from(at.revision.0));
    if let Some(age) = at.age {
        headers.insert(AGE_MS, HeaderValue::from(millis(age)));
    }
}

pub fn set_request_id(headers: &mut HeaderMap, id: &str) {
    // An id that a client chose may not fit a header; the client knows it anyway.
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
}

pub fn set_written<T>(headers: &mut HeaderMap, written: &Written<T>) {
    set_request_id(headers, &written.request_id);
    if let Some(revision) = written.revision {
        headers.insert(REVISION, HeaderValue::from(revision.0));
    }
}
