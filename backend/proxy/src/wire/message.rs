//! Messages without their protocol: a body comes and goes in chunks, whether by HTTP/1 or by HTTP/2.

use crate::error::UpstreamError;
use bytes::Bytes;
use hyper::{HeaderMap, http::response::Parts};

#[derive(Clone, Debug)]
pub enum BodyChunk {
    Data(Bytes),
    /// With trailers, if there are any.
    End(Option<HeaderMap>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// The other side is gone.
    Closed,
    Malformed,
}

/// Where a body comes from.
pub trait BodySource: Send {
    fn chunk(&mut self) -> impl Future<Output = Result<BodyChunk, StreamError>> + Send;
}

/// Where a body goes. A call returns once the other side has room for more.
pub trait BodySink: Send {
    fn data(&mut self, data: Bytes) -> impl Future<Output = Result<(), StreamError>> + Send;
    fn end(&mut self, trailers: Option<HeaderMap>) -> impl Future<Output = Result<(), StreamError>> + Send;
}

/// The response of an endpoint: first its head, then its body.
pub trait ResponseSource: BodySource {
    /// The head without headers of the connection; and whether there is no body.
    fn head(&mut self) -> impl Future<Output = Result<(Parts, bool), UpstreamError>> + Send;
}
