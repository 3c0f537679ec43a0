//! Why an attempt to forward a request failed: data without behaviour, which every layer may use.

use crate::{outcome::ErrorKind, timer::WaitError};
use ringmaster_common::error::{Code, Refusal};
use std::time::Duration;

/// Why an attempt at one endpoint gave the client no response.
#[derive(Debug)]
pub enum UpstreamError {
    /// The endpoint cannot have seen the request.
    ConnectFailed(String),
    /// The endpoint says that it has not processed the request.
    Unprocessed(String),
    /// A connection that had carried other requests ended before the response began. The endpoint had probably closed it
    /// already; it may have seen the request all the same.
    Stale(String),
    /// The endpoint may have seen the request.
    NoResponse(String),
    Timeout(String),
    /// The response breaks the protocol.
    InvalidResponse(Refusal),
    /// The head of the response is beyond the bounds of this proxy.
    HeadTooLarge(String),
    /// The endpoint is drained, and the time for requests in flight is over.
    DrainDeadline,
    /// The client's request is wrong.
    BadRequest(Refusal),
    /// The client closed its connection, or reset its stream.
    ClientClosed,
}

impl UpstreamError {
    /// From the parser's refusal of a response.
    pub fn invalid(response: Refusal) -> UpstreamError {
        match response.code {
            Code::HeadTooLarge => UpstreamError::HeadTooLarge(response.detail),
            _ => UpstreamError::InvalidResponse(response),
        }
    }

    /// The same where it says that the connection was not what it seemed to be, because it had waited for this request: it
    /// was closed, or held bytes that nothing had asked for. Only before the first byte of the response.
    pub fn on_used_connection(self) -> UpstreamError {
        match self {
            UpstreamError::NoResponse(detail) => UpstreamError::Stale(detail),
            UpstreamError::InvalidResponse(response) => UpstreamError::Stale(response.detail),
            error => error,
        }
    }

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
            UpstreamError::ConnectFailed(detail)
            | UpstreamError::Unprocessed(detail)
            | UpstreamError::Stale(detail)
            | UpstreamError::NoResponse(detail)
            | UpstreamError::HeadTooLarge(detail) => refusal(Code::BadGateway, detail),
            UpstreamError::InvalidResponse(response) => refusal(Code::BadGateway, response.detail),
            UpstreamError::Timeout(detail) => refusal(Code::GatewayTimeout, detail),
            UpstreamError::DrainDeadline => {
                refusal(Code::BadGateway, "drained before the response was complete".to_owned())
            }
            UpstreamError::BadRequest(refusal) => Some(refusal),
            UpstreamError::ClientClosed => None,
        }
    }

    /// How it is counted at the endpoint; none if the endpoint had no part in it.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            UpstreamError::ConnectFailed(_) => Some(ErrorKind::ConnectFailed),
            UpstreamError::Unprocessed(_) | UpstreamError::Stale(_) | UpstreamError::NoResponse(_) => {
                Some(ErrorKind::NoResponse)
            }
            UpstreamError::HeadTooLarge(_) => Some(ErrorKind::HeadTooLarge),
            UpstreamError::Timeout(_) => Some(ErrorKind::Timeout),
            UpstreamError::InvalidResponse(_) => Some(ErrorKind::InvalidResponse),
            UpstreamError::DrainDeadline | UpstreamError::BadRequest(_) | UpstreamError::ClientClosed => None,
        }
    }
}
