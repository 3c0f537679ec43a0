//! HTTP/1 on a connection: bodies without their framing and without trailers, and an endpoint's responses.

use crate::{
    error::UpstreamError,
    wire::{
        body,
        buffer::Buffer,
        head::{self, Framing, MAX_INTERIM, RequestFacts, malformed},
        headers::{HeaderSink as _, is_hop_by_hop},
        message::{BodyChunk, BodySink, BodySource, ResponseSource, StreamError},
    },
};
use bytes::Bytes;
use hyper::{HeaderMap, http::response::Parts};
use std::{
    future::poll_fn,
    io::Write,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncWriteExt, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

/// The status by which servers end a connection that has been idle for long, unasked.
pub const REQUEST_TIMEOUT: u16 = 408;
pub const UNSOLICITED: &str = "ended the connection with status 408";

/// Ends when the client closes its connection. A client that sends its next request already is not watched.
pub async fn closed(client: &TcpStream) {
    poll_fn(|context| poll_closed(client, context)).await;
}

/// Costs a system call only once something has arrived.
pub fn poll_closed(client: &TcpStream, context: &mut Context<'_>) -> Poll<()> {
    match ready!(client.poll_peek(context, &mut ReadBuf::new(&mut [0]))) {
        Ok(1..) => Poll::Pending,
        Ok(0) | Err(_) => Poll::Ready(()),
    }
}

/// A body that arrives.
#[derive(Debug)]
pub struct Body<'a> {
    read: ReadHalf<'a>,
    received: &'a mut Buffer,
    body: body::Body,
}

impl<'a> Body<'a> {
    /// `body` is what is still to come of it.
    pub fn new(read: ReadHalf<'a>, received: &'a mut Buffer, body: body::Body) -> Body<'a> {
        Body { read, received, body: body.unframed() }
    }

    /// What is still to come.
    pub fn into_rest(self) -> body::Body {
        self.body
    }
}

impl BodySource for Body<'_> {
    async fn chunk(&mut self) -> Result<BodyChunk, StreamError> {
        loop {
            let mut data = Vec::new();
            let used =
                self.body.take(self.received.filled(), &mut data).map_err(|_| StreamError::Malformed)?;
            self.received.consume(used);
            if !data.is_empty() {
                return Ok(BodyChunk::Data(data.into()));
            }
            if self.body.is_done() {
                return Ok(BodyChunk::End(None));
            }
            match self.received.read_from(&mut self.read).await {
                Ok(1..) => {}
                Ok(0) if self.body.may_end() => return Ok(BodyChunk::End(None)),
                Ok(0) | Err(_) => return Err(StreamError::Closed),
            }
        }
    }
}

/// A body that is sent.
#[derive(Debug)]
pub struct Outgoing<'a> {
    write: WriteHalf<'a>,
    shape: Shape,
    framed: Vec<u8>,
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Not at all, even if its sender has one: the receiver would take it for the next message.
    Nothing,
    Plain,
    Chunks,
}

impl<'a> Outgoing<'a> {
    pub fn new(write: WriteHalf<'a>, framing: Framing) -> Outgoing<'a> {
        let shape = match framing {
            Framing::Empty => Shape::Nothing,
            Framing::Chunked => Shape::Chunks,
            Framing::Length(_) | Framing::Close => Shape::Plain,
        };
        Outgoing { write, shape, framed: Vec::new() }
    }

    pub fn set_shape(&mut self, shape: Shape) {
        self.shape = shape;
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.write.write_all(bytes).await.map_err(|_| StreamError::Closed)
    }

    /// Ready once the other side has closed the connection.
    pub fn poll_closed(&self, context: &mut Context<'_>) -> Poll<()> {
        poll_closed(self.write.as_ref(), context)
    }
}

impl BodySink for Outgoing<'_> {
    async fn data(&mut self, data: Bytes) -> Result<(), StreamError> {
        // An empty chunk would be the last.
        if data.is_empty() {
            return Ok(());
        }
        match self.shape {
            Shape::Nothing => return Err(StreamError::Malformed),
            Shape::Plain => return self.write(&data).await,
            Shape::Chunks => {}
        }
        self.framed.clear();
        // Writing to a vector cannot fail.
        let _ = write!(self.framed, "{:x}\r\n", data.len());
        self.framed.extend_from_slice(&data);
        self.framed.extend_from_slice(b"\r\n");
        self.write.write_all(&self.framed).await.map_err(|_| StreamError::Closed)
    }

    async fn end(&mut self, _trailers: Option<HeaderMap>) -> Result<(), StreamError> {
        if self.shape == Shape::Chunks { self.write(b"0\r\n\r\n").await } else { Ok(()) }
    }
}

/// The response of an endpoint.
#[derive(Debug)]
pub struct Response<'a> {
    body: Body<'a>,
    request: RequestFacts,
    /// The request may be sent twice, and the connection has carried others before.
    may_be_stale: bool,
    interim: u32,
    keeps_alive: bool,
    pub keep_alive_s: Option<u32>,
}

impl<'a> Response<'a> {
    pub fn new(
        read: ReadHalf<'a>,
        received: &'a mut Buffer,
        request: RequestFacts,
        may_be_stale: bool,
    ) -> Response<'a> {
        let body = Body::new(read, received, body::Body::new(Framing::Empty));
        Response { body, request, may_be_stale, interim: 0, keeps_alive: false, keep_alive_s: None }
    }

    /// Whether the connection takes another request after this response.
    pub fn keeps_alive(&self) -> bool {
        self.keeps_alive && self.body.body.is_done() && self.body.received.is_empty()
    }

    /// None if the head is not complete.
    fn parse_head(&mut self) -> Result<Option<(Parts, bool)>, UpstreamError> {
        while !self.body.received.is_empty() {
            let mut room = head::room();
            let parsed = head::response(self.body.received.filled(), &mut room, self.request);
            let Some(head) = parsed.map_err(UpstreamError::invalid)? else { break };
            let len = head.len;
            if head.status < 200 {
                self.body.received.consume(len);
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err(UpstreamError::invalid(head::too_many_interim()));
                }
                continue;
            }
            if head.status == REQUEST_TIMEOUT && self.may_be_stale {
                return Err(UpstreamError::Stale(UNSOLICITED.to_owned()));
            }
            let mut parts = hyper::Response::new(()).into_parts().0;
            parts.status = head
                .status
                .try_into()
                .map_err(|_| UpstreamError::InvalidResponse(malformed("the status is invalid")))?;
            for header in head.headers {
                if !is_hop_by_hop(header.name) && !head.named.has(header.name) {
                    parts.headers.header(header.name, header.value);
                }
            }
            (self.keeps_alive, self.keep_alive_s) = (head.keeps_alive, head.keep_alive_s);
            self.body.body = body::Body::new(head.framing).unframed();
            self.body.received.consume(len);
            let bare = self.body.body.is_done();
            return Ok(Some((parts, bare)));
        }
        Ok(None)
    }
}

impl BodySource for Response<'_> {
    async fn chunk(&mut self) -> Result<BodyChunk, StreamError> {
        self.body.chunk().await
    }
}

impl ResponseSource for Response<'_> {
    async fn head(&mut self) -> Result<(Parts, bool), UpstreamError> {
        let head = self.read_head().await;
        // Bytes without a whole head are a response that began.
        let began = |error: &UpstreamError| {
            self.interim > 0
                || matches!(error, UpstreamError::NoResponse(_)) && !self.body.received.is_empty()
        };
        match head {
            Err(error) if self.may_be_stale && !began(&error) => Err(error.on_used_connection()),
            head => head,
        }
    }
}

impl Response<'_> {
    async fn read_head(&mut self) -> Result<(Parts, bool), UpstreamError> {
        loop {
            if let Some(head) = self.parse_head()? {
                return Ok(head);
            }
            if self.body.received.is_full() {
                return Err(UpstreamError::invalid(head::response_too_large()));
            }
            match self.body.received.read_from(&mut self.body.read).await {
                Ok(1..) => {}
                Ok(0) => {
                    let detail = "closed the connection without a response".to_owned();
                    return Err(UpstreamError::NoResponse(detail));
                }
                Err(error) => return Err(UpstreamError::NoResponse(format!("no response: {error}"))),
            }
        }
    }
}
