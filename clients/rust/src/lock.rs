//! Locks: acquire, renew, release.
//!
//! [`Client::lock`] makes a [`LockRequest`]; [`LockRequest::acquire`] waits for the lock and returns a
//! [`LockGuard`], which renews the lease in the background while it lives.
//!
//! What always holds:
//! - The guard counts the lease with this process's monotonic clock, from *before* it sent the request that
//!   the cluster granted or renewed. It therefore reports the lock as lost before the cluster grants it to
//!   another owner, and a lock reported as lost never becomes valid again.
//! - After a wait, the lease is renewed before the lock is returned. So a client that is paused while it waits, or whose
//!   connection leads nowhere, holds up those behind it for seconds, not for its TTL.
//! - An acquire or a renewal is sent to one node after the other with one idempotency key. If a node dies
//!   while a client waits there, the client keeps its place in the queue and does not get a second lock.
//!
//! # What a lock cannot do
//!
//! **A lease without fencing is advice.** A process may be paused, or a packet may be delayed, between the
//! check of the guard and the moment at which the work takes effect; no lock service can prevent that. So
//! pass [`LockGuard::token`] along with the work. Tokens only grow, and a resource that stores the highest
//! one it has seen, its *high-water mark*, can reject stale holders:
//!
//! ```no_run
//! use ringmaster_client::Client;
//! use ringmaster_common::id::Token;
//! use std::time::Duration;
//!
//! /// A resource that checks tokens. The mark is stored with the data and changes together with it.
//! #[derive(Default)]
//! struct Report {
//!     high_water_mark: Token,
//!     text: String,
//! }
//!
//! impl Report {
//!     fn write(&mut self, token: Token, text: &str) -> Result<(), String> {
//!         if token < self.high_water_mark {
//!             return Err(format!("token {token} is stale; the mark is {}", self.high_water_mark));
//!         }
//!         self.high_water_mark = token;
//!         self.text = text.to_owned();
//!         Ok(())
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut report = Report::default();
//! let client = Client::new(["http://127.0.0.1:7701".parse()?, "http://127.0.0.1:7702".parse()?]);
//! let guard = client.lock("jobs/nightly").wait(Duration::from_secs(30)).acquire().await?;
//! tokio::select! {
//!     done = async { report.write(guard.token(), "all is well") } => done?,
//!     loss = guard.lost() => return Err(loss.into()),
//! }
//! guard.release().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The monotonic clock stops while the machine sleeps: after it wakes, a guard may report a lost lock as
//! valid for a while. Only the token is reliable then.

mod guard;
mod renewal;
mod withdrawal;

pub use guard::{LockError, LockGuard, LockLoss};
pub use renewal::{MIN_ATTEMPT_TIMEOUT, RENEW_PAUSE};

use crate::{
    Client,
    client::{REQUEST_TIMEOUT, Request},
};
use renewal::Lease;
use ringmaster_common::{
    duration::millis,
    lock::{AcquireLock, LockGrant, LockMode},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;
use withdrawal::Withdrawal;

/// The default TTL.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// After a wait, the grant is confirmed by a renewal within this time, or the cluster gives the lock to the next waiter:
/// long enough to move to another node.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// How long an acquire is retried beyond its wait while the cluster has no leader or nodes die.
pub const ACQUIRE_GRACE: Duration = Duration::from_secs(5);

/// A lock to acquire; by default exclusive and without waiting.
#[derive(Clone, Debug)]
#[must_use = "awaiting `acquire` acquires the lock"]
pub struct LockRequest {
    client: Client,
    name: String,
    owner: String,
    ttl: Duration,
    wait: Duration,
    mode: Option<LockMode>,
    limit: Option<u32>,
    meta: BTreeMap<String, String>,
}

impl Client {
    /// A request for the lock of this name.
    pub fn lock(&self, name: impl Into<String>) -> LockRequest {
        LockRequest {
            client: self.clone(),
            name: name.into(),
            owner: default_owner(),
            ttl: DEFAULT_TTL,
            wait: Duration::ZERO,
            mode: None,
            limit: None,
            meta: BTreeMap::new(),
        }
    }
}

/// The default owner of locks: this process's host and process id.
pub fn default_owner() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}:{}", host.unwrap_or_else(|| "localhost".to_owned()), std::process::id())
}

impl LockRequest {
    /// The owner as other clients see it: a process, not a team. The default is [`default_owner`].
    pub fn owner(self, owner: impl Into<String>) -> LockRequest {
        LockRequest { owner: owner.into(), ..self }
    }

    /// How long the lock stays held after its process died. It is renewed at a third of that.
    pub fn ttl(self, ttl: Duration) -> LockRequest {
        LockRequest { ttl, ..self }
    }

    /// How long to wait in the queue.
    pub fn wait(self, wait: Duration) -> LockRequest {
        LockRequest { wait, ..self }
    }

    /// Shares the lock with other shared holders.
    pub fn shared(self) -> LockRequest {
        LockRequest { mode: Some(LockMode::Shared), ..self }
    }

    /// Uses the lock as a semaphore with this many holders.
    pub fn limit(self, limit: u32) -> LockRequest {
        LockRequest { limit: Some(limit), ..self }
    }

    /// Adds information for people: who, where, why.
    pub fn meta(mut self, name: impl Into<String>, value: impl Into<String>) -> LockRequest {
        self.meta.insert(name.into(), value.into());
        self
    }

    /// Acquires the lock, and starts to renew it.
    ///
    /// Fails with [`LockHeld`](ringmaster_common::error::Code::LockHeld) when the wait ends. One address of
    /// the cluster is enough: the first acquire of a client discovers the others. Dropping the future
    /// leaves the queue.
    pub async fn acquire(self) -> Result<LockGuard, LockError> {
        self.client.discover().await?;
        let sent = Instant::now();
        let waits_until = sent + self.wait;
        let key = Uuid::new_v4();
        let attempt = || {
            let left = waits_until.saturating_duration_since(Instant::now());
            let body = AcquireLock { wait_ms: millis(left), ..self.body() };
            Request::post("/v1/locks/acquire", &body).with_key(key).with_timeout(left + REQUEST_TIMEOUT)
        };
        let waiting = Withdrawal::of(&self, key);
        let answer = self.client.send_until::<LockGrant>(waits_until + ACQUIRE_GRACE, attempt).await;
        waiting.answered();
        let grant = answer?;
        let lease = Lease::new(self.client, grant, self.ttl, sent);
        LockGuard::start(lease).await
    }

    fn body(&self) -> AcquireLock {
        AcquireLock {
            name: self.name.clone(),
            owner: self.owner.clone(),
            ttl_ms: millis(self.ttl),
            mode: self.mode,
            limit: self.limit,
            meta: self.meta.clone(),
            confirm_within_ms: (!self.wait.is_zero()).then(|| millis(CONFIRM_WITHIN)),
            ..AcquireLock::default()
        }
    }
}

#[cfg(test)]
mod tests;
