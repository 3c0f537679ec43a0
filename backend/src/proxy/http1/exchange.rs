//! One request and its answer, from HTTP/1 to HTTP/1.
//!
//! What always holds: a request is sent again only if the endpoint cannot have seen it, or if seeing it
//! twice changes nothing and there is no body that is gone by then; an endpoint's connection is used
//! again only if both sides agree that nothing is left on it; after an upgrade was asked for, no byte of the
//! client's goes on before the endpoint has said 101; and where an answer breaks off, the client's
//! connection breaks off with it, so that nobody takes half of it for the whole.

use super::{Ask, Next, Visit, too_long};
use crate::proxy::{
    answer::Refusal,
    attempt::{Attempt, Log},
    body::Body,
    buffer::Buffer,
    endpoint::Endpoint,
    head::{self, Asked, Framing, bad},
    headers::{self, Sink},
    moment::Moment,
    proxy_protocol,
    timer::{Deadline, Late, Timer},
    tunnel,
};
use ringmaster_common::error::Code;
use std::{
    future::poll_fn,
    io::{self, Write},
    pin::{Pin, pin},
    sync::atomic::Ordering::Relaxed,
    task::Poll,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::timeout,
};

/// How long an answer is waited for whose request could not be sent to its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a body may take that keeps coming.
const LONGEST_UPLOAD: Duration = Duration::from_secs(24 * 60 * 60);

/// Why an attempt came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// The endpoint cannot have seen the request.
    Unreached(String),
    /// It may have seen it.
    Unanswered(String),
    TimedOut(String),
    /// The answer cannot be trusted.
    Untrusted(Refusal),
    /// The endpoint is drained, and time is up.
    Cut,
    /// It is not the endpoint's fault.
    Client(Refusal),
    ClientGone,
}

/// An answer whose head was read.
struct Answer {
    framing: Framing,
    /// Whether the endpoint's connection takes another request.
    link_keeps: bool,
    keep_alive: bool,
    switched: bool,
}

/// A body on its way to the endpoint, beside everything else.
struct Upload<'a> {
    under_way: Option<Pin<Box<dyn Future<Output = Sent> + Send + 'a>>>,
    ended: Sent,
}

/// How a request's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Whole,
    ClientGone,
    EndpointGone,
    TooLong,
    Malformed,
    TimedOut,
}

impl Failure {
    pub fn refusal(self, endpoint: &Endpoint) -> Option<Refusal> {
        let says = |code, what: String| Some(Refusal::new(code, format!("endpoint {}: {what}", endpoint.id)));
        match self {
            Failure::Unreached(why) | Failure::Unanswered(why) => says(Code::BadGateway, why),
            Failure::Untrusted(why) => says(Code::BadGateway, why.detail),
            Failure::TimedOut(why) => says(Code::GatewayTimeout, why),
            Failure::Cut => says(Code::BadGateway, "it was drained, and its time was up".to_owned()),
            Failure::Client(refusal) => Some(refusal),
            Failure::ClientGone => None,
        }
    }

    pub fn is_endpoints(&self) -> bool {
        !matches!(self, Failure::Client(_) | Failure::ClientGone | Failure::Cut)
    }
}

impl Visit {
    pub async fn exchange(&mut self, ask: Ask<'_>) -> Next {
        let upstream = &*ask.route.upstream;
        let mut log = Log::new(ask.route, Moment::now());
        let mut wish = ask.wish;
        let mut last: Option<Refusal> = None;
        loop {
            let attempt = match Attempt::begin(upstream, &wish, self.random.next()) {
                Ok(attempt) => attempt,
                Err(nobody) => {
                    let refusal = last.unwrap_or_else(|| {
                        upstream.standing.turned_away.fetch_add(1, Relaxed);
                        Refusal::new(Code::NoEndpoint, nobody.0)
                    });
                    return self.give_up(&ask, refusal, &mut log).await;
                }
            };
            let failure = match self.attempt(&ask, &attempt, &mut log).await {
                Ok(next) => return next,
                Err(failure) => failure,
            };
            if failure.is_endpoints() {
                attempt.failed(Moment::now());
            }
            let again = match &failure {
                Failure::Unreached(_) => true,
                Failure::Unanswered(_) => ask.idempotent && ask.framing == Framing::Empty,
                _ => false,
            };
            if again && log.retries < upstream.config.retries.attempts && upstream.may_retry() {
                log.retries += 1;
                wish.tried.add(attempt.seat());
                last = failure.refusal(attempt.endpoint());
                continue;
            }
            return match failure.refusal(attempt.endpoint()) {
                Some(refusal) => self.give_up(&ask, refusal, &mut log).await,
                None => Next::Drop,
            };
        }
    }

    async fn give_up(&mut self, ask: &Ask<'_>, refusal: Refusal, log: &mut Log<'_>) -> Next {
        log.ended(&self.request[..ask.line], refusal.code.status(), None, &refusal.detail);
        let keep_alive = ask.keep_alive && ask.framing == Framing::Empty;
        self.refuse(refusal, keep_alive, ask.head).await
    }

    /// On a connection that waits, and if that one turns out to be dead, on a new one.
    async fn attempt(
        &mut self,
        ask: &Ask<'_>,
        attempt: &Attempt<'_>,
        log: &mut Log<'_>,
    ) -> Result<Next, Failure> {
        let endpoint = attempt.endpoint();
        let config = &attempt.upstream().config;
        if !config.send_proxy_protocol
            && let Some(link) = endpoint.take_idle(self.worker.index)
        {
            match self.on(link, ask, attempt, log).await {
                // Servers close connections that wait; that says nothing about how they are.
                Err(Failure::Unanswered(_)) if ask.idempotent && ask.framing == Framing::Empty => {}
                done => return done,
            }
        }
        let limit = Duration::from_millis(config.timeouts.connect_ms);
        let link = match timeout(limit, endpoint.connect()).await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) => return Err(Failure::Unreached(format!("no connection: {error}"))),
            Err(_) => {
                return Err(Failure::Unreached(format!(
                    "no connection within {} ms",
                    config.timeouts.connect_ms
                )));
            }
        };
        let mut link = link;
        if config.send_proxy_protocol {
            let here = self.stream.local_addr().unwrap_or(self.peer);
            let header = proxy_protocol::header(self.peer, here);
            link.write_all(&header).await.map_err(|error| Failure::Unreached(error.to_string()))?;
        }
        self.on(link, ask, attempt, log).await
    }

    async fn on(
        &mut self,
        mut link: TcpStream,
        ask: &Ask<'_>,
        attempt: &Attempt<'_>,
        log: &mut Log<'_>,
    ) -> Result<Next, Failure> {
        let (endpoint, config) = (attempt.endpoint(), &attempt.upstream().config);
        let idle = Duration::from_millis(config.timeouts.idle_ms);
        let told = |now: Moment| endpoint.is_cut(now);
        let Visit { stream, inbox, request, arrived, response, timer, worker, .. } = self;
        arrived.clear();
        response.clear();
        let (mut up_read, mut up_write) = link.split();
        let (mut client_read, mut client_write) = stream.split();
        let mut upload = match ask.framing {
            Framing::Empty => {
                let write = up_write.write_all(request);
                match timer.within(&mut Deadline::after(idle), told, write).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(Failure::Unanswered(format!("cannot be sent to: {error}"))),
                    Err(late) => return Err(gave_up(late, "took nothing", idle)),
                }
                Upload { under_way: None, ended: Sent::Whole }
            }
            framing => {
                let body = Body::new(framing);
                let max = ask.route.spec.max_body_bytes;
                let sending = send(request, body, inbox, &mut client_read, &mut up_write, idle, max);
                Upload { under_way: Some(Box::pin(sending)), ended: Sent::Whole }
            }
        };
        let mut deadline = Deadline::after(Duration::from_millis(config.timeouts.response_ms));
        let answer = loop {
            match read_head(arrived, response, ask, attempt, log, request, worker.is_closing())? {
                Some(answer) => break answer,
                // What the head before this said was not final.
                None if !response.is_empty() => {
                    let write = client_write.write_all(response);
                    match upload.beside(timer.within(&mut Deadline::after(idle), told, write)).await {
                        Ok(Ok(())) => response.clear(),
                        _ => return Err(Failure::ClientGone),
                    }
                    continue;
                }
                None if arrived.is_full() => return Err(Failure::Untrusted(bad("its head is too large"))),
                None => {}
            }
            let read = arrived.read_from(&mut up_read);
            let read = upload.or(timer, &mut deadline, told, read).await;
            match read {
                Some(Ok(Ok(1..))) => {}
                Some(Ok(Ok(0))) => {
                    return Err(Failure::Unanswered("closed the connection without an answer".to_owned()));
                }
                Some(Ok(Err(error))) => return Err(Failure::Unanswered(format!("no answer: {error}"))),
                Some(Err(late)) => {
                    let limit = Duration::from_millis(config.timeouts.response_ms);
                    return Err(gave_up(late, "no answer", limit));
                }
                None => match upload.ended {
                    Sent::Whole => {}
                    // It may have said why before it closed.
                    Sent::EndpointGone => deadline = Deadline::after(LAST_WORDS),
                    Sent::ClientGone => return Err(Failure::ClientGone),
                    Sent::TooLong => return Err(Failure::Client(too_long(ask.route))),
                    Sent::Malformed => return Err(Failure::Client(bad("the body's chunks are malformed"))),
                    Sent::TimedOut => {
                        let detail = format!("no byte of the body came within {} ms", idle.as_millis());
                        return Err(Failure::Client(Refusal::new(Code::RequestTimeout, detail)));
                    }
                },
            }
        };
        if answer.switched {
            drop(upload);
            let write = client_write.write_all(response);
            if !matches!(timer.within(&mut Deadline::after(idle), told, write).await, Ok(Ok(()))) {
                return Ok(Next::Drop);
            }
            tunnel::run((stream, inbox), (&mut link, arrived), idle, timer, told).await;
            return Ok(Next::Drop);
        }
        let mut body = Body::new(answer.framing);
        if !ask.http11 {
            body = body.unframed();
        }
        let relay = Relay { arrived, response, timer, idle };
        let whole = relay.run(&mut body, &mut up_read, &mut client_write, &mut upload, told).await;
        let sent = upload.is_whole();
        drop(upload);
        if whole && sent && answer.link_keeps && arrived.is_empty() && !config.send_proxy_protocol {
            endpoint.keep_idle(worker.index, link);
        }
        Ok(match whole {
            true if answer.keep_alive && sent => Next::Another,
            true => Next::Close,
            false => Next::Drop,
        })
    }
}

/// What an answer passes through.
struct Relay<'a> {
    arrived: &'a mut Buffer,
    /// Begins with the head.
    response: &'a mut Vec<u8>,
    timer: &'a mut Timer,
    idle: Duration,
}

impl Relay<'_> {
    /// Whether all of it reached the client.
    async fn run(
        self,
        body: &mut Body,
        up_read: &mut ReadHalf<'_>,
        client_write: &mut WriteHalf<'_>,
        upload: &mut Upload<'_>,
        told: impl Fn(Moment) -> bool,
    ) -> bool {
        let Relay { arrived, response, timer, idle } = self;
        let mut ended = false;
        loop {
            let Ok(used) = body.take(arrived.filled(), response) else { return false };
            arrived.consume(used);
            if !response.is_empty() {
                let write = client_write.write_all(response);
                if !matches!(
                    upload.beside(timer.within(&mut Deadline::after(idle), &told, write)).await,
                    Ok(Ok(()))
                ) {
                    return false;
                }
                response.clear();
            }
            if body.is_done() {
                return true;
            }
            if ended {
                return body.may_end();
            }
            let read = arrived.read_from(up_read);
            match upload.beside(timer.within(&mut Deadline::after(idle), &told, read)).await {
                Ok(Ok(0)) => ended = true,
                Ok(Ok(_)) => {}
                _ => return false,
            }
        }
    }
}

/// Reads a head that has arrived, and writes the one that the client gets. None while more has to come, or
/// after an answer that is not final.
fn read_head(
    arrived: &mut Buffer,
    response: &mut Vec<u8>,
    ask: &Ask<'_>,
    attempt: &Attempt<'_>,
    log: &mut Log<'_>,
    request: &[u8],
    closing: bool,
) -> Result<Option<Answer>, Failure> {
    if arrived.is_empty() {
        return Ok(None);
    }
    response.clear();
    let mut room = head::room();
    let asked = Asked { head: ask.head, upgrade: ask.upgrade };
    let Some(head) = head::response(arrived.filled(), &mut room, asked).map_err(Failure::Untrusted)? else {
        return Ok(None);
    };
    let len = head.len;
    if (100..200).contains(&head.status) && head.status != 101 {
        // The client may wait for this one before it sends its body; the others it would not miss.
        if head.status == 100 && ask.http11 && ask.expects_continue {
            response.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        arrived.consume(len);
        if response.is_empty() {
            return read_head(arrived, response, ask, attempt, log, request, closing);
        }
        return Ok(None);
    }
    let now = Moment::now();
    attempt.answered(head.status, now);
    log.ended(&request[..ask.line], head.status, Some(attempt), "");
    let switched = head.status == 101;
    let framing = match head.framing {
        // Who does not know chunks is told the end by the connection's.
        Framing::Chunked if !ask.http11 => Framing::Close,
        framing => framing,
    };
    let keep_alive = ask.keep_alive && framing != Framing::Close && !closing && !switched;
    // A vector takes all that is written.
    let _ = write!(response, "HTTP/1.1 {} {}\r\n", head.status, head.reason);
    let fields = head.headers.iter().map(|header| (header.name, header.value));
    let sticky = (ask.wish.sticky != Some(attempt.endpoint().token)).then_some(attempt.endpoint().token);
    headers::response(fields.clone(), |name| head.named.has(name), ask.route, sticky, response);
    if switched {
        response.header("connection", b"upgrade");
        let upgrade = fields.clone().find(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        response.header("upgrade", upgrade.map_or(b"", |(_, value)| value));
    } else {
        if framing == Framing::Chunked {
            response.header("transfer-encoding", b"chunked");
        }
        match (keep_alive, ask.http11) {
            (false, _) => response.header("connection", b"close"),
            (true, false) => response.header("connection", b"keep-alive"),
            (true, true) => {}
        }
    }
    response.extend_from_slice(b"\r\n");
    let answer = Answer { framing: head.framing, link_keeps: head.keeps_alive, keep_alive, switched };
    arrived.consume(len);
    Ok(Some(answer))
}

fn gave_up(late: Late, what: &str, limit: Duration) -> Failure {
    match late {
        Late::TimedOut => Failure::TimedOut(format!("{what} within {} ms", limit.as_millis())),
        Late::Told => Failure::Cut,
    }
}

/// Sends a head and the body behind it.
async fn send(
    head: &[u8],
    mut body: Body,
    inbox: &mut Buffer,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    idle: Duration,
    max: u64,
) -> Sent {
    let mut timer = Timer::new();
    let mut out = head.to_vec();
    let never = |_| false;
    loop {
        let Ok(used) = body.take(inbox.filled(), &mut out) else { return Sent::Malformed };
        inbox.consume(used);
        if body.content > max {
            return Sent::TooLong;
        }
        if !out.is_empty() {
            match timer.within(&mut Deadline::after(idle), never, to.write_all(&out)).await {
                Ok(Ok(())) => out.clear(),
                _ => return Sent::EndpointGone,
            }
        }
        if body.is_done() {
            return Sent::Whole;
        }
        match timer.within(&mut Deadline::after(idle), never, inbox.read_from(from)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Sent::ClientGone,
            Err(_) => return Sent::TimedOut,
        }
    }
}

impl Upload<'_> {
    /// Does `work`, and goes on sending meanwhile.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Some(sending) = &mut self.under_way
                && let Poll::Ready(ended) = sending.as_mut().poll(context)
            {
                (self.under_way, self.ended) = (None, ended);
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// The same, but none as soon as the body has ended; `deadline` begins only then.
    async fn or(
        &mut self,
        timer: &mut Timer,
        deadline: &mut Deadline,
        told: impl Fn(Moment) -> bool,
        read: impl Future<Output = io::Result<usize>>,
    ) -> Option<Result<io::Result<usize>, Late>> {
        let Some(sending) = &mut self.under_way else {
            return Some(timer.within(deadline, told, read).await);
        };
        // It has a deadline of its own for each of its bytes.
        let mut patience = Deadline::after(LONGEST_UPLOAD);
        let either = async {
            tokio::select! {
                biased;
                read = read => Some(read),
                ended = sending.as_mut() => {
                    self.ended = ended;
                    None
                }
            }
        };
        match timer.within(&mut patience, told, either).await {
            Ok(Some(read)) => Some(Ok(read)),
            Ok(None) => {
                self.under_way = None;
                None
            }
            Err(late) => Some(Err(late)),
        }
    }

    fn is_whole(&self) -> bool {
        self.under_way.is_none() && self.ended == Sent::Whole
    }
}
