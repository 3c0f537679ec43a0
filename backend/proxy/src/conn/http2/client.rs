//! The client's side of an HTTP/2 stream.

use crate::{
    relay::ResponseSink,
    respond,
    table::Route,
    wire::{
        headers,
        http2::Outgoing,
        message::{BodySink, StreamError},
    },
};
use bytes::Bytes;
use h2::server::SendResponse;
use hyper::{HeaderMap, Response, http::response::Parts};
use std::task::{Context, Poll};

#[derive(Debug)]
pub struct Http2Client<'a> {
    respond: &'a mut SendResponse<Bytes>,
    body: Option<Outgoing>,
}

impl<'a> Http2Client<'a> {
    pub fn new(respond: &'a mut SendResponse<Bytes>) -> Http2Client<'a> {
        Http2Client { respond, body: None }
    }
}

impl BodySink for Http2Client<'_> {
    async fn data(&mut self, data: Bytes) -> Result<(), StreamError> {
        match &mut self.body {
            Some(body) => body.data(data).await,
            None => Err(StreamError::Closed),
        }
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), StreamError> {
        match &mut self.body {
            Some(body) => body.end(trailers).await,
            None => Err(StreamError::Closed),
        }
    }
}

impl ResponseSink for Http2Client<'_> {
    async fn head(
        &mut self,
        head: Parts,
        bare: bool,
        route: &Route,
        sticky: Option<u64>,
        _is_sent: bool,
    ) -> Result<(), StreamError> {
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        let fields = headers::fields(&head.headers);
        respond::headers(fields, |_| false, route, sticky, response.headers_mut());
        let stream = self.respond.send_response(response, bare).map_err(|_| StreamError::Closed)?;
        self.body = Some(Outgoing::new(stream));
        Ok(())
    }

    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.body {
            Some(body) => body.poll_reset(context),
            None => self.respond.poll_reset(context).map(drop),
        }
    }
}
