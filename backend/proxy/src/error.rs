//! Why an attempt to forward a request failed: data without behaviour, which every layer may use.

use crate::{outcome::ErrorKind, timer::WaitError};
use ringmaster_common::error::{Code, Refusal};
use std::time::Duration;

/// Why an attempt at one endpoint gave the client no response.
#[derive(Debug)]
pub enum UpstreamError {
    /// The endpoint cannot have seen the request.
    ConnectFailed(String),
    /// The endpoint may have seen the request.
    NoResponse(String),
    Timeout(String),
    /// The response breaks the protocol.
    InvalidResponse(Refusal),
    /// The endpoint is drained, and the time for requests in flight is over.
    DrainDeadline,
    /// The client's request is wrong.
    BadRequest(Refusal),
    /// The client closed its connection, or reset its stream.
    ClientClosed,
}

impl UpstreamError {
    /// From a wait that ended early: `what` did not happen within `limit`.
    pub fn late(error: WaitError, what: &str, limit: Duration) -> UpstreamError {
        match error {
            WaitError::TimedOut => UpstreamError::Timeout(format!("{what} within {} ms", limit.as_millis())),
            WaitError::Cancelled => UpstreamError::DrainDeadline,
        }
    }

    /// What the client gets if the request is not sent again; none if the client is gone.
    pub fn into_refusal(self, endpoint: &str) -> Option<Refusal> {
        let refusal =
            |code, detail: String| Some(Refusal::new(code, format!("endpoint {endpoint}: {detail}")));
        match self {
            UpstreamError::ConnectFailed(detail) | UpstreamError::NoResponse(detail) => {
                refusal(Code::BadGateway, detail)
            }
            UpstreamError::InvalidResponse(response) => refusal(Code::BadGateway, response.detail),
            UpstreamError::Timeout(detail) => refusal(Code::GatewayTimeout, detail),
            UpstreamError::DrainDeadline => {
                refusal(Code::BadGateway, "drained before the response was complete".to_owned())
            }
            UpstreamError::BadRequest(refusal) => Some(refusal),
            UpstreamError::ClientClosed => None,
        }
    }

    /// What counts against the endpoint; none if the endpoint did nothing wrong.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            UpstreamError::ConnectFailed(_) => Some(ErrorKind::ConnectFailed),
            UpstreamError::NoResponse(_) => Some(ErrorKind::NoResponse),
            UpstreamError::Timeout(_) => Some(ErrorKind::Timeout),
            UpstreamError::InvalidResponse(_) => Some(ErrorKind::InvalidResponse),
            UpstreamError::DrainDeadline | UpstreamError::BadRequest(_) | UpstreamError::ClientClosed => None,
        }
    }
}
