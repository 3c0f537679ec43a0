//! A client's HTTP/1 connection: one request after the other.
//!
//! One task serves a connection and talks to endpoints itself: no request is handed from task to task. It reads a head,
//! has it routed, and forwards it by an [`exchange`]. If it refuses a request, the bytes that may follow are not taken
//! for the next request.

mod client;
mod exchange;

use crate::{
    coarse_clock::CoarseInstant,
    conn::context::{HEAD_TIMEOUT, KEEP_ALIVE_TIMEOUT, MAX_LOGGED_TARGET, RESPONSE_TIMEOUT, WorkerContext},
    forward::{Forwarded, Forwarding},
    outcome::ResponseEnd,
    prepare::{Client, PreparedRequest, RequestLine},
    random::Random,
    refusals,
    replay::Replay,
    respond::ClientCapabilities,
    route,
    table::Table,
    timer::{Deadline, Timer, WaitError, never},
    wire::{
        body::Body,
        buffer::Buffer,
        head::{self, Framing, RequestHead, malformed},
        headers,
    },
};
use arc_swap::{ArcSwap, Cache};
use exchange::Http1Exchange;
use ringmaster_common::error::{Code, Refusal};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// How long a client may take to close a connection that the proxy closes. If bytes of the client were still on their
/// way, closing at once would reset the connection, and the client might never see the response.
const LINGER: Duration = Duration::from_secs(1);
/// The same for a client that has not sent all of its request: how long in all, and how long between two bytes. Many
/// clients look for a response only once they have sent everything. What they send is discarded.
const MAX_LINGER: Duration = Duration::from_secs(30);
const LINGER_PAUSE: Duration = Duration::from_secs(5);
/// How long a connection waits for its next request before it gives back memory. A busy one would need it again.
const RELEASE_AFTER: Duration = Duration::from_secs(1);
/// The beginning of an HTTP/2 connection, as far as it looks like HTTP/1.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2";

/// Follows the routing table at no cost while it stays the same.
type Tables = Cache<Arc<ArcSwap<Table>>, Arc<Table>>;

#[derive(Debug)]
pub struct Http1Connection {
    stream: TcpStream,
    /// Only the beginning of the first request was read.
    is_fresh: bool,
    /// What arrived and is not used yet.
    received: Buffer,
    /// The head that the endpoint gets.
    request: Vec<u8>,
    /// What arrived from the endpoint.
    endpoint_received: Buffer,
    /// What the client gets.
    response: Vec<u8>,
    peer: SocketAddr,
    peer_text: String,
    timer: Timer,
    random: Random,
    context: Arc<WorkerContext>,
    listener: Option<Arc<str>>,
}

/// A connection that turned out to speak HTTP/2, with what was read of it.
#[derive(Debug)]
pub struct Http2Preface {
    pub stream: TcpStream,
    pub received: Buffer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterResponse {
    /// The client may send another request.
    KeepAlive,
    /// What is on its way is read before the connection is closed.
    Close,
    /// The same, but the client has not sent all of its request yet.
    CloseUnread,
    CloseNow,
    /// The connection is reset, so that the client sees that the response is not complete.
    Reset,
}

/// How the wait for a head ended.
enum ReadHead<'t> {
    Request(PreparedRequest<'t>, ClientCapabilities),
    /// The head was read, and its request is refused.
    Refused(Refusal, Refused),
    /// The head could not be read.
    Unreadable(Refusal),
    Http2,
    Closed,
}

/// How a refused request is answered.
#[derive(Clone, Copy)]
struct Refused {
    client: ClientCapabilities,
    /// Nothing of the request is still to come.
    is_read: bool,
    is_head: bool,
}

impl Refused {
    const UNREADABLE: Refused = Refused {
        client: ClientCapabilities { http11: true, expects_continue: false, keep_alive: false },
        is_read: false,
        is_head: false,
    };
}

impl Http1Connection {
    pub fn new(
        stream: TcpStream,
        peer: SocketAddr,
        listener: Option<Arc<str>>,
        context: Arc<WorkerContext>,
    ) -> Http1Connection {
        Http1Connection {
            stream,
            is_fresh: true,
            received: Buffer::default(),
            request: Vec::new(),
            endpoint_received: Buffer::default(),
            response: Vec::new(),
            peer,
            peer_text: headers::addr_text(peer.ip()),
            timer: Timer::new(),
            random: Random::seeded(),
            context,
            listener,
        }
    }

    /// Serves until the connection ends, or turns out to speak HTTP/2.
    pub async fn serve(mut self) -> Option<Http2Preface> {
        let mut tables: Tables = Cache::new(self.context.tables.clone());
        while self.first_byte().await {
            let after = match self.read_head(&mut tables).await {
                ReadHead::Request(request, client) => self.forward(request, client).await,
                ReadHead::Refused(refusal, refused) => self.refuse(refusal, refused).await,
                ReadHead::Unreadable(refusal) => {
                    self.context.refusals.record(self.peer.ip(), "", &refusal);
                    self.refuse(refusal, Refused::UNREADABLE).await
                }
                ReadHead::Http2 => {
                    return Some(Http2Preface { stream: self.stream, received: self.received });
                }
                ReadHead::Closed => return None,
            };
            self.is_fresh = false;
            match after {
                AfterResponse::KeepAlive => {}
                AfterResponse::Close => {
                    self.linger(LINGER, LINGER).await;
                    return None;
                }
                AfterResponse::CloseUnread => {
                    self.linger(LINGER_PAUSE, MAX_LINGER).await;
                    return None;
                }
                AfterResponse::CloseNow => return None,
                AfterResponse::Reset => {
                    // This fails only if the connection is gone already.
                    let _ = self.stream.set_zero_linger();
                    return None;
                }
            }
        }
        None
    }

    /// Waits for a request. A proxy that closes takes no more requests on idle connections.
    async fn first_byte(&mut self) -> bool {
        if !self.received.is_empty() {
            return true;
        }
        let closing = |_: CoarseInstant| self.context.is_closing();
        let read = self.received.read_from(&mut self.stream);
        let mut read = self.timer.within(&mut Deadline::after(RELEASE_AFTER), closing, read).await;
        if matches!(read, Err(WaitError::TimedOut)) {
            self.received = Buffer::default();
            self.endpoint_received = Buffer::default();
            (self.request, self.response) = (Vec::new(), Vec::new());
            let more = self.received.read_from(&mut self.stream);
            let rest = KEEP_ALIVE_TIMEOUT - RELEASE_AFTER;
            read = self.timer.within(&mut Deadline::after(rest), closing, more).await;
        }
        matches!(read, Ok(Ok(1..)))
    }

    /// A request is routed by the table of when its head is complete.
    async fn read_head<'t>(&mut self, tables: &'t mut Tables) -> ReadHead<'t> {
        let mut deadline = Deadline::after(HEAD_TIMEOUT);
        // Only the end of a line can complete a head; to parse it again for each byte would be expensive.
        let mut parsed = 0;
        loop {
            let mut room = head::room();
            let filled = self.received.filled();
            let head = match parsed {
                1.. if !filled[parsed..].contains(&b'\n') => Ok(None),
                _ => head::request(filled, &mut room),
            };
            parsed = filled.len();
            match head {
                Ok(Some(head)) => {
                    let len = head.len;
                    let keep_alive = !head.named.close && (head.minor > 0 || head.named.keep_alive);
                    let client = ClientCapabilities {
                        http11: head.minor > 0,
                        expects_continue: head.expects_continue,
                        keep_alive,
                    };
                    let from = Client {
                        ip: self.peer.ip(),
                        addr: &self.peer_text,
                        host: head.host,
                        listener: self.listener.as_deref(),
                    };
                    let request = prepare(&head, from, tables.load(), &mut self.random, &mut self.request);
                    let read = match request {
                        Ok(request) => ReadHead::Request(request, client),
                        Err(refusal) => {
                            let line = format!("{} {:.MAX_LOGGED_TARGET$}", head.method, head.target);
                            self.context.refusals.record(self.peer.ip(), &line, &refusal);
                            let is_ambiguous = refusal.code == Code::InvalidRequest;
                            let is_read = head.framing == Framing::Empty && !is_ambiguous;
                            let is_head = head.method == "HEAD" && !is_ambiguous;
                            ReadHead::Refused(refusal, Refused { client, is_read, is_head })
                        }
                    };
                    self.received.consume(len);
                    return read;
                }
                Ok(None) if self.received.is_full() => return ReadHead::Unreadable(head::too_large()),
                Ok(None) => {}
                Err(_) if self.is_fresh && self.received.filled().starts_with(HTTP2_PREFACE) => {
                    return ReadHead::Http2;
                }
                Err(refusal) => return ReadHead::Unreadable(refusal),
            }
            let read = self.received.read_from(&mut self.stream);
            match self.timer.within(&mut deadline, never, read).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return ReadHead::Closed,
                Err(_) => {
                    let detail = format!("the head did not arrive within {} s", HEAD_TIMEOUT.as_secs());
                    return ReadHead::Unreadable(Refusal::new(Code::RequestTimeout, detail));
                }
            }
        }
    }

    async fn forward(&mut self, request: PreparedRequest<'_>, client: ClientCapabilities) -> AfterResponse {
        let line = &self.request[..request.line_len];
        let forwarding = Forwarding::new(request.route, request.hints, self.peer.ip(), line);
        let mut exchange = Http1Exchange {
            stream: &mut self.stream,
            received: &mut self.received,
            request: &request,
            head: &self.request,
            endpoint_received: &mut self.endpoint_received,
            response: &mut self.response,
            timer: &mut self.timer,
            peer: self.peer,
            context: &self.context,
            client,
            body: Body::new(request.framing),
            replay: Replay::new(request.http2.is_some()),
            is_continued: false,
            keep_alive: false,
            is_sent: false,
            tunnel_to: None,
        };
        let WorkerContext { worker, tables, .. } = &*self.context;
        let forwarded = forwarding.run(&mut exchange, *worker, tables, &mut self.random).await;
        match forwarded {
            Forwarded::Responded(ResponseEnd::Complete) if exchange.keep_alive => AfterResponse::KeepAlive,
            Forwarded::Responded(ResponseEnd::Complete) if exchange.is_sent => AfterResponse::Close,
            Forwarded::Responded(ResponseEnd::Complete) => AfterResponse::CloseUnread,
            Forwarded::Responded(ResponseEnd::Truncated | ResponseEnd::TimedOut | ResponseEnd::Abandoned) => {
                AfterResponse::Reset
            }
            Forwarded::Refused(refusal) => {
                let is_read = request.framing == Framing::Empty;
                self.refuse(refusal, Refused { client, is_read, is_head: request.is_head }).await
            }
            Forwarded::ClientClosed => AfterResponse::CloseNow,
        }
    }

    /// Responds without an endpoint.
    async fn refuse(&mut self, refusal: Refusal, refused: Refused) -> AfterResponse {
        let Refused { client, is_read, is_head } = refused;
        let keep_alive = client.keep_alive && is_read && !self.context.is_closing();
        // A client that was too slow does not get more time.
        let is_late = refusal.code == Code::RequestTimeout;
        self.response.clear();
        refusals::write(refusal, client.connection_option(keep_alive), is_head, &mut self.response);
        let write = self.stream.write_all(&self.response);
        match self.timer.within(&mut Deadline::after(RESPONSE_TIMEOUT), never, write).await {
            Ok(Ok(())) if keep_alive => AfterResponse::KeepAlive,
            Ok(Ok(())) if is_read || is_late => AfterResponse::Close,
            Ok(Ok(())) => AfterResponse::CloseUnread,
            _ => AfterResponse::CloseNow,
        }
    }

    /// Shuts down the sending side, and discards what arrives. The connection is over in any case.
    async fn linger(mut self, pause: Duration, limit: Duration) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let (start, context) = (CoarseInstant::now(), &self.context);
        let closing = |now: CoarseInstant| context.is_closing() && now.since(start) >= LINGER;
        loop {
            let left = limit.saturating_sub(CoarseInstant::now().since(start));
            if left.is_zero() {
                return;
            }
            self.received.clear();
            let read = self.received.read_from(&mut self.stream);
            let read = self.timer.within(&mut Deadline::after(pause.min(left)), closing, read).await;
            if !matches!(read, Ok(Ok(1..))) {
                return;
            }
        }
    }
}

fn prepare<'t, 'b>(
    head: &RequestHead<'_, 'b>,
    mut client: Client<'b>,
    table: &'t Table,
    random: &mut Random,
    out: &mut Vec<u8>,
) -> Result<PreparedRequest<'t>, Refusal> {
    // The authority of a target in absolute form counts, not the Host (RFC 9112, 3.2.2).
    let absolute = if head.target.starts_with('/') { None } else { head.target.split_once("://") };
    let target = match absolute {
        Some((scheme, rest)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            client.host = &rest[..end];
            if end == 0 || !client.host.bytes().all(head::fits_host) {
                return Err(malformed("the authority of the target is invalid"));
            }
            &rest[end..]
        }
        _ => head.target,
    };
    let line = RequestLine::new(head.method, target, head.framing, head.upgrade);
    let fields = head.headers.iter().map(|header| (header.name, header.value));
    route::resolve(line, fields, |name| head.named.has(name), client, table, random, out)
}

#[cfg(test)]
mod tests;
