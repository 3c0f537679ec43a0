//! A link: this node's way to one peer, kept up for as long as the peer is a member.
//!
//! The link's task dials, shakes hands, converses, and starts again when that ends. Calls are made
//! on whatever connection there is; when it goes, all that are unanswered fail at once. A call is
//! never made again on a new connection: only its maker knows whether that is safe.

use super::{
    CallError, DIAL_TIMEOUT, LinkChange, LinkState, MAX_REDIAL_DELAY, MEASURE_INTERVAL, MIN_REDIAL_DELAY,
    PING_INTERVAL, Request, Shared,
    arrivals::Arrivals,
    connection::{Ended, converse},
    frame::{Failure, FailureCode, Frame, Kind, Lane, MAX_BODY_BYTES},
    handshake::{self, Open, Welcome},
    in_flight_limit, lock,
    outgoing::{Outgoing, PushError, queue},
    probe::Probes,
};
use bytes::Bytes;
use ringmaster_common::id::NodeId;
use ringmaster_net::clock;
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    sync::{Notify, oneshot},
    time::{sleep, timeout},
};

#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: NodeId,
    pub(super) addr: String,
    state: Mutex<State>,
    pub(super) probes: Mutex<Probes>,
    /// There is reason to believe that the peer can be reached now.
    redial: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The peer is no longer a member: nothing is dialled or called any more.
    closed: bool,
    connection: Option<Connection>,
    last_request: u64,
    rtt: Option<Duration>,
    arrivals: Arrivals,
    feature_level: Option<u32>,
    /// Why there is no connection; what it says was logged.
    trouble: Option<String>,
}

#[derive(Debug)]
struct Connection {
    outgoing: Outgoing,
    unanswered: HashMap<u64, Unanswered>,
    /// How many calls are unanswered, by lane.
    in_flight: [usize; 2],
}

#[derive(Debug)]
struct Unanswered {
    lane: Lane,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
}

impl Link {
    pub(super) fn new(peer: NodeId, addr: String) -> Link {
        Link { peer, addr, state: Mutex::default(), probes: Mutex::default(), redial: Notify::new() }
    }

    /// Keeps the link up until its task is ended.
    pub(super) async fn run(self: Arc<Link>, shared: Arc<Shared>) {
        let mut delay = MIN_REDIAL_DELAY;
        loop {
            match self.dial(&shared).await {
                Ok(open) => {
                    let since = clock::now();
                    let trouble = self.converse(open, &shared).await;
                    self.disconnected(&shared, trouble);
                    // A peer that accepts and hangs up is not dialled at full speed for ever.
                    if clock::now().saturating_duration_since(since) > MAX_REDIAL_DELAY {
                        delay = MIN_REDIAL_DELAY;
                    }
                }
                Err(trouble) => self.note(trouble),
            }
            // Jitter, so that nodes that lost each other do not redial in step.
            let jittered = delay.mul_f64(rand::random_range(0.5..1.0));
            delay = (delay * 2).min(MAX_REDIAL_DELAY);
            tokio::select! {
                () = sleep(jittered) => {}
                () = self.redial.notified() => {}
            }
        }
    }

    async fn dial(&self, shared: &Shared) -> Result<Open<Welcome>, String> {
        let stream = match timeout(DIAL_TIMEOUT, TcpStream::connect(&self.addr)).await {
            Err(_) => return Err(format!("no TCP connection within {DIAL_TIMEOUT:?}")),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(stream)) => stream,
        };
        handshake::dial(stream, &shared.local, self.peer).await.map_err(|error| {
            if error.is_dismissal() {
                shared.dismissed.send_replace(true);
            }
            if let Some(why) = error.superseded_by() {
                shared.superseded.send_replace(Some((self.peer, why.to_owned())));
            }
            error.to_string()
        })
    }

    /// Uses a connection until it ends, and says why it did.
    async fn converse(&self, open: Open<Welcome>, shared: &Shared) -> String {
        let Open { socket, format, peer: welcome } = open;
        let (outgoing, queue) = queue(format);
        if !self.connected(&outgoing, format, &welcome, shared) {
            return "the peer is no longer a member".to_owned();
        }
        // The id and the time of the ping that waits for its pong.
        let pinged: Mutex<Option<(u64, Instant)>> = Mutex::default();
        // When something was last heard on this very connection.
        let heard = Mutex::new(clock::now());
        let pings = async {
            let mut ticks = clock::ticks(PING_INTERVAL);
            let mut last = None::<Instant>;
            for id in 1.. {
                ticks.tick().await;
                let now = clock::now();
                let within = |at: Instant, limit| now.saturating_duration_since(at) < limit;
                if within(*lock(&heard), PING_INTERVAL) && last.is_some_and(|at| within(at, MEASURE_INTERVAL))
                {
                    continue;
                }
                last = Some(now);
                *lock(&pinged) = Some((id, now));
                // No room for a ping: other frames are on their way, and their answers show the same.
                let _ = outgoing.push(&Frame::bare(Kind::Ping, id));
            }
        };
        let conversation = converse(socket, format, queue, |frame| {
            let now = clock::now();
            self.heard(now);
            *lock(&heard) = now;
            match frame.kind {
                Kind::Reply => self.answered(frame.id, Ok(frame.body)),
                Kind::Failure => {
                    let failure = postcard::from_bytes(&frame.body).unwrap_or_else(|_| {
                        Failure::new(FailureCode::Malformed, "the peer's failure cannot be understood")
                    });
                    self.answered(frame.id, Err(CallError::Failed(failure)));
                }
                Kind::Pong => {
                    if let Some((_, sent)) = lock(&pinged).take_if(|(id, _)| *id == frame.id) {
                        self.lock().rtt = Some(now.duration_since(sent));
                    }
                }
                Kind::Request | Kind::Cast | Kind::Ping => return Err(Ended::WrongWay),
            }
            Ok(())
        });
        tokio::select! {
            ended = conversation => ended.to_string(),
            () = pings => Ended::Closed.to_string(),
        }
    }

    /// Queues a request. What is queued one after the other arrives in that order, lane by lane.
    pub(super) fn start_call(self: &Arc<Link>, request: Request) -> Result<StartedCall, CallError> {
        let lane = request.lane;
        let mut state = self.lock();
        state.last_request += 1;
        let id = state.last_request;
        let connection = state.open()?;
        if connection.in_flight[lane.position()] >= in_flight_limit(lane) {
            return Err(CallError::Busy);
        }
        connection.push(Kind::Request, id, request)?;
        let (sender, answer) = oneshot::channel();
        connection.unanswered.insert(id, Unanswered { lane, answer: sender });
        connection.in_flight[lane.position()] += 1;
        Ok(StartedCall { link: Arc::clone(self), id, answer })
    }

    pub(super) fn cast(&self, request: Request) -> Result<(), CallError> {
        self.lock().open()?.push(Kind::Cast, 0, request)
    }

    /// Something was heard of the peer, here or on a connection that it dialled.
    pub(super) fn heard(&self, now: Instant) {
        self.lock().arrivals.heard(now);
    }

    pub(super) fn state(&self) -> LinkState {
        let (state, now) = (self.lock(), clock::now());
        LinkState {
            peer: self.peer,
            connected: state.connection.is_some(),
            rtt: state.rtt,
            silent_for: state.arrivals.silence(now),
            phi: state.arrivals.phi(now),
            feature_level: state.feature_level,
            trouble: state.trouble.clone(),
            reachability: lock(&self.probes).reachability(),
        }
    }

    /// For good: the link's task may still run, but it will not connect again.
    pub(super) fn close(&self, shared: &Shared) {
        self.lock().closed = true;
        self.hang_up(shared);
    }

    /// Dials without further delay, unless there is a connection.
    pub(super) fn dial_soon(&self) {
        if self.lock().connection.is_none() {
            self.redial.notify_one();
        }
    }

    fn connected(&self, outgoing: &Outgoing, format: u8, welcome: &Welcome, shared: &Shared) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.connection =
            Some(Connection { outgoing: outgoing.clone(), unanswered: HashMap::new(), in_flight: [0; 2] });
        state.arrivals.heard(clock::now());
        state.feature_level = Some(welcome.feature_level);
        state.trouble = None;
        drop(state);
        tracing::info!(peer = %self.peer, addr = self.addr, format, "connected to a peer");
        shared.changed(LinkChange { peer: self.peer, connected: true });
        true
    }

    fn disconnected(&self, shared: &Shared, trouble: String) {
        if self.hang_up(shared) {
            self.note(trouble);
        }
    }

    /// Fails the unanswered calls, and reports the change. False if there was no connection.
    fn hang_up(&self, shared: &Shared) -> bool {
        let Some(connection) = self.lock().connection.take() else { return false };
        for unanswered in connection.unanswered.into_values() {
            // The caller may have given up.
            let _ = unanswered.answer.send(Err(CallError::Disconnected));
        }
        shared.changed(LinkChange { peer: self.peer, connected: false });
        true
    }

    /// Logs why there is no connection, once for each change.
    fn note(&self, trouble: String) {
        let mut state = self.lock();
        if state.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(peer = %self.peer, addr = self.addr, trouble, "no connection to a peer");
            state.rtt = None;
            state.trouble = Some(trouble);
        }
    }

    fn answered(&self, id: u64, answer: Result<Bytes, CallError>) {
        // An answer to a call that was given up is no error.
        if let Some(unanswered) = self.lock().take(id) {
            let _ = unanswered.answer.send(answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn open(&mut self) -> Result<&mut Connection, CallError> {
        self.connection.as_mut().ok_or(CallError::NotConnected)
    }

    fn take(&mut self, id: u64) -> Option<Unanswered> {
        let connection = self.connection.as_mut()?;
        let unanswered = connection.unanswered.remove(&id)?;
        connection.in_flight[unanswered.lane.position()] -= 1;
        Some(unanswered)
    }
}

impl Connection {
    fn push(&self, kind: Kind, id: u64, request: Request) -> Result<(), CallError> {
        let Request { channel, group, trace, lane, body } = request;
        if body.len() > MAX_BODY_BYTES {
            return Err(CallError::TooLarge(body.len()));
        }
        let frame = Frame { kind, lane, channel, group, id, trace, body };
        self.outgoing.push(&frame).map_err(|error| match error {
            PushError::Full => CallError::Busy,
            PushError::Closed => CallError::NotConnected,
        })
    }
}

/// A call that was queued. Dropped, it is given up; the peer may serve it all the same.
#[derive(Debug)]
pub(super) struct StartedCall {
    link: Arc<Link>,
    id: u64,
    answer: oneshot::Receiver<Result<Bytes, CallError>>,
}

impl Future for StartedCall {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(answer.unwrap_or(Err(CallError::Disconnected)))
    }
}

impl Drop for StartedCall {
    fn drop(&mut self) {
        self.link.lock().take(self.id);
    }
}
