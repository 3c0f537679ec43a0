//! The stream: one WebSocket, folded into the store, that survives the node it came from.
//!
//! All timing is in [`Stream::tick`], a few times a second: an attempt that takes too long, a node
//! that has fallen silent, and the next attempt that is due. Callbacks of the socket only note what
//! happened. At a gap or an old state the page asks for a fresh view, or continues with another node.

use crate::{
    browser,
    lock::LockFilter,
    peers::{Peers, Position, Verdict, from_text, judge_events, judge_view, to_text},
    signal::set,
    store::{Link, LinkPhase, SILENCE_MS, Store},
    traffic,
};
use gloo_timers::callback::Interval;
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{
    id::Incarnation,
    stream::{Assembler, ServerMessage},
};
use std::{cell::RefCell, rc::Rc};
use wasm_bindgen::{JsCast, closure::Closure};
use web_sys::{Event, MessageEvent, WebSocket};

/// How often timing is looked at.
const TICK_MS: u32 = 200;
/// A node that has not sent a first message by then is given up.
const OPENING_MS: f64 = 3_000.0;
/// How often the latency is measured.
const PING_EVERY_MS: f64 = 5_000.0;
/// Where this tab remembers the members.
const PEERS_KEY: &str = "ringmaster.peers";

#[derive(Clone, Copy, Debug)]
enum Phase {
    Waiting { until: f64 },
    Opening { since: f64 },
    Live { heard: f64 },
}

/// A socket with its callbacks. Dropping it silences and closes it.
struct Socket {
    socket: WebSocket,
    _message: Closure<dyn FnMut(MessageEvent)>,
    _close: Closure<dyn FnMut(Event)>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.socket.set_onmessage(None);
        self.socket.set_onclose(None);
        self.socket.set_onerror(None);
        self.socket.close().ok();
    }
}

struct Stream {
    store: Store,
    peers: Peers,
    phase: Phase,
    socket: Option<Socket>,
    /// Sockets that were given up in a callback of theirs; dropped at the next tick.
    retired: Vec<Socket>,
    /// Callbacks of an earlier socket have an earlier number, and are not listened to.
    attempt: u64,
    /// Whether something was missing, so that the next attempt asks for a whole view.
    fresh: bool,
    incarnation: Option<Incarnation>,
    /// The parts of a large message of the current socket.
    assembler: Assembler,
    /// The locks that the page follows at the connected node.
    following: Option<LockFilter>,
    /// The upstream whose endpoints it was asked for, where it was asked for the traffic.
    traffic: Option<Option<String>>,
    pinged: f64,
}

/// The nodes to try, before anything is known but what an earlier page of this tab has seen.
pub fn known_peers() -> Peers {
    Peers::new(&browser::origin(), from_text(&browser::recall(PEERS_KEY).unwrap_or_default()))
}

/// Starts streaming into the store, for as long as the page lives.
pub fn start(store: Store, peers: Peers) {
    let stream = Rc::new(RefCell::new(Stream {
        store,
        peers,
        phase: Phase::Waiting { until: 0.0 },
        socket: None,
        retired: Vec::new(),
        attempt: 0,
        fresh: false,
        incarnation: None,
        assembler: Assembler::default(),
        following: None,
        traffic: None,
        pinged: 0.0,
    }));
    Stream::tick(&stream);
    Interval::new(TICK_MS, move || Stream::tick(&stream)).forget();
}

impl Stream {
    fn tick(this: &Rc<RefCell<Stream>>) {
        let now = browser::monotonic_ms();
        let mut stream = this.borrow_mut();
        stream.retired.clear();
        stream.store.tick();
        stream.follow_locks();
        stream.follow_traffic();
        match stream.phase {
            Phase::Waiting { until } if now >= until => stream.open(this, now),
            Phase::Opening { since } if now - since > OPENING_MS => stream.lose(),
            Phase::Live { heard } if now - heard > SILENCE_MS as f64 => stream.lose(),
            Phase::Live { .. } if now - stream.pinged > PING_EVERY_MS => {
                stream.pinged = now;
                let store = stream.store;
                spawn_local(async move { set(store.latency_ms, store.api.ping().await) });
            }
            _ => {}
        }
    }

    /// Follows the locks that the page shows, where that has changed.
    fn follow_locks(&mut self) {
        let wanted = self.store.locks_wanted.try_with_untracked(Clone::clone).flatten();
        if wanted == self.following || !matches!(self.phase, Phase::Live { .. }) {
            return;
        }
        let text = wanted.as_ref().map_or_else(LockFilter::unfollow, LockFilter::message);
        if self.socket.as_ref().is_some_and(|socket| socket.socket.send_with_str(&text).is_ok()) {
            self.following = wanted;
        }
    }

    /// Asks for the traffic, always, and for the endpoints of the upstream that the page looks at.
    fn follow_traffic(&mut self) {
        let wanted = self.store.traffic_wanted.try_with_untracked(Clone::clone);
        if wanted == self.traffic || !matches!(self.phase, Phase::Live { .. }) {
            return;
        }
        let text = traffic::wanted(wanted.as_ref().and_then(Option::as_deref));
        if self.socket.as_ref().is_some_and(|socket| socket.socket.send_with_str(&text).is_ok()) {
            self.traffic = wanted;
        }
    }

    fn open(&mut self, this: &Rc<RefCell<Stream>>, now: f64) {
        self.attempt += 1;
        self.phase = Phase::Opening { since: now };
        self.assembler = Assembler::default();
        self.following = None;
        self.traffic = None;
        let attempt = self.attempt;
        let after = match self.store.position() {
            Some(Position { incarnation, revision }) if !self.fresh => {
                let cluster = self.store.cluster();
                format!("?after={revision}&incarnation={incarnation}&cluster={cluster}")
            }
            _ => String::new(),
        };
        // http becomes ws, and https becomes wss.
        let url = format!("{}/v1/stream{after}", self.peers.current().url.replacen("http", "ws", 1));
        let Ok(socket) = WebSocket::new(&url) else { return self.lose() };
        let message = Closure::new({
            let this = Rc::clone(this);
            move |event: MessageEvent| {
                let mut stream = this.borrow_mut();
                if stream.attempt == attempt {
                    stream.receive(&event.data().as_string().unwrap_or_default());
                }
            }
        });
        let close = Closure::new({
            let this = Rc::clone(this);
            move |_: Event| {
                let mut stream = this.borrow_mut();
                if stream.attempt == attempt && !matches!(stream.phase, Phase::Waiting { .. }) {
                    stream.lose();
                }
            }
        });
        socket.set_onmessage(Some(message.as_ref().unchecked_ref()));
        socket.set_onclose(Some(close.as_ref().unchecked_ref()));
        socket.set_onerror(Some(close.as_ref().unchecked_ref()));
        self.socket = Some(Socket { socket, _message: message, _close: close });
        if self.store.heard_at.try_with_untracked(Option::is_none) == Some(true) {
            self.show(LinkPhase::Opening);
        }
    }

    /// Gives the current node up and lets the next one have its turn.
    fn lose(&mut self) {
        let wait = self.peers.fail(browser::random());
        self.reconnect(wait.as_secs_f64() * 1_000.0);
    }

    fn reconnect(&mut self, wait_ms: f64) {
        self.retired.extend(self.socket.take());
        self.attempt += 1;
        self.phase = Phase::Waiting { until: browser::monotonic_ms() + wait_ms };
        set(self.store.latency_ms, None);
        self.show(LinkPhase::Lost);
    }

    fn show(&self, phase: LinkPhase) {
        let peer = self.peers.current().clone();
        let last = self.store.link.try_with_untracked(|link| link.node).flatten();
        let node = if phase == LinkPhase::Live { peer.node } else { last };
        set(self.store.link, Link { phase, peer, node });
    }

    fn receive(&mut self, text: &str) {
        let message = match serde_json::from_str::<ServerMessage>(text) {
            Ok(message) => message,
            Err(error) => {
                // A newer node may send what this page does not know; what it changes would be a gap.
                leptos::logging::warn!("a stream message that cannot be read: {error}");
                return;
            }
        };
        if let Phase::Live { heard } = &mut self.phase {
            *heard = browser::monotonic_ms();
        }
        self.store.heard();
        let verdict = match self.assembler.take(message) {
            Ok(Some(whole)) => self.take(whole),
            Ok(None) => {
                // A large view may take longer than a first message may.
                if let Phase::Opening { since } = &mut self.phase {
                    *since = browser::monotonic_ms();
                }
                Verdict::Ignore
            }
            Err(_) => Verdict::Gap,
        };
        match verdict {
            Verdict::Accept | Verdict::Ignore => {}
            Verdict::Gap => {
                self.fresh = true;
                self.reconnect(0.0);
            }
            Verdict::Behind => self.lose(),
        }
    }

    fn take(&mut self, message: ServerMessage) -> Verdict {
        match message {
            // The stream continues from the page's position; there may be no new events.
            ServerMessage::Resumed { node, incarnation, .. } => {
                self.incarnation = Some(incarnation);
                self.peers.identify(node);
                if self.store.position().is_some_and(|shown| shown.incarnation == incarnation) {
                    self.go_live();
                    Verdict::Accept
                } else {
                    Verdict::Gap
                }
            }
            ServerMessage::View { node, view, .. } => {
                self.incarnation = Some(view.incarnation);
                self.peers.identify(node);
                let position = Position { incarnation: view.incarnation, revision: view.revision };
                // Another cluster may be at the address by now: then nothing of what is shown counts.
                let shown = self.store.position().filter(|_| self.store.cluster() == view.id);
                let verdict = judge_view(shown, position);
                if verdict == Verdict::Accept {
                    self.fresh = false;
                    self.store.replace_view(*view);
                    self.learn();
                    self.go_live();
                }
                verdict
            }
            ServerMessage::Events { prev, batch, .. } => {
                let shown = self
                    .store
                    .position()
                    .filter(|shown| self.incarnation.is_none_or(|now| now == shown.incarnation));
                let verdict = judge_events(shown, prev, batch.revision);
                if verdict == Verdict::Accept {
                    self.store.fold(&batch);
                    self.learn();
                    self.go_live();
                }
                verdict
            }
            ServerMessage::Sample { sample, locks } => {
                self.store.take_sample(*sample, locks);
                Verdict::Accept
            }
            ServerMessage::Locks { revision, page } => {
                self.store.take_locks(revision, page);
                Verdict::Accept
            }
            ServerMessage::Traffic { metrics, .. } => {
                let at = self.store.exact_now();
                self.store.traffic.update(|heard| heard.push(at, metrics));
                Verdict::Accept
            }
            // Parts come together as their whole; nothing of the other kinds is asked for.
            ServerMessage::ViewPart { .. } | ServerMessage::Audit { .. } | ServerMessage::Problem { .. } => {
                Verdict::Ignore
            }
            ServerMessage::Behind { try_urls, .. } => {
                self.lose();
                if let Some(url) = try_urls.first() {
                    self.peers.prefer(url);
                    self.show(LinkPhase::Lost);
                }
                Verdict::Ignore
            }
        }
    }

    fn learn(&mut self) {
        let before = self.peers.all().to_vec();
        self.store.with_members(|members| self.peers.learn(members));
        if self.peers.all() != before {
            browser::remember(PEERS_KEY, &to_text(self.peers.all()));
        }
    }

    fn go_live(&mut self) {
        if matches!(self.phase, Phase::Live { .. }) {
            return;
        }
        self.phase = Phase::Live { heard: browser::monotonic_ms() };
        self.pinged = f64::NEG_INFINITY;
        self.peers.succeed();
        self.store.api.follow(&self.peers.current().url);
        self.show(LinkPhase::Live);
        let store = self.store;
        spawn_local(async move {
            if let Ok(demo) = store.api.is_demo().await {
                set(store.demo, demo);
            }
        });
    }
}
