//! A client's HTTP/1 connection: one request after the other.
//!
//! One task serves a connection and talks to endpoints itself: no request is handed from task to task. It reads a head,
//! has it routed, and forwards it by an [`exchange`]. If it refuses a request, the bytes that may follow are not taken
//! for the next request.

mod client;
mod exchange;

use crate::{
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
    timer::{Deadline, Timer, never},
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
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long, and for how many bytes, a refused client may go on sending. If its connection were closed at once, it
/// would never see the response.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 1 << 20;
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
    /// It is known where the next request begins.
    keep_alive: bool,
    is_head: bool,
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
                    self.refuse(refusal, Refused { keep_alive: false, is_head: false }).await
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
                    self.linger().await;
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
        let closing = |_| self.context.is_closing();
        let read = self.received.read_from(&mut self.stream);
        let read = self.timer.within(&mut Deadline::after(KEEP_ALIVE_TIMEOUT), closing, read).await;
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
                            let keep_alive = keep_alive && head.framing == Framing::Empty && !is_ambiguous;
                            let is_head = head.method == "HEAD" && !is_ambiguous;
                            ReadHead::Refused(refusal, Refused { keep_alive, is_head })
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
            tunnel_to: None,
        };
        let WorkerContext { worker, tables, .. } = &*self.context;
        let forwarded = forwarding.run(&mut exchange, *worker, tables, &mut self.random).await;
        match forwarded {
            Forwarded::Responded(ResponseEnd::Complete) if exchange.keep_alive => AfterResponse::KeepAlive,
            Forwarded::Responded(ResponseEnd::Complete) => AfterResponse::Close,
            Forwarded::Responded(ResponseEnd::Truncated | ResponseEnd::TimedOut | ResponseEnd::Abandoned) => {
                AfterResponse::Reset
            }
            Forwarded::Refused(refusal) => {
                let keep_alive = client.keep_alive && request.framing == Framing::Empty;
                self.refuse(refusal, Refused { keep_alive, is_head: request.is_head }).await
            }
            Forwarded::ClientClosed => AfterResponse::CloseNow,
        }
    }

    /// Responds without an endpoint.
    async fn refuse(&mut self, refusal: Refusal, refused: Refused) -> AfterResponse {
        let keep_alive = refused.keep_alive && !self.context.is_closing();
        self.response.clear();
        refusals::write(refusal, keep_alive, refused.is_head, &mut self.response);
        let write = self.stream.write_all(&self.response);
        match self.timer.within(&mut Deadline::after(RESPONSE_TIMEOUT), never, write).await {
            Ok(Ok(())) if keep_alive => AfterResponse::KeepAlive,
            Ok(Ok(())) => AfterResponse::Close,
            _ => AfterResponse::CloseNow,
        }
    }

    /// Shuts down the sending side, and reads what is on its way.
    async fn linger(mut self) {
        let drain = async {
            self.stream.shutdown().await?;
            let (mut read, mut discarded) = (0, [0; 4096]);
            while read < MAX_LINGER_BYTES {
                match self.stream.read(&mut discarded).await? {
                    0 => break,
                    count => read += count,
                }
            }
            io::Result::Ok(())
        };
        // The connection is over in any case.
        let _ = self.timer.within(&mut Deadline::after(LINGER), never, drain).await;
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
    let target = match head.target.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => {
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
