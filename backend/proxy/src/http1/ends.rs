//! The ends of connections that speak HTTP/1, as [`crate::relay`] sees them: bodies without
//! their framing, and without trailers.

use super::Manner;
use crate::{
    ask::Ask,
    body,
    buffer::Buffer,
    course::Failure,
    head::{self, Asked, Framing, MAX_INTERIM, bad},
    headers::{self, Sink as _},
    relay::{self, Piece, Sink, Source, Torn},
    table::Route,
};
use bytes::Bytes;
use hyper::{HeaderMap, http::response::Parts};
use std::{
    future::poll_fn,
    io::Write,
    pin::pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncWriteExt, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

/// Ends when the client does not listen any more. One that sends its next request already is not watched.
pub async fn hung_up(client: &TcpStream) {
    poll_fn(|context| poll_hung_up(client, context)).await;
}

/// Costs a system call only once something has come.
fn poll_hung_up(client: &TcpStream, context: &mut Context<'_>) -> Poll<()> {
    match ready!(client.poll_peek(context, &mut ReadBuf::new(&mut [0]))) {
        Ok(1..) => Poll::Pending,
        Ok(0) | Err(_) => Poll::Ready(()),
    }
}

/// Does `work`; none where `other` ends first.
pub async fn unless<T>(other: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    let (mut other, mut work) = (pin!(other), pin!(work));
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => other.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// Writes the head that the client gets, and says whether it may send another request. `line` is
/// what the status line says, and how the body is framed.
pub(super) fn write_head<'h>(
    line: (u16, &str, Framing),
    fields: impl Iterator<Item = (&'h str, &'h [u8])> + Clone,
    named: impl Fn(&str) -> bool,
    route: &Route,
    sticky: Option<u64>,
    manner: Manner,
    out: &mut Vec<u8>,
) -> bool {
    let (status, reason, framing) = line;
    let switched = status == 101;
    let framing = match framing {
        // Who does not know chunks is told the end by the connection's.
        Framing::Chunked if !manner.http11 => Framing::Close,
        framing => framing,
    };
    let keep_alive = manner.keep_alive && framing != Framing::Close && !switched;
    // A vector takes all that is written.
    let _ = write!(out, "HTTP/1.1 {status} {reason}\r\n");
    headers::response(fields.clone(), named, route, sticky, out);
    if switched {
        out.header("connection", b"upgrade");
        let upgrade = fields.clone().find(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        out.header("upgrade", upgrade.map_or(b"", |(_, value)| value));
    } else {
        if framing == Framing::Chunked {
            out.header("transfer-encoding", b"chunked");
        }
        match (keep_alive, manner.http11) {
            (false, _) => out.header("connection", b"close"),
            (true, false) => out.header("connection", b"keep-alive"),
            (true, true) => {}
        }
    }
    out.extend_from_slice(b"\r\n");
    keep_alive
}

/// A body that comes.
#[derive(Debug)]
pub struct Body<'a> {
    read: ReadHalf<'a>,
    arrived: &'a mut Buffer,
    body: body::Body,
    touched: bool,
}

impl<'a> Body<'a> {
    pub fn new(read: ReadHalf<'a>, arrived: &'a mut Buffer, framing: Framing) -> Body<'a> {
        Body { read, arrived, body: body::Body::new(framing).unframed(), touched: false }
    }
}

impl Source for Body<'_> {
    async fn piece(&mut self) -> Result<Piece, Torn> {
        loop {
            let mut data = Vec::new();
            let used = self.body.take(self.arrived.filled(), &mut data).map_err(|_| Torn::Malformed)?;
            self.arrived.consume(used);
            self.touched |= used > 0;
            if !data.is_empty() {
                return Ok(Piece::Data(data.into()));
            }
            if self.body.is_done() {
                return Ok(Piece::End(None));
            }
            match self.arrived.read_from(&mut self.read).await {
                Ok(1..) => {}
                Ok(0) if self.body.may_end() => return Ok(Piece::End(None)),
                Ok(0) | Err(_) => return Err(Torn::Gone),
            }
        }
    }
}

impl relay::Request for Body<'_> {
    fn is_untouched(&self) -> bool {
        !self.touched
    }
}

/// A body that goes.
#[derive(Debug)]
pub struct Outgoing<'a> {
    write: WriteHalf<'a>,
    shape: Shape,
    framed: Vec<u8>,
}

/// What goes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// There is none, whatever its sender says. What came all the same would be read as the next message.
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

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Torn> {
        self.write.write_all(bytes).await.map_err(|_| Torn::Gone)
    }
}

impl Sink for Outgoing<'_> {
    async fn data(&mut self, data: Bytes) -> Result<(), Torn> {
        // An empty chunk would be the last.
        if data.is_empty() {
            return Ok(());
        }
        match self.shape {
            Shape::Nothing => return Err(Torn::Malformed),
            Shape::Plain => return self.write(&data).await,
            Shape::Chunks => {}
        }
        self.framed.clear();
        // A vector takes all that is written.
        let _ = write!(self.framed, "{:x}\r\n", data.len());
        self.framed.extend_from_slice(&data);
        self.framed.extend_from_slice(b"\r\n");
        self.write.write_all(&self.framed).await.map_err(|_| Torn::Gone)
    }

    async fn end(&mut self, _trailers: Option<HeaderMap>) -> Result<(), Torn> {
        if self.shape == Shape::Chunks { self.write(b"0\r\n\r\n").await } else { Ok(()) }
    }
}

/// What an endpoint answers.
#[derive(Debug)]
pub struct Answer<'a> {
    body: Body<'a>,
    head: bool,
    interim: u32,
    keeps_alive: bool,
}

impl<'a> Answer<'a> {
    /// `head`: it was asked for a head alone.
    pub fn new(read: ReadHalf<'a>, arrived: &'a mut Buffer, head: bool) -> Answer<'a> {
        Answer { body: Body::new(read, arrived, Framing::Empty), head, interim: 0, keeps_alive: false }
    }

    /// Whether the connection takes another request, now that this one was answered.
    pub fn keeps_alive(&self) -> bool {
        self.keeps_alive && self.body.body.is_done() && self.body.arrived.is_empty()
    }

    /// None while more has to come.
    fn read(&mut self) -> Result<Option<(Parts, bool)>, Failure> {
        let asked = Asked { head: self.head, upgrade: false };
        while !self.body.arrived.is_empty() {
            let mut room = head::room();
            let parsed = head::response(self.body.arrived.filled(), &mut room, asked);
            let Some(head) = parsed.map_err(Failure::Untrusted)? else { break };
            let len = head.len;
            if head.status < 200 {
                self.body.arrived.consume(len);
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err(Failure::Untrusted(head::never_final()));
                }
                continue;
            }
            let mut parts = hyper::Response::new(()).into_parts().0;
            parts.status =
                head.status.try_into().map_err(|_| Failure::Untrusted(bad("its status is none")))?;
            for header in head.headers {
                if !headers::belongs_to_connection(header.name) && !head.named.has(header.name) {
                    parts.headers.header(header.name, header.value);
                }
            }
            self.keeps_alive = head.keeps_alive;
            self.body.body = body::Body::new(head.framing).unframed();
            self.body.arrived.consume(len);
            let bare = self.body.body.is_done();
            return Ok(Some((parts, bare)));
        }
        Ok(None)
    }
}

impl Source for Answer<'_> {
    async fn piece(&mut self) -> Result<Piece, Torn> {
        self.body.piece().await
    }
}

impl relay::Answer for Answer<'_> {
    async fn head(&mut self) -> Result<(Parts, bool), Failure> {
        loop {
            if let Some(head) = self.read()? {
                return Ok(head);
            }
            if self.body.arrived.is_full() {
                return Err(Failure::Untrusted(bad("its head is too large")));
            }
            match self.body.arrived.read_from(&mut self.body.read).await {
                Ok(1..) => {}
                Ok(0) => {
                    return Err(Failure::Unanswered("closed the connection without an answer".to_owned()));
                }
                Err(error) => return Err(Failure::Unanswered(format!("no answer: {error}"))),
            }
        }
    }
}

/// What a client is told.
#[derive(Debug)]
pub struct Reply<'a> {
    out: Outgoing<'a>,
    head: bool,
    manner: Manner,
    keeps_alive: bool,
}

impl<'a> Reply<'a> {
    pub(super) fn new(write: WriteHalf<'a>, ask: &Ask<'_>, manner: Manner) -> Reply<'a> {
        Reply { out: Outgoing::new(write, Framing::Empty), head: ask.head, manner, keeps_alive: false }
    }

    /// Tells a client to send its body that waits for that.
    pub(super) async fn go_on(&mut self) -> Result<(), Failure> {
        match self.manner {
            Manner { http11: true, expects_continue: true, .. } => {
                let told = self.out.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
                told.map_err(|_| Failure::ClientGone)
            }
            _ => Ok(()),
        }
    }

    /// Whether the client may send another request, now that this one was answered.
    pub fn keeps_alive(&self) -> bool {
        self.keeps_alive
    }
}

impl Sink for Reply<'_> {
    async fn data(&mut self, data: Bytes) -> Result<(), Torn> {
        self.out.data(data).await
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Torn> {
        self.out.end(trailers).await
    }
}

impl relay::Reply for Reply<'_> {
    async fn head(
        &mut self,
        mut head: Parts,
        bare: bool,
        route: &Route,
        sticky: Option<u64>,
    ) -> Result<(), Torn> {
        let status = head.status.as_u16();
        let has_length = head.headers.contains_key("content-length");
        let framing = match status {
            _ if self.head => Framing::Empty,
            204 | 304 => Framing::Empty,
            _ if bare && !has_length => {
                head.headers.header("content-length", b"0");
                Framing::Empty
            }
            // The other protocol sees to it that it is as long as it says.
            _ if has_length => Framing::Length(0),
            _ => Framing::Chunked,
        };
        self.out.shape = match framing {
            Framing::Empty => Shape::Nothing,
            Framing::Chunked if self.manner.http11 => Shape::Chunks,
            _ => Shape::Plain,
        };
        let reason = head.status.canonical_reason().unwrap_or_default();
        let fields: Vec<_> = headers::fields(&head.headers).collect();
        let fields = fields.iter().copied();
        let mut out = Vec::new();
        let line = (status, reason, framing);
        self.keeps_alive = write_head(line, fields, |_| false, route, sticky, self.manner, &mut out);
        self.out.write(&out).await
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        poll_hung_up(self.out.write.as_ref(), context)
    }
}
