//! A client's connection that speaks HTTP/2 without TLS and says so with its first bytes ("prior knowledge").
//!
//! The framing is the h2 library's. Each stream is a task of the connection's, and goes the way of every
//! other request: the same routes, the same [`course`](super::course). Everything that a client can make grow
//! is bounded: streams, windows, heads, and how often it takes back what it asked for.
//!
//! Deliberately absent: server push, priorities, and tunnels. `CONNECT` is refused, also in the extended form
//! that WebSockets would need; those go over HTTP/1.

pub mod ends;
pub mod link;

use super::{
    answer::{self, Refusal},
    ask::{self, Ask, Asked},
    attempt::Attempt,
    buffer::Buffer,
    course::{Course, Failure, Then},
    head::{self, Framing, MAX_HEADERS, bad},
    headers::{self, Client},
    http1::{
        HEAD_PATIENCE, KEEP_ALIVE, MAX_TOLD,
        ends::{self as http1, unless},
    },
    moment::Moment,
    random::Random,
    relay::{self, Carried, Ending, Terms},
    table::Site,
    timer::{Deadline, LOOK_EVERY, Timer},
    worker::Worker,
};
use bytes::Bytes;
use ends::{Body, Reply};
use h2::{
    Reason, RecvStream,
    server::{Builder, SendResponse},
};
use hyper::{Request, Response, StatusCode, header::HeaderValue, http::request::Parts};
use ringmaster_common::error::PROBLEM_JSON;
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

/// What a connection begins with that is none of HTTP/1.
pub const PREFACE_LINE: &[u8] = b"PRI * HTTP/2";
/// How many requests a client has under way on one connection.
const MAX_STREAMS: u32 = 100;
/// How much of a body is on its way on each stream.
pub const STREAM_WINDOW: u32 = 128 << 10;
/// The same for all streams of a client's connection together.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How long a head is, with what each field counts for itself.
pub const MAX_HEADER_LIST: u32 = 64 << 10;
/// How much waits to be sent on each stream.
pub const SEND_BUFFER: usize = 32 << 10;
/// So many requests may be taken back, in so long, before they were answered. A client that goes on
/// asking and taking back would have endpoints work for nothing.
const MAX_RESETS: u32 = 200;
const RESET_WINDOW: Duration = Duration::from_secs(10);
/// The same for those that were taken back before they were looked at.
const MAX_UNSEEN_RESETS: usize = 20;
/// How long a connection that ends may take to say so.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the streams of a connection share.
#[derive(Debug)]
struct Caller {
    peer: SocketAddr,
    here: SocketAddr,
    addr: String,
    listener: Option<Arc<str>>,
    worker: Arc<Worker>,
}

/// Serves a connection of which `first` was read.
pub async fn serve(
    stream: TcpStream,
    first: Buffer,
    peer: SocketAddr,
    listener: Option<Arc<str>>,
    worker: Arc<Worker>,
) {
    let here = stream.local_addr().unwrap_or(peer);
    let addr = headers::addr_text(peer.ip());
    let caller = Arc::new(Caller { peer, here, addr, listener, worker });
    let handshake = builder().handshake::<_, Bytes>(Begun { first, stream });
    let Ok(Ok(mut connection)) = timeout(HEAD_PATIENCE, handshake).await else { return };
    let (mut streams, mut resets, mut look) = (JoinSet::new(), Resets::default(), interval(LOOK_EVERY));
    let (mut busy, mut goodbye) = (Moment::now(), None);
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                // One that was taken back may still have to notice.
                Some(Ok((_, mut respond))) if streams.len() >= 2 * MAX_STREAMS as usize => {
                    respond.send_reset(Reason::REFUSED_STREAM);
                }
                Some(Ok((request, respond))) => {
                    streams.spawn(caller.clone().serve(request, respond));
                }
                Some(Err(_)) | None => break,
            },
            Some(ended) = streams.join_next() => {
                busy = Moment::now();
                if ended.is_ok_and(|end| end == End::TakenBack) && !resets.admits(busy) {
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    // Whether it hears that is its own affair.
                    let _ = timeout(GOODBYE, poll_fn(|context| connection.poll_closed(context))).await;
                    break;
                }
            }
            _ = look.tick() => {
                let (now, idle) = (Moment::now(), streams.is_empty());
                let over = idle && now.since(busy) >= KEEP_ALIVE;
                match goodbye {
                    None if over || caller.worker.is_closing() => {
                        connection.graceful_shutdown();
                        goodbye = Some(now);
                    }
                    Some(since) if idle && now.since(since) >= GOODBYE => break,
                    _ => {}
                }
            }
        }
    }
    // Streams notice that their connection is gone, and say what has to be said about that.
    drop(connection);
    let _ = timeout(GOODBYE, async { while streams.join_next().await.is_some() {} }).await;
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS);
    builder
}

/// How often requests were taken back lately.
#[derive(Debug, Default)]
struct Resets {
    since: Moment,
    count: u32,
}

impl Resets {
    fn admits(&mut self, now: Moment) -> bool {
        if now.since(self.since) >= RESET_WINDOW {
            *self = Resets { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= MAX_RESETS
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// The client did not wait for the answer.
    TakenBack,
}

/// A stream with its request.
struct Exchange<'a> {
    caller: &'a Caller,
    ask: &'a Ask<'a>,
    /// What an endpoint gets that speaks HTTP/1.
    head: &'a [u8],
    body: RecvStream,
    respond: SendResponse<Bytes>,
    timer: Timer,
}

impl Caller {
    async fn serve(self: Arc<Self>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> End {
        let table = self.worker.table.load_full();
        let Some(site) = table.site(self.listener.as_deref()) else {
            respond.send_reset(Reason::REFUSED_STREAM);
            return End::Answered;
        };
        let (mut parts, body) = request.into_parts();
        let (mut random, mut head) = (Random::seeded(), Vec::new());
        match self.prepare(&mut parts, &body, site, &mut random, &mut head) {
            Ok(ask) => {
                let (head, timer) = (&head, Timer::new());
                Exchange { caller: &self, ask: &ask, head, body, respond, timer }.run(&mut random).await
            }
            Err(refusal) => {
                let line = format!("{} {:.MAX_TOLD$}", parts.method, parts.uri.path());
                self.worker.refusals.note(self.peer.ip(), &line, &refusal);
                refuse(respond, refusal, parts.method == "HEAD");
                End::Answered
            }
        }
    }

    fn prepare<'t>(
        &self,
        parts: &mut Parts,
        body: &RecvStream,
        site: &'t Site,
        random: &mut Random,
        out: &mut Vec<u8>,
    ) -> Result<Ask<'t>, Refusal> {
        if parts.headers.len() > MAX_HEADERS {
            return Err(head::too_large());
        }
        let mut lengths = parts.headers.get_all("content-length").iter();
        let length = lengths.next().map(|value| {
            let number = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            number.and_then(|text| text.parse().ok()).ok_or_else(|| bad("the Content-Length is not a number"))
        });
        if lengths.next().is_some() {
            return Err(bad("there is more than one Content-Length"));
        }
        let framing = match length.transpose()? {
            _ if body.is_end_stream() => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        // Cookies may come in crumbs, and HTTP/1 knows but one of them (RFC 9113, 8.2.3).
        let crumbs: Vec<_> = parts.headers.get_all("cookie").iter().map(HeaderValue::as_bytes).collect();
        if crumbs.len() > 1 {
            let whole =
                HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).map_err(|_| bad("a Cookie is none"))?;
            parts.headers.insert("cookie", whole);
        }
        let mut hosts = parts.headers.get_all("host").iter().map(|host| host.to_str().unwrap_or_default());
        let host = match (parts.uri.authority(), hosts.next(), hosts.next()) {
            (_, _, Some(_)) => return Err(bad("there is more than one Host")),
            (Some(authority), Some(host), None) if host != authority.as_str() => {
                return Err(bad("the Host is not the authority"));
            }
            (Some(authority), _, None) => authority.as_str(),
            (None, Some(host), None) => host,
            (None, None, None) => return Err(bad("there is no authority")),
        };
        if !host.bytes().all(head::fits_host) {
            return Err(bad("the authority is none"));
        }
        let client = Client { ip: self.peer.ip(), addr: &self.addr, host };
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let asked = Asked { method: parts.method.as_str(), path, framing, upgrade: None };
        let fields: Vec<_> = headers::fields(&parts.headers).collect();
        ask::prepare(asked, fields.iter().copied(), |_| false, client, site, random, out)
    }
}

impl Exchange<'_> {
    async fn run(mut self, random: &mut Random) -> End {
        let (ask, tables) = (self.ask, &self.caller.worker.table);
        let (mut course, line) =
            (Course::new(ask.route, ask.wish, self.caller.peer.ip()), &self.head[..ask.line]);
        loop {
            let moved = course.moved();
            let upstream = moved.as_deref().unwrap_or(&ask.route.upstream);
            let refusal = match course.attempt(upstream, random.next()) {
                Err(refusal) => refusal,
                Ok(attempt) => {
                    let tried = match &ask.onward {
                        None => self.attempt_http1(&attempt, &course).await,
                        Some(_) => self.attempt_http2(&attempt, &course).await,
                    };
                    let failure = match tried {
                        Ok(Carried { ending, .. }) => {
                            // Nobody shall take half of it for the whole.
                            if ending != Ending::Whole {
                                self.respond.send_reset(Reason::INTERNAL_ERROR);
                            }
                            return End::Answered;
                        }
                        Err(failure) => failure,
                    };
                    match course.failed(line, &attempt, failure, ask.is_resendable(), tables) {
                        Then::Again => continue,
                        Then::Refuse(refusal) => refusal,
                        Then::Nothing => return End::TakenBack,
                    }
                }
            };
            course.refused(line, &refusal);
            refuse(self.respond, refusal, ask.head);
            return End::Answered;
        }
    }

    /// On a connection that waits, and if that one turns out to be dead, on a new one.
    async fn attempt_http1(
        &mut self,
        attempt: &Attempt<'_>,
        course: &Course<'_>,
    ) -> Result<Carried, Failure> {
        let Caller { peer, here, worker, .. } = self.caller;
        if let Some(link) = attempt.take_idle(worker.index, self.ask.is_resendable()) {
            match self.on(link, attempt, course).await {
                Err(Failure::Unanswered(_)) if self.ask.is_resendable() && attempt.was_stale() => {}
                done => return done,
            }
        }
        let link = unless(taken_back(&mut self.respond), attempt.connect(*peer, *here)).await;
        self.on(link.unwrap_or(Err(Failure::ClientGone))?, attempt, course).await
    }

    async fn on(
        &mut self,
        mut link: TcpStream,
        attempt: &Attempt<'_>,
        course: &Course<'_>,
    ) -> Result<Carried, Failure> {
        let config = &attempt.upstream().config;
        let mut arrived = Buffer::default();
        let (read, write) = link.split();
        let mut out = http1::Outgoing::new(write, self.ask.framing);
        let idle = Duration::from_millis(config.timeouts.idle_ms);
        let cut = |now| attempt.endpoint().is_cut(now);
        match self.timer.within(&mut Deadline::after(idle), cut, out.write(self.head)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Failure::Unanswered("cannot be sent to".to_owned())),
            Err(late) => return Err(Failure::late(late, "took nothing", idle)),
        }
        let mut answer = http1::Answer::new(read, &mut arrived, self.ask.head);
        let carried = self.carry(attempt, course, out, &mut answer).await?;
        let reusable = answer.keeps_alive()
            && carried.ending == Ending::Whole
            && carried.sent
            && !config.send_proxy_protocol;
        if reusable {
            attempt.endpoint().keep_idle(self.caller.worker.index, link);
        }
        Ok(carried)
    }

    /// Beside other requests, on a connection that speaks HTTP/2 as well.
    async fn attempt_http2(
        &mut self,
        attempt: &Attempt<'_>,
        course: &Course<'_>,
    ) -> Result<Carried, Failure> {
        let Caller { peer, here, worker, .. } = self.caller;
        let opening = link::open(attempt, self.ask, worker.index, *peer, *here);
        let opened = unless(taken_back(&mut self.respond), opening).await;
        let (seat, out, mut answer) = opened.unwrap_or(Err(Failure::ClientGone))?;
        let carried = self.carry(attempt, course, out, &mut answer).await;
        seat.left(&carried);
        carried
    }

    async fn carry(
        &mut self,
        attempt: &Attempt<'_>,
        course: &Course<'_>,
        out: impl relay::Sink,
        answer: &mut impl relay::Answer,
    ) -> Result<Carried, Failure> {
        let terms = Terms { ask: self.ask, attempt, course, line: &self.head[..self.ask.line] };
        let mut reply = Reply::new(&mut self.respond);
        relay::carry(&terms, Body::new(&mut self.body), out, answer, &mut reply, &mut self.timer).await
    }
}

/// Ends when the client does not wait any more.
async fn taken_back(respond: &mut SendResponse<Bytes>) {
    // Why makes no difference.
    let _ = poll_fn(|context| respond.poll_reset(context)).await;
}

/// Answers without an endpoint. What was still to come of the request is not waited for: with the stream's
/// last handle gone, the client is told to send no more.
fn refuse(mut respond: SendResponse<Bytes>, refusal: Refusal, head: bool) {
    let (status, _, body) = answer::document(refusal);
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(PROBLEM_JSON));
    headers.insert("content-length", HeaderValue::from(body.len()));
    if matches!(status, 429 | 503) {
        headers.insert("retry-after", HeaderValue::from_static("1"));
    }
    // A client that is gone needs no answer.
    if let Ok(mut stream) = respond.send_response(response, head)
        && !head
    {
        let _ = stream.send_data(body.into(), true);
    }
}

/// A connection of which something was read before.
#[derive(Debug)]
struct Begun {
    first: Buffer,
    stream: TcpStream,
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, room);
        }
        let count = self.first.len().min(room.remaining());
        room.put_slice(&self.first.filled()[..count]);
        self.first.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
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
