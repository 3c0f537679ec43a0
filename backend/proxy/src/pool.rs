//! The connections to one endpoint that are kept for further requests.
//!
//! Each worker has its own idle HTTP/1 connections and its own shared HTTP/2 connections. A lock here is that of one
//! worker: no request waits for a request of another worker, only briefly for the housekeeping of once a second.
//!
//! What always holds: an idle connection that holds bytes, or its end, is never used again, as far as that can be known
//! before something is sent on it. An endpoint may close an idle connection at any time. So a request that must not be
//! sent twice uses a connection that was used a moment ago, or on a new one.

pub mod http2;
pub mod reuse;

use crate::{
    address::Address,
    coarse_clock::CoarseInstant,
    connect::{is_quiet, is_readable},
};
use reuse::{is_closing_soon, is_idle_for_long, is_too_old};
use ringmaster_common::traffic::upstream::Connections;
use std::{
    collections::VecDeque,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::net::TcpStream;

/// How many connections each worker keeps idle.
const MAX_IDLE: usize = 256;
/// How long a connection may have been idle that carries a request which must not be sent twice. Servers close idle
/// connections after a second and more, and a request and the news of the end may take some hundred milliseconds to
/// cross the network. Requests that come more rarely than this hardly gain by a kept connection.
const MAX_IDLE_FOR_UNSAFE: Duration = Duration::from_millis(250);
/// A connection that was idle for longer is looked at in the kernel, which costs a system call. Within this time the
/// runtime has seen what arrived, but for the last moment.
const UNSEEN: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Pool {
    address: Address,
    /// Of each worker.
    idle: Box<[Mutex<VecDeque<Idle>>]>,
    http2: Box<[http2::Http2Pool]>,
    /// The endpoint is in no routing table any more: nothing is kept.
    closed: AtomicBool,
}

/// An HTTP/1 connection to an endpoint.
#[derive(Debug)]
pub struct Connection {
    pub stream: TcpStream,
    opened: CoarseInstant,
    /// It has carried another request before.
    pub is_used: bool,
    /// How long the endpoint keeps it open without a request, if it said so.
    pub keep_alive: Option<Duration>,
    /// The last response had no body because the request was a HEAD request. Some servers send one all the same.
    pub follows_head: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: CoarseInstant,
}

impl Connection {
    pub fn new(stream: TcpStream, opened: CoarseInstant) -> Connection {
        Connection { stream, opened, is_used: false, keep_alive: None, follows_head: false }
    }
}

impl Idle {
    /// Whether the connection is within the limits of the upstream, and not about to be closed by the endpoint.
    fn is_fresh(&self, now: CoarseInstant, limits: &Connections) -> bool {
        let idle_for = now.since(self.since);
        !is_idle_for_long(idle_for, limits)
            && !self.connection.keep_alive.is_some_and(|kept| is_closing_soon(idle_for, kept))
            && !is_too_old(self.connection.opened, now, limits)
    }
}

impl Pool {
    pub fn new(addr: &str, workers: usize) -> Pool {
        Pool {
            address: Address::new(addr),
            idle: (0..workers).map(|_| Mutex::default()).collect(),
            http2: (0..workers).map(|_| http2::Http2Pool::default()).collect(),
            closed: AtomicBool::new(false),
        }
    }

    /// `limit` is how long the caller waits.
    pub async fn connect(&self, limit: Duration) -> io::Result<TcpStream> {
        self.address.connect(limit).await
    }

    /// Whether the endpoint is configured by name.
    pub fn is_name(&self) -> bool {
        self.address.is_name()
    }

    pub fn is_resolving(&self) -> bool {
        self.address.is_resolving()
    }

    /// Resolves the name. Connections to addresses that it has no longer get no further requests.
    pub async fn resolve(&self) -> io::Result<()> {
        let resolved = self.address.resolve().await;
        self.retire_moved();
        resolved
    }

    /// Connections to other addresses than the current one get no further requests.
    pub fn retire_moved(&self) {
        for idle in &self.idle {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|kept| self.is_to_current(&kept.connection.stream));
        }
        self.http2.iter().for_each(|pool| pool.retire_unless(|peer| self.address.is_current(peer)));
    }

    fn is_to_current(&self, stream: &TcpStream) -> bool {
        !self.is_name() || stream.peer_addr().is_ok_and(|peer| self.address.is_current(peer))
    }

    /// An idle connection that the endpoint has not closed, for a request that may be sent twice or not.
    pub fn take_idle(
        &self,
        worker: usize,
        now: CoarseInstant,
        limits: &Connections,
        is_resendable: bool,
    ) -> Option<Connection> {
        let mut idle = self.idle[worker].lock().unwrap_or_else(PoisonError::into_inner);
        // The connection used last is the likeliest to be open.
        while let Some(last) = idle.pop_back() {
            let idle_for = now.since(last.since);
            if !is_resendable && idle_for >= MAX_IDLE_FOR_UNSAFE {
                // All others were idle for longer. The new connection takes the place of this one.
                return None;
            }
            let ask_kernel = !is_resendable || idle_for >= UNSEEN || last.connection.follows_head;
            let stream = &last.connection.stream;
            if last.is_fresh(now, limits) && is_quiet(stream) && !(ask_kernel && is_readable(stream)) {
                return Some(last.connection);
            }
        }
        None
    }

    /// Keeps a connection on which no request is in flight.
    pub fn keep_idle(&self, worker: usize, connection: Connection) {
        if !self.is_to_current(&connection.stream) {
            return;
        }
        let mut idle = self.idle[worker].lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && !self.closed.load(Relaxed) {
            let connection = Connection { is_used: true, ..connection };
            idle.push_back(Idle { connection, since: CoarseInstant::now() });
        }
    }

    pub fn http2(&self, worker: usize) -> &http2::Http2Pool {
        &self.http2[worker]
    }

    /// Closes all idle connections, for good.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        for idle in &self.idle {
            idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        self.http2.iter().for_each(http2::Http2Pool::retire);
    }

    /// Closes connections that were idle for long or are old, and those that the endpoint closed.
    pub fn close_idle(&self, now: CoarseInstant, limits: &Connections) {
        for idle in &self.idle {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|kept| kept.is_fresh(now, limits) && is_quiet(&kept.connection.stream));
        }
        self.http2.iter().for_each(|pool| pool.close_idle(now, limits));
    }
}

#[cfg(test)]
mod tests;
