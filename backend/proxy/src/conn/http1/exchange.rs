//! One attempt for an HTTP/1 client: to an HTTP/1 endpoint byte by byte, to an HTTP/2 endpoint by the relay.
//!
//! What always holds: an endpoint's connection is used again only if both sides agree that nothing is left on it; after
//! an upgrade was asked for, no byte of the client is passed on before the endpoint has answered 101; and a response
//! that is truncated resets the client's connection, so that the client does not take a part for the whole.
//!
//! A client that disconnects while it waits is noticed, and its request cancelled. A client that shut down its sending
//! side and still listens looks the same, and is treated alike.

use crate::{
    attempt::Attempt,
    coarse_clock::CoarseInstant,
    conn::{
        context::{RESPONSE_TIMEOUT, WorkerContext},
        http1::client::Http1Client,
        tunnel::{self, TunnelProtocol},
    },
    error::UpstreamError,
    forward::{Exchange, Response},
    outcome::ResponseEnd,
    pool::{Connection, reuse::Reuse},
    prepare::PreparedRequest,
    relay::{RelayContext, RelayOutcome, relay},
    replay::Replay,
    respond::{self, ClientCapabilities, StatusLine},
    timer::{Deadline, Timer, WaitError, never, unless},
    upload::{EARLY_RESPONSE_TIMEOUT, Upload, UploadEnd},
    wire::{
        body::Body,
        buffer::Buffer,
        head::{self, Framing, MAX_INTERIM, RequestFacts},
        http1::{self, REQUEST_TIMEOUT, UNSOLICITED, closed},
    },
};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

#[derive(Debug)]
pub struct Http1Exchange<'c> {
    pub stream: &'c mut TcpStream,
    pub received: &'c mut Buffer,
    pub request: &'c PreparedRequest<'c>,
    /// What an HTTP/1 endpoint gets.
    pub head: &'c [u8],
    pub endpoint_received: &'c mut Buffer,
    pub response: &'c mut Vec<u8>,
    pub timer: &'c mut Timer,
    pub peer: SocketAddr,
    pub context: &'c WorkerContext,
    pub client: ClientCapabilities,
    /// What is still to come of the request's body, and what came of it, for an HTTP/2 endpoint.
    pub body: Body,
    pub replay: Replay,
    /// Set by an attempt: the client was asked to send its body.
    pub is_continued: bool,
    /// Set by an attempt: the client may send another request.
    pub keep_alive: bool,
    /// Set by an attempt: nothing of the request is still to come.
    pub is_sent: bool,
    /// Set by an attempt: the protocol was switched.
    pub tunnel_to: Option<TcpStream>,
}

/// What has arrived of a response.
enum ParsedHead {
    Partial,
    /// An interim response; what the client gets of it is written.
    Interim,
    Final(Head),
}

struct Head {
    status: u16,
    framing: Framing,
    /// Whether the endpoint's connection takes another request, and for how long.
    endpoint_keeps_alive: bool,
    endpoint_keep_alive: Option<Duration>,
    /// Whether the client's does.
    keep_alive: bool,
    latency: Duration,
}

impl Exchange for Http1Exchange<'_> {
    async fn attempt(&mut self, attempt: &Attempt<'_>, reuse: Reuse) -> Result<Response, UpstreamError> {
        match &self.request.http2 {
            None => self.via_http1(attempt, reuse).await,
            Some(head) => self.via_http2(head, attempt, reuse).await,
        }
    }

    fn may_repeat(&self) -> bool {
        match &self.request.http2 {
            None => self.request.is_resendable(),
            Some(_) => self.request.is_idempotent && !self.replay.has_content(),
        }
    }

    async fn tunnel(&mut self, attempt: &Attempt<'_>) {
        let Some(mut endpoint) = self.tunnel_to.take() else { return };
        let idle = Duration::from_millis(attempt.upstream.config.timeouts.idle_ms);
        let client = (&mut *self.stream, &*self.received);
        let endpoint = (&mut endpoint, &*self.endpoint_received);
        let cancelled = |now| attempt.endpoint().is_past_drain_deadline(now);
        tunnel::run(client, endpoint, TunnelProtocol::WebSocket, idle, self.timer, cancelled).await;
    }
}

impl Http1Exchange<'_> {
    /// On an idle connection, or on a new one.
    async fn via_http1(&mut self, attempt: &Attempt<'_>, reuse: Reuse) -> Result<Response, UpstreamError> {
        let idle = attempt.take_idle(self.context.worker, reuse, self.request.is_resendable());
        if let Some(idle) = idle {
            return self.on(idle, attempt).await;
        }
        let here = self.stream.local_addr().unwrap_or(self.peer);
        let connection = unless(closed(self.stream), attempt.connect(self.peer, here)).await;
        self.on(connection.unwrap_or(Err(UpstreamError::ClientClosed))?, attempt).await
    }

    /// Beside other requests, on a shared connection.
    async fn via_http2(
        &mut self,
        head: &hyper::Request<()>,
        attempt: &Attempt<'_>,
        reuse: Reuse,
    ) -> Result<Response, UpstreamError> {
        let here = self.stream.local_addr().unwrap_or(self.peer);
        let limits = attempt.send_limits(reuse);
        let pool = attempt.endpoint().pool.http2(self.context.worker);
        let is_bare = self.request.framing == Framing::Empty;
        let peer = self.peer;
        let head = self.request.http2_head_for(head, attempt.endpoint())?;
        let connect = || async move { attempt.connect(peer, here).await.map(|connection| connection.stream) };
        let sending = pool.send(&head, is_bare, self.request.is_idempotent, limits, connect);
        let sent = unless(closed(self.stream), sending).await;
        let (mut permit, endpoint, mut response) = sent.unwrap_or(Err(UpstreamError::ClientClosed))?;
        let (read, write) = self.stream.split();
        let capabilities = self.client.unless(self.context.is_closing());
        let mut client = Http1Client::new(write, self.request, capabilities);
        if !is_bare && !self.is_continued {
            self.is_continued = true;
            let deadline = &mut Deadline::after(RESPONSE_TIMEOUT);
            let asked = self.timer.within(deadline, never, client.send_continue()).await;
            if !matches!(asked, Ok(Ok(()))) {
                return Err(UpstreamError::ClientClosed);
            }
        }
        let rest = std::mem::replace(&mut self.body, Body::new(Framing::Empty));
        let mut body = http1::Body::new(read, self.received, rest);
        let context = RelayContext { request: self.request, attempt };
        let replay = &mut self.replay;
        let relayed =
            relay(&context, &mut body, replay, endpoint, &mut response, &mut client, self.timer).await;
        self.body = body.into_rest();
        permit.end(relayed.as_ref().map(|relayed| relayed.response.end));
        let RelayOutcome { response, is_sent } = relayed?;
        (self.keep_alive, self.is_sent) = (client.keeps_alive() && is_sent, is_sent);
        Ok(response)
    }

    async fn on(
        &mut self,
        mut connection: Connection,
        attempt: &Attempt<'_>,
    ) -> Result<Response, UpstreamError> {
        let may_be_stale = connection.is_used && self.request.is_resendable();
        let failed = |error: UpstreamError| if may_be_stale { error.on_used_connection() } else { error };
        let timeouts = &attempt.upstream.config.timeouts;
        let idle = Duration::from_millis(timeouts.idle_ms);
        let cancelled = |now: CoarseInstant| attempt.endpoint().is_past_drain_deadline(now);
        let request_head = self.request.head_for(self.head, attempt.endpoint());
        let Http1Exchange { stream, received, request, endpoint_received, response, timer, .. } = self;
        endpoint_received.clear();
        response.clear();
        let (mut endpoint_read, mut endpoint_write) = connection.stream.split();
        let (mut client_read, mut client_write) = stream.split();
        let mut upload = match request.framing {
            Framing::Empty => {
                let write = endpoint_write.write_all(&request_head);
                match timer.within(&mut Deadline::after(idle), cancelled, write).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        return Err(failed(UpstreamError::NoResponse(format!("cannot send: {error}"))));
                    }
                    Err(late) => return Err(UpstreamError::late(late, "nothing sent", idle)),
                }
                Upload::none()
            }
            framing => {
                let (body, max) = (Body::new(framing), request.route.spec.max_body_bytes);
                let from = (&mut **received, &mut client_read);
                Upload::begin(send(&request_head, body, from, &mut endpoint_write, idle, max))
            }
        };
        let mut deadline = Deadline::after(Duration::from_millis(timeouts.response_ms));
        let mut interim = 0;
        let head = loop {
            // After a response that came before the end of the request, the begin of the next request is unknown.
            let client = self.client.unless(self.context.is_closing() || upload.is_in_flight());
            let parsed = parse_head(endpoint_received, response, request, client, attempt);
            // After an interim response, what is wrong is the endpoint's response.
            match if interim == 0 { parsed.map_err(failed)? } else { parsed? } {
                ParsedHead::Final(Head { status: REQUEST_TIMEOUT, .. }) if may_be_stale && interim == 0 => {
                    return Err(UpstreamError::Stale(UNSOLICITED.to_owned()));
                }
                ParsedHead::Final(head) => break head,
                ParsedHead::Interim if interim == MAX_INTERIM => {
                    return Err(UpstreamError::invalid(head::too_many_interim()));
                }
                ParsedHead::Interim => {
                    interim += 1;
                    let write = client_write.write_all(response);
                    match upload.beside(timer.within(&mut Deadline::after(idle), cancelled, write)).await {
                        Ok(Ok(())) => continue,
                        Err(WaitError::Cancelled) => return Err(UpstreamError::DrainDeadline),
                        _ => return Err(UpstreamError::ClientClosed),
                    }
                }
                ParsedHead::Partial if endpoint_received.is_full() => {
                    return Err(UpstreamError::invalid(head::response_too_large()));
                }
                ParsedHead::Partial => {}
            }
            let has_begun = interim > 0 || !endpoint_received.is_empty();
            let ended = |error| if has_begun { error } else { failed(error) };
            let read = unless(closed(client_write.as_ref()), endpoint_received.read_from(&mut endpoint_read));
            match upload.or(timer, &mut deadline, cancelled, read).await {
                Some(Ok(Some(Ok(1..)))) => {}
                Some(Ok(Some(Ok(0)))) => {
                    let detail = "closed the connection without a response".to_owned();
                    return Err(ended(UpstreamError::NoResponse(detail)));
                }
                Some(Ok(Some(Err(error)))) => {
                    return Err(ended(UpstreamError::NoResponse(format!("no response: {error}"))));
                }
                Some(Ok(None)) => return Err(UpstreamError::ClientClosed),
                Some(Err(late)) => return Err(UpstreamError::late(late, "no response", deadline.limit())),
                None => {
                    upload.end.check(request.route, idle)?;
                    if upload.end == UploadEnd::EndpointClosed {
                        deadline = Deadline::after(EARLY_RESPONSE_TIMEOUT);
                    }
                }
            }
        };
        let Head { status, latency, .. } = head;
        if status == 101 {
            drop(upload);
            let write = client_write.write_all(response);
            let written = timer.within(&mut Deadline::after(idle), cancelled, write).await;
            let is_written = matches!(written, Ok(Ok(())));
            (self.tunnel_to, self.is_sent) = (is_written.then_some(connection.stream), true);
            let end = if is_written { ResponseEnd::Complete } else { ResponseEnd::Abandoned };
            return Ok(Response { status, latency, end, idle: None, is_switched: is_written });
        }
        let mut body = Body::new(head.framing);
        if !self.client.http11 {
            body = body.unframed();
        }
        let passing = Passing { received: endpoint_received, out: response, timer, idle };
        let end = passing.run(&mut body, &mut endpoint_read, &mut client_write, &mut upload, cancelled).await;
        let is_sent = upload.is_complete();
        drop(upload);
        let is_idle = end == ResponseEnd::Complete
            && is_sent
            && head.endpoint_keeps_alive
            && endpoint_received.is_empty()
            && attempt.reuses_connections();
        (self.keep_alive, self.is_sent) = (head.keep_alive && is_sent, is_sent);
        (connection.keep_alive, connection.follows_head) = (head.endpoint_keep_alive, request.is_head);
        Ok(Response { status, latency, end, idle: is_idle.then_some(connection), is_switched: false })
    }
}

/// A response body on its way.
struct Passing<'a> {
    received: &'a mut Buffer,
    /// Begins with the head.
    out: &'a mut Vec<u8>,
    timer: &'a mut Timer,
    idle: Duration,
}

impl Passing<'_> {
    async fn run(
        self,
        body: &mut Body,
        endpoint_read: &mut ReadHalf<'_>,
        client_write: &mut WriteHalf<'_>,
        upload: &mut Upload<'_>,
        cancelled: impl Fn(CoarseInstant) -> bool,
    ) -> ResponseEnd {
        let Passing { received, out, timer, idle } = self;
        let mut ended = false;
        loop {
            let Ok(used) = body.take(received.filled(), out) else { return ResponseEnd::Truncated };
            received.consume(used);
            if !out.is_empty() {
                let write = client_write.write_all(out);
                let mut deadline = Deadline::after(idle);
                let write = timer.within(&mut deadline, &cancelled, write);
                if !matches!(upload.beside(write).await, Ok(Ok(()))) {
                    return ResponseEnd::Abandoned;
                }
                out.clear();
            }
            if body.is_done() || ended && body.may_end() {
                return ResponseEnd::Complete;
            }
            if ended {
                return ResponseEnd::Truncated;
            }
            let read = unless(closed(client_write.as_ref()), received.read_from(endpoint_read));
            match upload.beside(timer.within(&mut Deadline::after(idle), &cancelled, read)).await {
                Ok(Some(Ok(0))) => ended = true,
                Ok(Some(Ok(_))) => {}
                // The endpoint may wait for what the client does not send.
                Err(WaitError::TimedOut) if !upload.is_complete() => return ResponseEnd::Abandoned,
                Ok(Some(Err(_))) => return ResponseEnd::Truncated,
                Err(WaitError::TimedOut) => return ResponseEnd::TimedOut,
                Ok(None) | Err(WaitError::Cancelled) => return ResponseEnd::Abandoned,
            }
            // A wrong request ends its response at once.
            let is_wrong = !matches!(upload.end, UploadEnd::Complete | UploadEnd::EndpointClosed);
            if !upload.is_in_flight() && is_wrong {
                return ResponseEnd::Abandoned;
            }
        }
    }
}

/// Parses what has arrived, and writes to `out` what the client gets.
fn parse_head(
    received: &mut Buffer,
    out: &mut Vec<u8>,
    request: &PreparedRequest<'_>,
    client: ClientCapabilities,
    attempt: &Attempt<'_>,
) -> Result<ParsedHead, UpstreamError> {
    if received.is_empty() {
        return Ok(ParsedHead::Partial);
    }
    out.clear();
    let mut room = head::room();
    let facts = RequestFacts { is_head: request.is_head, wants_upgrade: request.wants_upgrade };
    let parsed = head::response(received.filled(), &mut room, facts);
    let Some(head) = parsed.map_err(UpstreamError::invalid)? else {
        return Ok(ParsedHead::Partial);
    };
    let fields = head.headers.iter().map(|header| (header.name, header.value));
    let named = |name: &str| head.named.has(name);
    let len = head.len;
    if (100..200).contains(&head.status) && head.status != 101 {
        respond::write_interim(head.status, head.reason, fields, named, client, out);
        received.consume(len);
        return Ok(ParsedHead::Interim);
    }
    let latency = attempt.response_started();
    let line = StatusLine { status: head.status, reason: head.reason, framing: head.framing };
    let keep_alive = respond::write(line, fields, named, request.route, attempt.sticky, client, out);
    let head = Head {
        status: head.status,
        framing: head.framing,
        endpoint_keeps_alive: head.keeps_alive,
        endpoint_keep_alive: head.keep_alive_s.map(|seconds| Duration::from_secs(seconds.into())),
        keep_alive,
        latency,
    };
    received.consume(len);
    Ok(ParsedHead::Final(head))
}

/// Sends a head and the body behind it.
async fn send(
    head: &[u8],
    mut body: Body,
    (received, from): (&mut Buffer, &mut (impl AsyncRead + Unpin)),
    to: &mut (impl AsyncWrite + Unpin),
    idle: Duration,
    max: u64,
) -> UploadEnd {
    let mut timer = Timer::new();
    let mut out = head.to_vec();
    loop {
        let Ok(used) = body.take(received.filled(), &mut out) else { return UploadEnd::Malformed };
        received.consume(used);
        if body.content > max {
            return UploadEnd::TooLarge;
        }
        if !out.is_empty() {
            match timer.within(&mut Deadline::after(idle), never, to.write_all(&out)).await {
                Ok(Ok(())) => out.clear(),
                _ => return UploadEnd::EndpointClosed,
            }
        }
        if body.is_done() {
            return UploadEnd::Complete;
        }
        match timer.within(&mut Deadline::after(idle), never, received.read_from(from)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return UploadEnd::ClientClosed,
            Err(_) => return UploadEnd::TimedOut,
        }
    }
}
