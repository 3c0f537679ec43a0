//! The connections to one endpoint that are kept for further requests.
//!
//! Each worker has its own idle HTTP/1 connections and its own shared HTTP/2 connections. A lock here is that of one
//! worker: no request waits for a request of another worker, only briefly for the housekeeping of once a second.

pub mod http2;

use crate::{
    address::Address,
    coarse_clock::CoarseInstant,
    connect::{is_quiet, is_readable},
};
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
/// How long a connection is kept idle. Many servers close after a minute, some earlier.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Pool {
    address: Address,
    /// Of each worker.
    idle: Box<[Mutex<VecDeque<Idle>>]>,
    http2: Box<[http2::Http2Pool]>,
    /// The endpoint is in no routing table any more: nothing is kept.
    closed: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since: CoarseInstant,
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
            idle.retain(|kept| self.is_to_current(&kept.stream));
        }
        self.http2.iter().for_each(|pool| pool.retire_unless(|peer| self.address.is_current(peer)));
    }

    fn is_to_current(&self, stream: &TcpStream) -> bool {
        !self.is_name() || stream.peer_addr().is_ok_and(|peer| self.address.is_current(peer))
    }

    /// An idle connection that the endpoint has not closed, as far as the runtime knows; with `ask_kernel`, as far as
    /// the kernel knows, which costs a system call.
    pub fn take_idle(&self, worker: usize, ask_kernel: bool) -> Option<TcpStream> {
        let mut idle = self.idle[worker].lock().unwrap_or_else(PoisonError::into_inner);
        // The connection used last is the likeliest to be open.
        while let Some(Idle { stream, .. }) = idle.pop_back() {
            if is_quiet(&stream) && !(ask_kernel && is_readable(&stream)) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection on which no request is in flight.
    pub fn keep_idle(&self, worker: usize, stream: TcpStream) {
        if !self.is_to_current(&stream) {
            return;
        }
        let mut idle = self.idle[worker].lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && !self.closed.load(Relaxed) {
            idle.push_back(Idle { stream, since: CoarseInstant::now() });
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

    /// Closes connections that were idle for long, and those that the endpoint closed.
    pub fn close_idle(&self, now: CoarseInstant) {
        for idle in &self.idle {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|kept| now.since(kept.since) < MAX_IDLE_TIME && is_quiet(&kept.stream));
        }
        self.http2.iter().for_each(|pool| pool.close_idle(now, MAX_IDLE_TIME));
    }
}
