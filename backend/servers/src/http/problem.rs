//! Errors at the edge: problem documents (RFC 9457) made of refusals.

use crate::http::{MAX_DISCARDED_BYTES, REQUEST_TIMEOUT, max_body_bytes, response_metadata};
use axum::{
    Json,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{FutureExt, StreamExt};
use ringmaster_common::error::{Code, PROBLEM_JSON, Problem, Refusal};
use ringmaster_services::{ReadAt, ServiceError};
use std::panic::AssertUnwindSafe;
use tokio::time::timeout;

/// An error response.
#[derive(Debug)]
pub struct ApiError(Box<Body>);

#[derive(Debug)]
struct Body {
    problem: Problem,
    /// The state in which a read did not find what it was asked for.
    read_at: Option<ReadAt>,
}

impl ApiError {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Refusal::new(code, detail).into()
    }

    /// The same, closing the connection: a client that floods this node keeps no connection that an operator may
    /// need.
    pub fn into_last_response(self) -> Response {
        let mut response = self.into_response();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        ApiError(Box::new(Body { problem, read_at: None }))
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Problem::from(refusal).into()
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let ServiceError { refusal, overloaded, request_id, read_at } = error;
        let refusal = *refusal;
        let problem = Problem {
            class: overloaded.map(|class| class.as_str().to_owned()),
            bound: overloaded.map(|class| class.bound() as u64),
            request_id,
            ..refusal.into()
        };
        ApiError(Box::new(Body { problem, read_at }))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Body { problem, read_at } = *self.0;
        let status = StatusCode::from_u16(problem.status).expect("codes have valid statuses");
        let mut response = (status, Json(&problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(read_at) = read_at {
            response_metadata::set_read_at(headers, read_at);
        }
        if let Some(request_id) = &problem.request_id {
            response_metadata::set_request_id(headers, request_id);
        }
        response
    }
}

/// The response to a method that a path does not take.
pub async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        format!(
            "{} does not take {}; the header Allow names the methods that it takes",
            request.uri().path(),
            request.method()
        ),
    )
}

/// A panic of a handler costs one response, not the connection. The panic itself is in the log.
pub async fn without_panic(handling: impl Future<Output = Response>) -> Response {
    // The values that the handler had borrowed are dropped with it, and locks tell their next owners of the panic.
    AssertUnwindSafe(handling).catch_unwind().await.unwrap_or_else(|_| {
        ApiError::new(Code::Internal, "the node failed to respond; its log says why").into_response()
    })
}

/// The announced length of the body, if it is too long.
pub fn too_large(request: &Request) -> Option<u64> {
    let length: u64 = request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    (length > max_body_bytes(request.uri()) as u64).then_some(length)
}

/// Refuses a body of that length. It is read all the same, within bounds of size and time: a client that is still
/// sending when the connection closes never sees the response.
pub async fn discard(request: Request, length: u64) -> Response {
    let limit = max_body_bytes(request.uri());
    if length <= MAX_DISCARDED_BYTES {
        let mut body = request.into_body().into_data_stream();
        let _ = timeout(REQUEST_TIMEOUT, async { while let Some(Ok(_)) = body.next().await {} }).await;
    }
    let detail = format!("the body has {length} bytes, and the limit is {limit}");
    ApiError::new(Code::BodyTooLarge, detail).into_response()
}
