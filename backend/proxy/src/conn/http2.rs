//! A client's connection that speaks HTTP/2 without TLS and says so with its first bytes ("prior knowledge").
//!
//! The framing is that of the h2 library. Each stream is a task of the connection, and its request is routed and
//! forwarded like any other. Everything that a client can make grow is bounded: streams, windows, heads, and how often
//! it resets streams.
//!
//! Deliberately absent: server push, priorities, and tunnels. `CONNECT` is refused, also in the extended form that
//! WebSockets would need; those use HTTP/1.

mod client;

use crate::{
    attempt::Attempt,
    coarse_clock::CoarseInstant,
    conn::context::{HEAD_TIMEOUT, KEEP_ALIVE_TIMEOUT, MAX_LOGGED_TARGET, WorkerContext},
    error::UpstreamError,
    forward::{self, Exchange, Forwarded, Forwarding},
    outcome::ResponseEnd,
    pool::{Connection, reuse::Reuse},
    prepare::{Client, PreparedRequest, RequestLine},
    random::Random,
    refusals,
    relay::{RelayContext, RelayOutcome, relay},
    replay::Replay,
    route,
    table::Table,
    timer::{CHECK_INTERVAL, Deadline, Timer, unless},
    wire::{
        buffer::Buffer,
        head::{self, Framing, MAX_HEADERS, RequestFacts, malformed},
        headers, http1,
        http2::{Body, MAX_HEADER_LIST, MAX_STREAMS, SEND_BUFFER, STREAM_WINDOW},
        message::{BodySink, ResponseSource},
    },
};
use bytes::Bytes;
use client::Http2Client;
use h2::{
    Reason, RecvStream,
    server::{Builder, SendResponse},
};
use hyper::{HeaderMap, Request, Response, StatusCode, header::HeaderValue, http::request::Parts};
use ringmaster_common::error::{PROBLEM_JSON, Refusal};
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::JoinSet,
    time::{interval, timeout},
};

/// How much of all request bodies of a connection is on its way.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How many streams a client may reset before they were answered within [`RESET_WINDOW`]. Otherwise a client could make
/// endpoints work for nothing. After that, its connection takes no further streams; those in progress may end. A client that
/// opens as many streams once more all the same is disconnected.
const MAX_RESETS: u32 = 200;
const RESET_WINDOW: Duration = Duration::from_secs(10);
/// How many streams a client may reset before they were accepted, which is no more than a busy moment of this proxy. Beyond
/// that the library ends the connection with all of its streams.
const MAX_PENDING_RESETS: usize = MAX_RESETS as usize;
/// How long a connection may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the streams of a connection share.
#[derive(Debug)]
struct Http2Connection {
    peer: SocketAddr,
    here: SocketAddr,
    peer_text: String,
    listener: Option<Arc<str>>,
    context: Arc<WorkerContext>,
}

/// Serves a connection of which `received` was read.
pub async fn serve(
    stream: TcpStream,
    received: Buffer,
    peer: SocketAddr,
    listener: Option<Arc<str>>,
    context: Arc<WorkerContext>,
) {
    let here = stream.local_addr().unwrap_or(peer);
    let peer_text = headers::addr_text(peer.ip());
    let client = Arc::new(Http2Connection { peer, here, peer_text, listener, context });
    let handshake = builder().handshake::<_, Bytes>(Resumed { received, stream });
    let Ok(Ok(mut connection)) = timeout(HEAD_TIMEOUT, handshake).await else { return };
    let (mut streams, mut resets, mut check) = (JoinSet::new(), Resets::default(), interval(CHECK_INTERVAL));
    let (mut busy, mut closing_since, mut refused) = (CoarseInstant::now(), None, 0);
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                // The client learns from a GOAWAY to open them on another connection.
                Some(Ok((_, mut respond))) if resets.exceeded => {
                    respond.send_reset(Reason::REFUSED_STREAM);
                    refused += 1;
                    if refused > MAX_RESETS {
                        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        // The connection is over, whether the client reads that or not.
                        let _ = timeout(CLOSE_TIMEOUT, poll_fn(|context| connection.poll_closed(context))).await;
                        break;
                    }
                }
                // The task of a stream that was reset may not have ended yet, hence twice the bound.
                Some(Ok((_, mut respond))) if streams.len() >= 2 * MAX_STREAMS as usize => {
                    respond.send_reset(Reason::REFUSED_STREAM);
                }
                Some(Ok((request, respond))) => {
                    streams.spawn(client.clone().serve(request, respond));
                }
                Some(Err(_)) | None => break,
            },
            Some(ended) = streams.join_next() => {
                busy = CoarseInstant::now();
                if ended.is_ok_and(|end| end == StreamEnd::ResetByClient) && resets.count_exceeds(busy) {
                    tracing::debug!(%peer, "a client cancels too many requests");
                    connection.graceful_shutdown();
                    closing_since = Some(busy);
                }
            }
            _ = check.tick() => {
                let (now, idle) = (CoarseInstant::now(), streams.is_empty());
                let expired = idle && now.since(busy) >= KEEP_ALIVE_TIMEOUT;
                match closing_since {
                    None if expired || client.context.is_closing() => {
                        connection.graceful_shutdown();
                        closing_since = Some(now);
                    }
                    Some(since) if idle && now.since(since) >= CLOSE_TIMEOUT => break,
                    _ => {}
                }
            }
        }
    }
    // Streams notice that their connection is gone, and record their outcome.
    drop(connection);
    let _ = timeout(CLOSE_TIMEOUT, async { while streams.join_next().await.is_some() {} }).await;
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    builder
}

/// How often streams were reset lately.
#[derive(Debug, Default)]
struct Resets {
    since: CoarseInstant,
    count: u32,
    /// There were too many at some time.
    exceeded: bool,
}

impl Resets {
    /// Counts one more. Returns whether it is the first that is too many.
    fn count_exceeds(&mut self, now: CoarseInstant) -> bool {
        if now.since(self.since) >= RESET_WINDOW {
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
        self.count > MAX_RESETS && !std::mem::replace(&mut self.exceeded, true)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamEnd {
    Answered,
    /// Before it was answered.
    ResetByClient,
}

/// A stream with its request.
struct Http2Exchange<'c> {
    connection: &'c Http2Connection,
    request: &'c PreparedRequest<'c>,
    /// What an HTTP/1 endpoint gets.
    head: &'c [u8],
    body: Body,
    replay: Replay,
    respond: SendResponse<Bytes>,
    /// The client sends the body only once it is asked to.
    expects_continue: bool,
    timer: Timer,
}

impl Http2Connection {
    async fn serve(self: Arc<Self>, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> StreamEnd {
        let table = self.context.tables.load_full();
        let (mut parts, body) = request.into_parts();
        let (mut random, mut head) = (Random::seeded(), Vec::new());
        let expects_continue = take_expectation(&mut parts.headers);
        match self.prepare(&mut parts, &body, &table, &mut random, &mut head) {
            Ok(request) => {
                let (body, replay) = (Body::new(body), Replay::new(request.http2.is_some()));
                let (connection, request, head, timer) = (&*self, &request, &*head, Timer::new());
                let exchange = Http2Exchange {
                    connection,
                    request,
                    head,
                    body,
                    replay,
                    respond,
                    expects_continue,
                    timer,
                };
                self.forward(exchange, &mut random).await
            }
            Err(refusal) => {
                let line = format!("{} {:.MAX_LOGGED_TARGET$}", parts.method, parts.uri.path());
                self.context.refusals.record(self.peer.ip(), &line, &refusal);
                refuse(respond, refusal, parts.method == "HEAD");
                StreamEnd::Answered
            }
        }
    }

    async fn forward(&self, mut exchange: Http2Exchange<'_>, random: &mut Random) -> StreamEnd {
        let request = exchange.request;
        let line = &exchange.head[..request.line_len];
        let forwarding = Forwarding::new(request.route, request.hints, self.peer.ip(), line);
        let WorkerContext { worker, tables, .. } = &*self.context;
        match forwarding.run(&mut exchange, *worker, tables, random).await {
            Forwarded::Responded(ResponseEnd::Complete) => StreamEnd::Answered,
            // A client must not take a part of a response for the whole.
            Forwarded::Responded(ResponseEnd::Truncated) => {
                exchange.respond.send_reset(Reason::INTERNAL_ERROR);
                StreamEnd::Answered
            }
            // The proxy gave the stream up; nothing has failed.
            Forwarded::Responded(ResponseEnd::TimedOut | ResponseEnd::Abandoned) => {
                exchange.respond.send_reset(Reason::CANCEL);
                StreamEnd::Answered
            }
            Forwarded::Refused(refusal) => {
                refuse(exchange.respond, refusal, request.is_head);
                StreamEnd::Answered
            }
            Forwarded::ClientClosed => StreamEnd::ResetByClient,
        }
    }

    fn prepare<'t>(
        &self,
        parts: &mut Parts,
        body: &RecvStream,
        table: &'t Table,
        random: &mut Random,
        out: &mut Vec<u8>,
    ) -> Result<PreparedRequest<'t>, Refusal> {
        join_cookies(&mut parts.headers)?;
        if parts.headers.len() > MAX_HEADERS {
            return Err(head::too_large());
        }
        let mut lengths = parts.headers.get_all("content-length").iter();
        let length = lengths.next().map(|value| {
            let number = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            number
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| malformed("the Content-Length is not a number"))
        });
        if lengths.next().is_some() {
            return Err(malformed("there is more than one Content-Length"));
        }
        let framing = match length.transpose()? {
            _ if body.is_end_stream() => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        let mut hosts = parts.headers.get_all("host").iter().map(|host| host.to_str().unwrap_or_default());
        let host = match (parts.uri.authority(), hosts.next(), hosts.next()) {
            (_, _, Some(_)) => return Err(malformed("there is more than one Host")),
            (Some(authority), Some(host), None) if !host.eq_ignore_ascii_case(authority.as_str()) => {
                return Err(malformed("the Host differs from the authority"));
            }
            (Some(authority), _, None) => authority.as_str(),
            (None, Some(host), None) => host,
            (None, None, None) => return Err(malformed("there is no authority")),
        };
        if !host.bytes().all(head::fits_host) {
            return Err(malformed("the authority is invalid"));
        }
        let client =
            Client { ip: self.peer.ip(), addr: &self.peer_text, host, listener: self.listener.as_deref() };
        let target = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let line = RequestLine::new(parts.method.as_str(), target, framing, None);
        let fields: Vec<_> = headers::fields(&parts.headers).collect();
        route::resolve(line, fields.iter().copied(), |_| false, client, table, random, out)
    }
}

impl Exchange for Http2Exchange<'_> {
    async fn attempt(
        &mut self,
        attempt: &Attempt<'_>,
        reuse: Reuse,
    ) -> Result<forward::Response, UpstreamError> {
        match &self.request.http2 {
            None => self.via_http1(attempt, reuse).await,
            Some(head) => self.via_http2(head, attempt, reuse).await,
        }
    }

    fn may_repeat(&self) -> bool {
        self.request.is_idempotent && !self.replay.has_content()
    }
}

impl Http2Exchange<'_> {
    /// On an idle connection, or on a new one.
    async fn via_http1(
        &mut self,
        attempt: &Attempt<'_>,
        reuse: Reuse,
    ) -> Result<forward::Response, UpstreamError> {
        let Http2Connection { peer, here, context, .. } = self.connection;
        if let Some(idle) = attempt.take_idle(context.worker, reuse, self.request.is_resendable()) {
            return self.on(idle, attempt).await;
        }
        let connection = unless(reset(&mut self.respond), attempt.connect(*peer, *here)).await;
        self.on(connection.unwrap_or(Err(UpstreamError::ClientClosed))?, attempt).await
    }

    async fn on(
        &mut self,
        mut connection: Connection,
        attempt: &Attempt<'_>,
    ) -> Result<forward::Response, UpstreamError> {
        let may_be_stale = connection.is_used && self.request.is_idempotent;
        let mut received = Buffer::default();
        let (read, write) = connection.stream.split();
        let mut endpoint = http1::Outgoing::new(write, self.request.framing);
        let head = self.request.head_for(self.head, attempt.endpoint());
        let idle = Duration::from_millis(attempt.upstream.config.timeouts.idle_ms);
        let cancelled = |now| attempt.endpoint().is_past_drain_deadline(now);
        match self.timer.within(&mut Deadline::after(idle), cancelled, endpoint.write(&head)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) if may_be_stale => return Err(UpstreamError::Stale("cannot send".to_owned())),
            Ok(Err(_)) => return Err(UpstreamError::NoResponse("cannot send".to_owned())),
            Err(late) => return Err(UpstreamError::late(late, "nothing sent", idle)),
        }
        let facts = RequestFacts { is_head: self.request.is_head, wants_upgrade: false };
        let mut response = http1::Response::new(read, &mut received, facts, may_be_stale);
        let RelayOutcome { response: outcome, is_sent } =
            self.relay(attempt, endpoint, &mut response).await?;
        let is_idle = response.keeps_alive()
            && outcome.end == ResponseEnd::Complete
            && is_sent
            && attempt.reuses_connections();
        connection.keep_alive = response.keep_alive_s.map(|seconds| Duration::from_secs(seconds.into()));
        connection.follows_head = self.request.is_head;
        Ok(forward::Response { idle: is_idle.then_some(connection), ..outcome })
    }

    /// Beside other requests, on a shared connection.
    async fn via_http2(
        &mut self,
        head: &Request<()>,
        attempt: &Attempt<'_>,
        reuse: Reuse,
    ) -> Result<forward::Response, UpstreamError> {
        let Http2Connection { peer, here, context, .. } = self.connection;
        let limits = attempt.send_limits(reuse);
        let is_bare = self.request.framing == Framing::Empty;
        let pool = attempt.endpoint().pool.http2(context.worker);
        let (peer, here) = (*peer, *here);
        let head = self.request.http2_head_for(head, attempt.endpoint())?;
        let connect = || async move { attempt.connect(peer, here).await.map(|connection| connection.stream) };
        let sending = pool.send(&head, is_bare, self.request.is_idempotent, limits, connect);
        let sent = unless(reset(&mut self.respond), sending).await;
        let (mut permit, endpoint, mut response) = sent.unwrap_or(Err(UpstreamError::ClientClosed))?;
        let relayed = self.relay(attempt, endpoint, &mut response).await;
        permit.end(relayed.as_ref().map(|relayed| relayed.response.end));
        Ok(relayed?.response)
    }

    async fn relay(
        &mut self,
        attempt: &Attempt<'_>,
        endpoint: impl BodySink,
        response: &mut impl ResponseSource,
    ) -> Result<RelayOutcome, UpstreamError> {
        if std::mem::take(&mut self.expects_continue) && self.request.framing != Framing::Empty {
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::CONTINUE;
            self.respond.send_informational(interim).map_err(|_| UpstreamError::ClientClosed)?;
        }
        let context = RelayContext { request: self.request, attempt };
        let mut client = Http2Client::new(&mut self.respond);
        let (body, replay) = (&mut self.body, &mut self.replay);
        relay(&context, body, replay, endpoint, response, &mut client, &mut self.timer).await
    }
}

/// Cookies may come in several fields, which HTTP/1 does not allow (RFC 9113, 8.2.3). They are one header.
fn join_cookies(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let crumbs = headers.get_all("cookie");
    if crumbs.iter().nth(1).is_some() {
        let crumbs: Vec<_> = crumbs.iter().map(HeaderValue::as_bytes).collect();
        let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
            .map_err(|_| malformed("a Cookie is invalid"))?;
        headers.insert("cookie", joined);
    }
    Ok(())
}

/// Whether the client waits for `100 Continue`. The proxy answers it, so the endpoint is not asked again.
fn take_expectation(headers: &mut HeaderMap) -> bool {
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let expects_continue = headers.get("expect").is_some_and(expects);
    if expects_continue {
        headers.remove("expect");
    }
    expects_continue
}

/// Ends when the client resets the stream.
async fn reset(respond: &mut SendResponse<Bytes>) {
    // The reason makes no difference.
    let _ = poll_fn(|context| respond.poll_reset(context)).await;
}

/// Responds without an endpoint. What is still to come of the request is not waited for: when the last handle of the
/// stream is dropped, the client is asked to send no more.
fn refuse(mut respond: SendResponse<Bytes>, refusal: Refusal, is_head: bool) {
    let (status, _, body) = refusals::document(refusal);
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(PROBLEM_JSON));
    headers.insert("content-length", HeaderValue::from(body.len()));
    if matches!(status, 429 | 503) {
        headers.insert("retry-after", HeaderValue::from_static("1"));
    }
    // A client that is gone needs no response.
    if let Ok(mut stream) = respond.send_response(response, is_head)
        && !is_head
    {
        let _ = stream.send_data(body.into(), true);
    }
}

/// A connection of which the beginning was read before.
#[derive(Debug)]
struct Resumed {
    received: Buffer,
    stream: TcpStream,
}

impl AsyncRead for Resumed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, room);
        }
        let count = self.received.len().min(room.remaining());
        room.put_slice(&self.received.filled()[..count]);
        self.received.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Resumed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
