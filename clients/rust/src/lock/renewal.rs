//! The background task of a held lock: it renews the lease in time, reports a loss, and releases the lock.

use super::guard::{LockError, LockLoss};
use crate::{
    Client, ClientError,
    client::{REQUEST_TIMEOUT, Request},
};
use ringmaster_common::{
    duration::millis,
    error::Code,
    lock::{LockGrant, ReleaseLock, RenewLock},
};
use std::time::Duration;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

/// The pause between a failed renewal and the next attempt.
pub const RENEW_PAUSE: Duration = Duration::from_millis(50);
/// The shortest time-out of one renewal attempt, however short the lease is.
pub const MIN_ATTEMPT_TIMEOUT: Duration = Duration::from_millis(100);

/// A lease is renewed when this fraction of it has passed: two more attempts of the same length fit in.
const RENEW_AT: u32 = 3;
/// One attempt at one node takes at most this fraction of the lease, so that a paused node does not use up the rest.
const MAX_ATTEMPT: u32 = 6;

/// A lease, as its holder counts it.
#[derive(Debug)]
pub(super) struct Lease {
    pub client: Client,
    pub grant: LockGrant,
    pub ttl: Duration,
    /// The time before the request of the last grant or renewal was sent.
    since: Instant,
}

/// Whether the lock is held.
#[derive(Clone, Debug)]
pub(super) enum LeaseState {
    /// The lease runs until this time unless it is renewed or lost earlier.
    Held(Instant),
    Lost(LockLoss),
}

impl Lease {
    pub fn new(client: Client, grant: LockGrant, ttl: Duration, since: Instant) -> Lease {
        Lease { client, grant, ttl, since }
    }

    pub fn ends(&self) -> Instant {
        self.since + self.ttl
    }

    /// How long the cluster keeps it from its answer on. It is less than the TTL while it waits for a confirmation.
    pub fn granted_for(&self) -> Duration {
        Duration::from_millis(self.grant.expires_in_ms).min(self.ttl)
    }

    pub fn renewal_is_due(&self) -> Instant {
        self.since + self.ttl / RENEW_AT
    }

    /// Sends renewals to one node after the other until one succeeds or `until` has passed.
    async fn renew(&mut self, until: Instant) -> Result<(), ClientError> {
        let body = RenewLock {
            name: self.grant.name.clone(),
            owner: self.grant.owner.clone(),
            token: self.grant.token,
            ttl_ms: millis(self.ttl),
        };
        let attempt_timeout = (self.ttl / MAX_ATTEMPT).clamp(MIN_ATTEMPT_TIMEOUT, REQUEST_TIMEOUT);
        loop {
            let (sent, key) = (Instant::now(), Uuid::new_v4());
            let attempt = || {
                let left = until.saturating_duration_since(Instant::now());
                Request::post("/v1/locks/renew", &body).with_key(key).with_timeout(attempt_timeout.min(left))
            };
            match self.client.send_until::<LockGrant>(until, attempt).await {
                Ok(_) => {
                    self.since = sent;
                    return Ok(());
                }
                Err(error) if error.is(Code::LockLost) || Instant::now() + RENEW_PAUSE >= until => {
                    return Err(error);
                }
                Err(_) => sleep(RENEW_PAUSE).await,
            }
        }
    }

    /// Releases the lock. A repeat of a release that succeeded unanswered gets the answer of the first one.
    async fn release(&self) -> Result<(), ClientError> {
        let body = ReleaseLock {
            name: self.grant.name.clone(),
            owner: self.grant.owner.clone(),
            token: self.grant.token,
        };
        self.client.post("/v1/locks/release", &body).await
    }

    /// Renews the lease again and again until `stop` is dropped, then releases the lock. The cluster keeps
    /// the lease at least until `until`; by the holder's own count it may have ended already.
    pub async fn run(
        mut self,
        until: Instant,
        state: watch::Sender<LeaseState>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<(), LockError> {
        let loss = tokio::select! {
            _ = &mut stop => return Ok(self.release().await?),
            loss = self.renew_while_held(until, &state) => loss,
        };
        state.send_replace(LeaseState::Lost(loss.clone()));
        // The holder may still be at work. Once it has stopped, a release lets waiters in before the TTL has passed.
        let _ = stop.await;
        if matches!(loss, LockLoss::Expired(_)) {
            // The holder has lost the lock whatever the outcome of this is.
            let _ = self.release().await;
        }
        Err(loss.into())
    }

    async fn renew_while_held(&mut self, mut until: Instant, state: &watch::Sender<LeaseState>) -> LockLoss {
        loop {
            // A grant that waits for its confirmation ends before a renewal would be due.
            let due = if until < self.ends() { Instant::now() } else { self.renewal_is_due() };
            sleep_until(due).await;
            if Instant::now() >= until {
                return LockLoss::Expired("this process was not scheduled in time to renew it".to_owned());
            }
            match self.renew(until).await {
                Ok(()) => {}
                Err(error) if error.is(Code::LockLost) => return LockLoss::Revoked(error.to_string()),
                Err(error) => return LockLoss::Expired(error.to_string()),
            }
            let ends = self.ends();
            // Checked under the lock of the channel that the guard reads: a lock that the guard has reported
            // as lost never becomes valid again.
            let in_time = state.send_if_modified(|state| {
                let in_time = Instant::now() < until;
                if in_time {
                    *state = LeaseState::Held(ends);
                }
                in_time
            });
            if !in_time {
                return LockLoss::Expired("the answer to its renewal came too late".to_owned());
            }
            until = ends;
        }
    }
}
