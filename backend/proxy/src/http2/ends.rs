//! The ends of streams of HTTP/2, as [`crate::relay`] sees them.

use super::link;
use crate::{
    course::Failure,
    head::bad,
    headers,
    relay::{self, Piece, Sink, Source, Torn},
    table::Route,
};
use bytes::Bytes;
use h2::{RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use hyper::{HeaderMap, Response, http::response::Parts};
use std::{
    future::poll_fn,
    task::{Context, Poll},
};

/// A body that comes. Its sender may send more once the piece before has gone on.
#[derive(Debug)]
pub struct Body<'a> {
    stream: &'a mut RecvStream,
    unreleased: usize,
    touched: bool,
}

impl<'a> Body<'a> {
    pub fn new(stream: &'a mut RecvStream) -> Body<'a> {
        Body { stream, unreleased: 0, touched: false }
    }
}

impl Source for Body<'_> {
    async fn piece(&mut self) -> Result<Piece, Torn> {
        let piece = piece(self.stream, &mut self.unreleased).await;
        self.touched = true;
        piece
    }
}

impl relay::Request for Body<'_> {
    fn is_untouched(&self) -> bool {
        !self.touched
    }
}

async fn piece(stream: &mut RecvStream, unreleased: &mut usize) -> Result<Piece, Torn> {
    loop {
        let released = stream.flow_control().release_capacity(std::mem::take(unreleased));
        released.map_err(|_| Torn::Gone)?;
        match stream.data().await {
            Some(Ok(data)) if data.is_empty() => {}
            Some(Ok(data)) => {
                *unreleased = data.len();
                return Ok(Piece::Data(data));
            }
            Some(Err(error)) if error.is_remote() || error.is_io() => return Err(Torn::Gone),
            Some(Err(_)) => return Err(Torn::Malformed),
            None => {
                let trailers = stream.trailers().await.map_err(|_| Torn::Gone)?;
                return Ok(Piece::End(trailers.map(headers::trailers)));
            }
        }
    }
}

/// A body that goes.
#[derive(Debug)]
pub struct Outgoing(SendStream<Bytes>);

impl Outgoing {
    pub fn new(stream: SendStream<Bytes>) -> Outgoing {
        Outgoing(stream)
    }
}

impl Sink for Outgoing {
    async fn data(&mut self, mut data: Bytes) -> Result<(), Torn> {
        while !data.is_empty() {
            self.0.reserve_capacity(data.len());
            if self.0.capacity() == 0 {
                match poll_fn(|context| self.0.poll_capacity(context)).await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(Torn::Gone),
                }
            }
            let room = self.0.capacity().min(data.len());
            self.0.send_data(data.split_to(room), false).map_err(|_| Torn::Gone)?;
        }
        Ok(())
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Torn> {
        let ended = match trailers {
            Some(trailers) => self.0.send_trailers(trailers),
            None => self.0.send_data(Bytes::new(), true),
        };
        ended.map_err(|_| Torn::Gone)
    }
}

/// What an endpoint answers.
#[derive(Debug)]
pub struct Answer {
    head: Option<ResponseFuture>,
    body: Option<RecvStream>,
    unreleased: usize,
}

impl Answer {
    pub fn new(head: ResponseFuture) -> Answer {
        Answer { head: Some(head), body: None, unreleased: 0 }
    }
}

impl Source for Answer {
    async fn piece(&mut self) -> Result<Piece, Torn> {
        match &mut self.body {
            Some(body) => piece(body, &mut self.unreleased).await,
            None => Err(Torn::Gone),
        }
    }
}

impl relay::Answer for Answer {
    async fn head(&mut self) -> Result<(Parts, bool), Failure> {
        let Some(head) = &mut self.head else { return Err(Failure::Unanswered("no answer".to_owned())) };
        let answer = head.await.map_err(|error| link::failure(&error))?;
        self.head = None;
        let (parts, body) = answer.into_parts();
        if parts.headers.get_all("content-length").iter().count() > 1 {
            return Err(Failure::Untrusted(bad("there is more than one Content-Length")));
        }
        let bare = body.is_end_stream();
        self.body = Some(body);
        Ok((parts, bare))
    }
}

/// What a client is told.
#[derive(Debug)]
pub struct Reply<'a> {
    respond: &'a mut SendResponse<Bytes>,
    body: Option<Outgoing>,
}

impl<'a> Reply<'a> {
    pub fn new(respond: &'a mut SendResponse<Bytes>) -> Reply<'a> {
        Reply { respond, body: None }
    }
}

impl Sink for Reply<'_> {
    async fn data(&mut self, data: Bytes) -> Result<(), Torn> {
        match &mut self.body {
            Some(body) => body.data(data).await,
            None => Err(Torn::Gone),
        }
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Torn> {
        match &mut self.body {
            Some(body) => body.end(trailers).await,
            None => Err(Torn::Gone),
        }
    }
}

impl relay::Reply for Reply<'_> {
    async fn head(
        &mut self,
        head: Parts,
        bare: bool,
        route: &Route,
        sticky: Option<u64>,
    ) -> Result<(), Torn> {
        let mut answer = Response::new(());
        *answer.status_mut() = head.status;
        headers::response(headers::fields(&head.headers), |_| false, route, sticky, answer.headers_mut());
        let stream = self.respond.send_response(answer, bare).map_err(|_| Torn::Gone)?;
        self.body = Some(Outgoing(stream));
        Ok(())
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.body {
            Some(body) => body.0.poll_reset(context).map(drop),
            None => self.respond.poll_reset(context).map(drop),
        }
    }
}
