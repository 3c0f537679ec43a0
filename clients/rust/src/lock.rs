//! Locks: acquired, kept, and given back.
//!
//! [`Client::lock`] makes a [`LockRequest`]; [`LockRequest::acquire`] waits for the lock and gives a
//! [`LockGuard`], which renews the lease in the background for as long as it lives.
//!
//! What always holds:
//! - The guard counts the lease by this process's monotonic clock, from *before* the request that the
//!   cluster granted or renewed it by was sent. So it takes the lock for lost before the cluster gives it
//!   to somebody else, and a lock that was taken for lost never becomes valid again.
//! - An acquire or a renewal is sent to one node after the other under one idempotency key. A node that
//!   dies while a client waits there costs the client neither its place in the queue nor a second lock.
//!
//! # What a lock cannot do
//!
//! **A lease without fencing is advice.** A process may be paused, or a packet may linger, between the
//! moment at which the guard is asked and the moment at which the work takes effect; no lock service can
//! prevent that. So pass [`LockGuard::token`] along with the work. Tokens only grow, and a resource that
//! keeps the highest one it has seen, its *high-water mark*, can refuse everybody who was overtaken:
//!
//! ```no_run
//! use ringmaster_client::Client;
//! use ringmaster_common::id::Token;
//! use std::time::Duration;
//!
//! /// A resource that guards itself. The mark is kept where the data is, and changes together with it.
//! #[derive(Default)]
//! struct Report {
//!     high_water_mark: Token,
//!     text: String,
//! }
//!
//! impl Report {
//!     fn write(&mut self, token: Token, text: &str) -> Result<(), String> {
//!         if token < self.high_water_mark {
//!             return Err(format!("token {token} was overtaken by {}", self.high_water_mark));
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
//! A machine that sleeps stops its monotonic clock, too: after it wakes, a guard may believe for a while
//! that it is valid. The token tells.

mod guard;
mod keeper;

pub use guard::{LockError, LockGuard, Loss};
pub use keeper::{RENEW_PAUSE, SHORTEST_ATTEMPT};

use crate::{
    Client,
    client::{ANSWER_WITHIN, Request},
};
use keeper::Lease;
use ringmaster_common::{
    duration::millis,
    lock::{AcquireLock, LockGrant, LockMode},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// The lease unless another is asked for.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// How much longer than the wait an acquire is tried where the cluster has no leader, or nodes die.
pub const ACQUIRE_GRACE: Duration = Duration::from_secs(5);

/// A lock to acquire: exclusive, at once or not at all, unless told otherwise.
#[derive(Clone, Debug)]
#[must_use = "nothing is acquired before `acquire` is awaited"]
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
    /// A lock of this name, to be acquired.
    pub fn lock(&self, name: impl Into<String>) -> LockRequest {
        LockRequest {
            client: self.clone(),
            name: name.into(),
            owner: this_process(),
            ttl: DEFAULT_TTL,
            wait: Duration::ZERO,
            mode: None,
            limit: None,
            meta: BTreeMap::new(),
        }
    }
}

/// What this process is called among the owners of locks: its host and its process id.
pub fn this_process() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}:{}", host.unwrap_or_else(|| "localhost".to_owned()), std::process::id())
}

impl LockRequest {
    /// Who asks, as others see it. A process, not a team; [`this_process`] unless told otherwise.
    pub fn owner(self, owner: impl Into<String>) -> LockRequest {
        LockRequest { owner: owner.into(), ..self }
    }

    /// How long the lock stays held by a process that dies. It is renewed at a third of that.
    pub fn ttl(self, ttl: Duration) -> LockRequest {
        LockRequest { ttl, ..self }
    }

    /// How long to queue for it.
    pub fn wait(self, wait: Duration) -> LockRequest {
        LockRequest { wait, ..self }
    }

    /// Together with others who share it.
    pub fn shared(self) -> LockRequest {
        LockRequest { mode: Some(LockMode::Shared), ..self }
    }

    /// As one of so many at a time: a semaphore.
    pub fn limit(self, limit: u32) -> LockRequest {
        LockRequest { limit: Some(limit), ..self }
    }

    /// Tells people something of the owner: who, where, why.
    pub fn meta(mut self, name: impl Into<String>, value: impl Into<String>) -> LockRequest {
        self.meta.insert(name.into(), value.into());
        self
    }

    /// Acquires it, and starts to renew it.
    ///
    /// Refused as [`LockHeld`](ringmaster_common::error::Code::LockHeld) once the wait has passed. One
    /// address of the cluster is enough: the first acquire of a client asks there for the others.
    /// Dropping the future leaves the queue.
    pub async fn acquire(self) -> Result<LockGuard, LockError> {
        self.client.discover().await?;
        let asked = Instant::now();
        let waits_until = asked + self.wait;
        let key = Uuid::new_v4();
        let attempt = || {
            let left = waits_until.saturating_duration_since(Instant::now());
            let body = AcquireLock { wait_ms: millis(left), ..self.body() };
            Request::post("/v1/locks/acquire", &body).under(key).within(left + ANSWER_WITHIN)
        };
        let grant: LockGrant = self.client.insist(waits_until + ACQUIRE_GRACE, attempt).await?;
        let lease = Lease::new(self.client, grant, self.ttl, asked);
        LockGuard::keep(lease).await
    }

    fn body(&self) -> AcquireLock {
        AcquireLock {
            name: self.name.clone(),
            owner: self.owner.clone(),
            ttl_ms: millis(self.ttl),
            mode: self.mode,
            limit: self.limit,
            meta: self.meta.clone(),
            ..AcquireLock::default()
        }
    }
}

#[cfg(test)]
mod tests;
