//! HTTP/2 streams: bodies, an endpoint's responses, and the limits of both directions.

use crate::{
    error::UpstreamError,
    wire::{
        head::{malformed, response_too_large},
        headers,
        message::{BodyChunk, BodySink, BodySource, ResponseSource, StreamError},
    },
};
use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{Builder, ResponseFuture},
};
use hyper::{HeaderMap, http::response::Parts};
use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, ready},
};

/// How many requests are in flight on one connection at a time, in either direction.
pub const MAX_STREAMS: u32 = 100;
/// How much of a body is on its way on each stream.
pub const STREAM_WINDOW: u32 = 128 << 10;
/// How much of all responses is on its way on a connection to an endpoint: a slow client holds up no other client.
const UPSTREAM_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// The size of a head, as HTTP/2 counts it.
pub const MAX_HEADER_LIST: u32 = 64 << 10;
/// The size of a response's head that the library reads. It calls a larger one a protocol error of the endpoint, so heads
/// beyond our own bound are read, too, and then refused in words.
const MAX_PARSED_HEADER_LIST: u32 = 4 * MAX_HEADER_LIST;
/// What HTTP/2 adds to the size of each field (RFC 9113, 6.5.2).
const FIELD_OVERHEAD: usize = 32;
/// How much waits to be sent on each stream.
pub const SEND_BUFFER: usize = 32 << 10;

/// For connections to endpoints.
pub fn client_builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(UPSTREAM_WINDOW)
        .max_header_list_size(MAX_PARSED_HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// Drives a connection for as long as the call on it is in flight. An answer that was read together with the connection's
/// end is an answer.
pub async fn drive<T>(
    connection: impl Future<Output = Result<(), h2::Error>>,
    call: impl Future<Output = Result<T, h2::Error>>,
) -> Result<T, String> {
    let (mut connection, mut call) = (pin!(connection), pin!(call));
    poll_fn(|context| {
        if let Poll::Ready(answer) = call.as_mut().poll(context) {
            return Poll::Ready(answer.map_err(|error| describe(&error)));
        }
        let ended = ready!(connection.as_mut().poll(context));
        Poll::Ready(match call.as_mut().poll(context) {
            Poll::Ready(Ok(answer)) => Ok(answer),
            Poll::Ready(Err(_)) | Poll::Pending => {
                Err(ended.err().map_or_else(|| "closed the connection".to_owned(), |error| describe(&error)))
            }
        })
    })
    .await
}

/// A body that arrives. Its sender may send more once the chunk before was taken.
#[derive(Debug)]
pub struct Body {
    stream: RecvStream,
    unreleased: usize,
}

impl Body {
    pub fn new(stream: RecvStream) -> Body {
        Body { stream, unreleased: 0 }
    }
}

impl BodySource for Body {
    async fn chunk(&mut self) -> Result<BodyChunk, StreamError> {
        chunk(&mut self.stream, &mut self.unreleased).await
    }
}

async fn chunk(stream: &mut RecvStream, unreleased: &mut usize) -> Result<BodyChunk, StreamError> {
    loop {
        let released = stream.flow_control().release_capacity(std::mem::take(unreleased));
        released.map_err(|_| StreamError::Closed)?;
        match stream.data().await {
            Some(Ok(data)) if data.is_empty() => {}
            Some(Ok(data)) => {
                *unreleased = data.len();
                return Ok(BodyChunk::Data(data));
            }
            Some(Err(error)) if error.is_remote() || error.is_io() => return Err(StreamError::Closed),
            Some(Err(_)) => return Err(StreamError::Malformed),
            None => {
                let trailers = stream.trailers().await.map_err(|_| StreamError::Closed)?;
                return Ok(BodyChunk::End(trailers.map(headers::trailers)));
            }
        }
    }
}

/// A body that is sent.
#[derive(Debug)]
pub struct Outgoing(SendStream<Bytes>);

impl Outgoing {
    pub fn new(stream: SendStream<Bytes>) -> Outgoing {
        Outgoing(stream)
    }

    /// Ready once the receiver has reset the stream.
    pub fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_reset(context).map(drop)
    }
}

impl BodySink for Outgoing {
    async fn data(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        while !data.is_empty() {
            self.0.reserve_capacity(data.len());
            if self.0.capacity() == 0 {
                match poll_fn(|context| self.0.poll_capacity(context)).await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(StreamError::Closed),
                }
            }
            let room = self.0.capacity().min(data.len());
            self.0.send_data(data.split_to(room), false).map_err(|_| StreamError::Closed)?;
        }
        Ok(())
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), StreamError> {
        let ended = match trailers {
            Some(trailers) => self.0.send_trailers(trailers),
            None => self.0.send_data(Bytes::new(), true),
        };
        ended.map_err(|_| StreamError::Closed)
    }
}

/// The response of an endpoint.
#[derive(Debug)]
pub struct Response {
    head: Option<ResponseFuture>,
    body: Option<RecvStream>,
    unreleased: usize,
    /// The request may be sent twice, and the connection was opened for another one.
    may_be_stale: bool,
}

impl Response {
    pub fn new(head: ResponseFuture, may_be_stale: bool) -> Response {
        Response { head: Some(head), body: None, unreleased: 0, may_be_stale }
    }
}

impl BodySource for Response {
    async fn chunk(&mut self) -> Result<BodyChunk, StreamError> {
        match &mut self.body {
            Some(body) => chunk(body, &mut self.unreleased).await,
            None => Err(StreamError::Closed),
        }
    }
}

impl ResponseSource for Response {
    async fn head(&mut self) -> Result<(Parts, bool), UpstreamError> {
        let Some(head) = &mut self.head else {
            return Err(UpstreamError::NoResponse("no response".to_owned()));
        };
        let response = head.await.map_err(|error| upstream_error(&error, self.may_be_stale))?;
        self.head = None;
        let (parts, body) = response.into_parts();
        if header_list_size(&parts.headers) > MAX_HEADER_LIST as usize {
            return Err(UpstreamError::invalid(response_too_large()));
        }
        if parts.headers.get_all("content-length").iter().count() > 1 {
            return Err(UpstreamError::InvalidResponse(malformed("there is more than one Content-Length")));
        }
        let bare = body.is_end_stream();
        self.body = Some(body);
        Ok((parts, bare))
    }
}

fn header_list_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
}

/// Why there is no response. A connection that ends, or has to be ended, takes all of its streams with it; which of them is
/// to blame shows when the others are sent again.
fn upstream_error(error: &h2::Error, may_be_stale: bool) -> UpstreamError {
    let is_of_connection = error.is_io() || error.is_go_away();
    let error = match (error.is_remote(), error.is_go_away(), error.reason()) {
        // A stream above the last one of a GOAWAY.
        (true, true, _) | (true, false, Some(Reason::REFUSED_STREAM)) => {
            return UpstreamError::Unprocessed(describe(error));
        }
        // The library does not read further than several times the bounds.
        (false, true, Some(Reason::ENHANCE_YOUR_CALM)) => UpstreamError::invalid(response_too_large()),
        (true, ..) => UpstreamError::NoResponse(describe(error)),
        _ if error.is_io() => UpstreamError::NoResponse(describe(error)),
        _ => UpstreamError::InvalidResponse(malformed(describe(error))),
    };
    if is_of_connection && may_be_stale { error.on_used_connection() } else { error }
}

pub fn describe(error: &h2::Error) -> String {
    format!("HTTP/2: {error}")
}
