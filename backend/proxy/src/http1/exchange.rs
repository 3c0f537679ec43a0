//! One request and its answer, from HTTP/1 to HTTP/1.
//!
//! What always holds: a request is sent again only if the endpoint cannot have seen it, or if seeing it
//! twice changes nothing and there is no body that is gone by then; an endpoint's connection is used
//! again only if both sides agree that nothing is left on it; after an upgrade was asked for, no byte of the
//! client's goes on before the endpoint has said 101; and where an answer breaks off, the client's
//! connection breaks off with it, so that nobody takes half of it for the whole.
//!
//! A client that hangs up while it waits is noticed, and its request given up. One that says no more but
//! listens still looks the same, and is taken for gone.

use super::{
    ANSWER_PATIENCE, Manner, Next, Visit,
    ends::{Body as ClientBody, Reply, hung_up, unless, write_head},
};
use crate::{
    ask::Ask,
    attempt::Attempt,
    body::Body,
    buffer::Buffer,
    course::{Course, Failure, Then},
    head::{self, Asked, Framing, MAX_INTERIM, bad},
    headers::{self, Sink as _},
    http2::link,
    moment::Moment,
    relay::{self, Carried, Ending, Terms},
    timer::{Deadline, Late, Timer, never_told},
    tunnel::{self, Speech},
    upload::{LAST_WORDS, Sent, Upload},
};
use std::{io::Write as _, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

/// What has arrived of an answer.
enum Arrival {
    Partial,
    /// It is not final. What the client is told of it is written.
    Interim,
    Final(Head),
}

/// An answer whose head was read.
struct Head {
    status: u16,
    framing: Framing,
    /// Whether the endpoint's connection takes another request.
    link_keeps: bool,
    keep_alive: bool,
    /// What is spoken from now on, where it is HTTP no more.
    switched: bool,
}

impl Visit {
    pub(super) async fn exchange(&mut self, ask: Ask<'_>, manner: Manner) -> Next {
        let mut course = Course::new(ask.route, ask.wish, self.peer.ip());
        loop {
            let moved = course.moved();
            let upstream = moved.as_deref().unwrap_or(&ask.route.upstream);
            let refusal = match course.attempt(upstream, self.random.next()) {
                Err(refusal) => refusal,
                Ok(attempt) => {
                    let tried = match &ask.onward {
                        None => self.attempt(&ask, manner, &attempt, &course).await,
                        Some(_) => self.attempt_http2(&ask, manner, &attempt, &course).await,
                    };
                    let failure = match tried {
                        Ok(next) => return next,
                        Err(failure) => failure,
                    };
                    let line = &self.request[..ask.line];
                    match course.failed(line, &attempt, failure, ask.is_resendable(), &self.worker.table) {
                        Then::Again => continue,
                        Then::Refuse(refusal) => refusal,
                        Then::Nothing => return Next::Drop,
                    }
                }
            };
            course.refused(&self.request[..ask.line], &refusal);
            let keep_alive = manner.keep_alive && ask.framing == Framing::Empty;
            return self.refuse(refusal, keep_alive, ask.head).await;
        }
    }

    /// On a connection that waits, and if that one turns out to be dead, on a new one.
    async fn attempt(
        &mut self,
        ask: &Ask<'_>,
        manner: Manner,
        attempt: &Attempt<'_>,
        course: &Course<'_>,
    ) -> Result<Next, Failure> {
        if let Some(link) = attempt.take_idle(self.worker.index, ask.is_resendable()) {
            match self.on(link, ask, manner, attempt, course).await {
                Err(Failure::Unanswered(_)) if ask.is_resendable() && attempt.was_stale() => {}
                done => return done,
            }
        }
        let here = self.stream.local_addr().unwrap_or(self.peer);
        let link = unless(hung_up(&self.stream), attempt.connect(self.peer, here)).await;
        let link = link.unwrap_or(Err(Failure::ClientGone))?;
        self.on(link, ask, manner, attempt, course).await
    }

    /// Beside other requests, on a connection that speaks HTTP/2.
    async fn attempt_http2(
        &mut self,
        ask: &Ask<'_>,
        manner: Manner,
        attempt: &Attempt<'_>,
        course: &Course<'_>,
    ) -> Result<Next, Failure> {
        let Visit { stream, inbox, request, timer, worker, peer, .. } = self;
        let here = stream.local_addr().unwrap_or(*peer);
        let opening = link::open(attempt, ask, worker.index, *peer, here);
        let (seat, sink, mut answer) =
            unless(hung_up(stream), opening).await.unwrap_or(Err(Failure::ClientGone))?;
        let (read, write) = stream.split();
        let mut reply = Reply::new(write, ask, manner.unless(worker.is_closing()));
        if ask.framing != Framing::Empty {
            let told = timer.within(&mut Deadline::after(ANSWER_PATIENCE), never_told, reply.go_on()).await;
            told.map_err(|_| Failure::ClientGone)??;
        }
        let body = ClientBody::new(read, inbox, ask.framing);
        let terms = Terms { ask, attempt, course, line: &request[..ask.line] };
        let carried = relay::carry(&terms, body, sink, &mut answer, &mut reply, timer).await;
        seat.left(&carried);
        let Carried { ending, sent } = carried?;
        Ok(ending.next(reply.keeps_alive() && sent))
    }

    async fn on(
        &mut self,
        mut link: TcpStream,
        ask: &Ask<'_>,
        manner: Manner,
        attempt: &Attempt<'_>,
        course: &Course<'_>,
    ) -> Result<Next, Failure> {
        let (endpoint, config) = (attempt.endpoint(), &attempt.upstream().config);
        let idle = Duration::from_millis(config.timeouts.idle_ms);
        let told = |now: Moment| endpoint.is_cut(now);
        let Visit { stream, inbox, request, arrived, response, timer, worker, .. } = self;
        let line = &request[..ask.line];
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
                    Err(late) => return Err(Failure::late(late, "took nothing", idle)),
                }
                Upload::none()
            }
            framing => {
                let body = Body::new(framing);
                let max = ask.route.spec.max_body_bytes;
                Upload::begin(send(request, body, inbox, &mut client_read, &mut up_write, idle, max))
            }
        };
        let mut deadline = Deadline::after(Duration::from_millis(config.timeouts.response_ms));
        let mut interim = 0;
        let answer = loop {
            // Who is answered before all was said has to stop there.
            let manner = manner.unless(worker.is_closing() || upload.is_under_way());
            match read_head(arrived, response, ask, manner, attempt, course, line)? {
                Arrival::Final(answer) => break answer,
                Arrival::Interim if interim == MAX_INTERIM => {
                    return Err(Failure::Untrusted(head::never_final()));
                }
                Arrival::Interim => {
                    interim += 1;
                    let write = client_write.write_all(response);
                    match upload.beside(timer.within(&mut Deadline::after(idle), told, write)).await {
                        Ok(Ok(())) => continue,
                        Err(Late::Told) => return Err(Failure::Cut),
                        _ => return Err(Failure::ClientGone),
                    }
                }
                Arrival::Partial if arrived.is_full() => {
                    return Err(Failure::Untrusted(bad("its head is too large")));
                }
                Arrival::Partial => {}
            }
            let read = unless(hung_up(client_write.as_ref()), arrived.read_from(&mut up_read));
            match upload.or(timer, &mut deadline, told, read).await {
                Some(Ok(Some(Ok(1..)))) => {}
                Some(Ok(Some(Ok(0)))) => {
                    return Err(Failure::Unanswered("closed the connection without an answer".to_owned()));
                }
                Some(Ok(Some(Err(error)))) => return Err(Failure::Unanswered(format!("no answer: {error}"))),
                Some(Ok(None)) => return Err(Failure::ClientGone),
                Some(Err(late)) => return Err(Failure::late(late, "no answer", deadline.limit())),
                None => {
                    upload.ended.check(ask.route, idle)?;
                    if upload.ended == Sent::EndpointGone {
                        deadline = Deadline::after(LAST_WORDS);
                    }
                }
            }
        };
        if answer.switched {
            drop(upload);
            attempt.ended(answer.status, Ending::Whole);
            let write = client_write.write_all(response);
            if !matches!(timer.within(&mut Deadline::after(idle), told, write).await, Ok(Ok(()))) {
                return Ok(Next::Torn);
            }
            tunnel::run((stream, inbox), (&mut link, arrived), Speech::WebSocket, idle, timer, told).await;
            return Ok(Next::Drop);
        }
        let mut body = Body::new(answer.framing);
        if !manner.http11 {
            body = body.unframed();
        }
        let relay = Relay { arrived, response, timer, idle };
        let ending = relay.run(&mut body, &mut up_read, &mut client_write, &mut upload, told).await;
        attempt.ended(answer.status, ending);
        let sent = upload.is_whole();
        drop(upload);
        if ending == Ending::Whole
            && sent
            && answer.link_keeps
            && arrived.is_empty()
            && !config.send_proxy_protocol
        {
            endpoint.keep_idle(worker.index, link);
        }
        Ok(ending.next(answer.keep_alive && sent))
    }
}

impl Ending {
    /// What becomes of the client's connection. `keeps_alive`: both sides could go on.
    fn next(self, keeps_alive: bool) -> Next {
        match self {
            Ending::Whole if keeps_alive => Next::Another,
            Ending::Whole => Next::Close,
            Ending::BrokenOff | Ending::GivenUp => Next::Torn,
        }
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
    async fn run(
        self,
        body: &mut Body,
        up_read: &mut ReadHalf<'_>,
        client_write: &mut WriteHalf<'_>,
        upload: &mut Upload<'_>,
        told: impl Fn(Moment) -> bool,
    ) -> Ending {
        let Relay { arrived, response, timer, idle } = self;
        let mut ended = false;
        loop {
            let Ok(used) = body.take(arrived.filled(), response) else { return Ending::BrokenOff };
            arrived.consume(used);
            if !response.is_empty() {
                let write = client_write.write_all(response);
                if !matches!(
                    upload.beside(timer.within(&mut Deadline::after(idle), &told, write)).await,
                    Ok(Ok(()))
                ) {
                    return Ending::GivenUp;
                }
                response.clear();
            }
            if body.is_done() || ended && body.may_end() {
                return Ending::Whole;
            }
            if ended {
                return Ending::BrokenOff;
            }
            let read = unless(hung_up(client_write.as_ref()), arrived.read_from(up_read));
            match upload.beside(timer.within(&mut Deadline::after(idle), &told, read)).await {
                Ok(Some(Ok(0))) => ended = true,
                Ok(Some(Ok(_))) => {}
                // It may wait for what the client does not send.
                Err(Late::TimedOut) if !upload.is_whole() => return Ending::GivenUp,
                Ok(Some(Err(_))) | Err(Late::TimedOut) => return Ending::BrokenOff,
                Ok(None) | Err(Late::Told) => return Ending::GivenUp,
            }
            // What is wrong with the request is not waited for to the end of the answer.
            if !upload.is_under_way() && !matches!(upload.ended, Sent::Whole | Sent::EndpointGone) {
                return Ending::GivenUp;
            }
        }
    }
}

/// Reads a head that has arrived, and writes the one that the client gets.
fn read_head(
    arrived: &mut Buffer,
    response: &mut Vec<u8>,
    ask: &Ask<'_>,
    manner: Manner,
    attempt: &Attempt<'_>,
    course: &Course<'_>,
    line: &[u8],
) -> Result<Arrival, Failure> {
    if arrived.is_empty() {
        return Ok(Arrival::Partial);
    }
    response.clear();
    let mut room = head::room();
    let asked = Asked { head: ask.head, upgrade: ask.upgrade };
    let Some(head) = head::response(arrived.filled(), &mut room, asked).map_err(Failure::Untrusted)? else {
        return Ok(Arrival::Partial);
    };
    let fields = head.headers.iter().map(|header| (header.name, header.value));
    let named = |name: &str| head.named.has(name);
    let len = head.len;
    if (100..200).contains(&head.status) && head.status != 101 {
        // Who did not ask whether to go on is not told to.
        if manner.http11 && (head.status != 100 || manner.expects_continue) {
            // A vector takes all that is written.
            let _ = write!(response, "HTTP/1.1 {} {}\r\n", head.status, head.reason);
            for (name, value) in fields {
                let frames = name.eq_ignore_ascii_case("content-length");
                if !frames && !headers::belongs_to_connection(name) && !named(name) {
                    response.header(name, value);
                }
            }
            response.extend_from_slice(b"\r\n");
        }
        arrived.consume(len);
        return Ok(Arrival::Interim);
    }
    course.answered(line, head.status, attempt);
    let status = (head.status, head.reason, head.framing);
    let sticky = course.sticky(attempt);
    let keep_alive = write_head(status, fields, named, ask.route, sticky, manner, response);
    let switched = head.status == 101;
    let answer = Head {
        status: head.status,
        framing: head.framing,
        link_keeps: head.keeps_alive,
        keep_alive,
        switched,
    };
    arrived.consume(len);
    Ok(Arrival::Final(answer))
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
