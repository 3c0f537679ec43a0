//! Errors at the edge: from refusals to problem documents.

use axum::{
    Json,
    extract::Request,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures::{FutureExt, StreamExt};
use ringmaster_common::error::{Code, PROBLEM_JSON, Problem, Refusal};
use std::panic::AssertUnwindSafe;

/// A refusal on its way out.
#[derive(Debug)]
pub struct Refused(pub Box<Problem>);

impl Refused {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Refusal::new(code, detail).into()
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Refused(Box::new(refusal.into()))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).expect("codes have valid statuses");
        let mut response = (status, Json(self.0)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

pub async fn method_not_allowed(request: Request) -> Refused {
    Refused::new(
        Code::MethodNotAllowed,
        format!(
            "{} does not take {}; the header Allow names what it takes",
            request.uri().path(),
            request.method()
        ),
    )
}

/// A defect of ours costs one answer, not the connection. The panic itself is in the log.
pub async fn without_panic(answer: impl Future<Output = Response>) -> Response {
    // What the answer had borrowed is dropped with it, and locks tell those who take them next.
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        Refused::new(Code::Internal, "the node failed to answer; its log tells why").into_response()
    })
}

/// How long the body is, by its own word, if that is too long.
pub fn too_large(request: &Request) -> Option<u64> {
    let length: u64 = request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    (length > super::MAX_BODY_BYTES as u64).then_some(length)
}

/// Refuses a body of that length. It is read all the same, within a bound: who is still sending when the
/// connection closes never sees the answer.
pub async fn discard(request: Request, length: u64) -> Response {
    if length <= super::MAX_DISCARDED_BYTES {
        let mut body = request.into_body().into_data_stream();
        while let Some(Ok(_)) = body.next().await {}
    }
    let detail = format!("the body has {length} bytes, and may have {}", super::MAX_BODY_BYTES);
    Refused::new(Code::BodyTooLarge, detail).into_response()
}

/// Answers that the framework made by itself get a body of ours.
pub fn in_our_words(uri: &Uri, response: Response) -> Response {
    let ours = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() != b"text/plain; charset=utf-8");
    if ours || !response.status().is_client_error() {
        return response;
    }
    let path = uri.path();
    let (code, detail) = match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            (Code::BodyTooLarge, format!("the body may have {} bytes", super::MAX_BODY_BYTES))
        }
        StatusCode::NOT_FOUND => (Code::UnknownRoute, format!("there is nothing at {path}")),
        _ => (Code::InvalidRequest, format!("{path} does not take this request")),
    };
    Refused::new(code, detail).into_response()
}
