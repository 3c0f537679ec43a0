//! The client's side of an HTTP/1 connection, for responses that are relayed chunk by chunk.

use crate::{
    prepare::PreparedRequest,
    relay::ResponseSink,
    respond::{self, ClientCapabilities, StatusLine},
    table::Route,
    wire::{
        head::Framing,
        headers::{self, HeaderSink as _},
        http1::{Outgoing, Shape},
        message::{BodySink, StreamError},
    },
};
use bytes::Bytes;
use hyper::{HeaderMap, http::response::Parts};
use std::task::{Context, Poll};
use tokio::net::tcp::WriteHalf;

#[derive(Debug)]
pub struct Http1Client<'a> {
    out: Outgoing<'a>,
    /// The request was a HEAD request.
    is_head: bool,
    capabilities: ClientCapabilities,
    keeps_alive: bool,
}

impl<'a> Http1Client<'a> {
    pub fn new(
        write: WriteHalf<'a>,
        request: &PreparedRequest<'_>,
        capabilities: ClientCapabilities,
    ) -> Http1Client<'a> {
        let out = Outgoing::new(write, Framing::Empty);
        Http1Client { out, is_head: request.is_head, capabilities, keeps_alive: false }
    }

    /// Asks a client that waits for it to send its body.
    pub async fn send_continue(&mut self) -> Result<(), StreamError> {
        if self.capabilities.http11 && self.capabilities.expects_continue {
            return self.out.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        Ok(())
    }

    /// Whether the client may send another request after this response.
    pub fn keeps_alive(&self) -> bool {
        self.keeps_alive
    }
}

impl BodySink for Http1Client<'_> {
    async fn data(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.out.data(data).await
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), StreamError> {
        self.out.end(trailers).await
    }
}

impl ResponseSink for Http1Client<'_> {
    async fn head(
        &mut self,
        mut head: Parts,
        bare: bool,
        route: &Route,
        sticky: Option<u64>,
        is_sent: bool,
    ) -> Result<(), StreamError> {
        let status = head.status.as_u16();
        let has_length = head.headers.contains_key("content-length");
        let framing = match status {
            _ if self.is_head => Framing::Empty,
            204 | 304 => Framing::Empty,
            _ if bare && !has_length => {
                head.headers.header("content-length", b"0");
                Framing::Empty
            }
            // HTTP/2 itself checks that the body has this length.
            _ if has_length => Framing::Length(0),
            _ => Framing::Chunked,
        };
        self.out.set_shape(match framing {
            Framing::Empty => Shape::Nothing,
            Framing::Chunked if self.capabilities.http11 => Shape::Chunks,
            _ => Shape::Plain,
        });
        let reason = head.status.canonical_reason().unwrap_or_default();
        let fields: Vec<_> = headers::fields(&head.headers).collect();
        let fields = fields.iter().copied();
        let mut out = Vec::new();
        let line = StatusLine { status, reason, framing };
        // After a response that came before the end of the request, the begin of the next request is unknown.
        let client = self.capabilities.unless(!is_sent);
        self.keeps_alive = respond::write(line, fields, |_| false, route, sticky, client, &mut out);
        self.out.write(&out).await
    }

    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.out.poll_closed(context)
    }
}
