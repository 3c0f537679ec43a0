//! The body of a request, as a whole.

use crate::http::{
    MAX_BODY_BYTES, REQUEST_TIMEOUT,
    fingerprint::{self, Fingerprint},
    problem::ApiError,
};
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
};
use ringmaster_common::error::Code;
use tokio::time::timeout;

/// Stands among the extensions of a request whose body may be no longer than this.
#[derive(Clone, Copy, Debug)]
pub struct Limit(pub usize);

pub async fn read(request: Request) -> Result<Bytes, ApiError> {
    let limit = request.extensions().get().map_or(MAX_BODY_BYTES, |Limit(limit)| *limit);
    to_bytes(request.into_body(), limit).await.map_err(|_| {
        ApiError::new(
            Code::BodyTooLarge,
            format!("the body did not arrive whole; the limit is {limit} bytes"),
        )
    })
}

/// Awaits the body, and gives the request its fingerprint if it may be repeated.
pub async fn receive(request: Request) -> Result<Request, ApiError> {
    let (mut parts, stream) = request.into_parts();
    let mut body = Request::new(stream);
    body.extensions_mut().clone_from(&parts.extensions);
    let body = timeout(REQUEST_TIMEOUT, read(body))
        .await
        .map_err(|_| ApiError::new(Code::RequestTimeout, "the body did not arrive in time"))??;
    if fingerprint::is_repeatable(&parts.headers) {
        parts.extensions.insert(Fingerprint::of(&parts, &body));
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}
