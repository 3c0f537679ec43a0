//! The fingerprint of a request that its client may repeat.
//!
//! It is computed once, by the node that received the request, from the bytes that the client sent, and travels with the
//! command into the log: so a repeat has the same one at every node, whatever version it runs. Requests without an
//! Idempotency-Key have none.

use crate::http::{REQUEST_TIMEOUT, body, problem::ApiError};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderName, header},
};
use ringmaster_cluster::request::fingerprint;
use ringmaster_common::error::Code;
use tokio::time::timeout;

/// The header with the id that the client chose.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Stands among the extensions of a request that may be repeated.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint(pub u32);

pub fn is_repeatable(request: &Request) -> bool {
    request.headers().contains_key(IDEMPOTENCY_KEY)
}

/// Reads the body, and puts the fingerprint of the request beside it.
pub async fn add(request: Request) -> Result<Request, ApiError> {
    let (mut parts, stream) = request.into_parts();
    let mut bare = Request::new(stream);
    *bare.uri_mut() = parts.uri.clone();
    let reading = body::read(bare);
    let body = timeout(REQUEST_TIMEOUT, reading)
        .await
        .map_err(|_| ApiError::new(Code::RequestTimeout, "the body did not arrive in time"))??;
    let header = |name: HeaderName| parts.headers.get(name).map_or(&[][..], |value| value.as_bytes());
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let preconditions = [header(header::IF_MATCH), header(header::IF_NONE_MATCH)];
    let of_bytes =
        [parts.method.as_str().as_bytes(), target.as_bytes(), preconditions[0], preconditions[1], &body];
    let fingerprint = Fingerprint(fingerprint(&of_bytes));
    parts.extensions.insert(fingerprint);
    Ok(Request::from_parts(parts, Body::from(body)))
}
