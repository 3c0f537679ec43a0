//! The task that keeps a lease: it renews it in time, says when it is lost, and gives it back.

use super::guard::{LockError, Loss};
use crate::{
    Client, ClientError,
    client::{ANSWER_WITHIN, Request},
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

/// How long to wait before a renewal that failed is tried again.
pub const RENEW_PAUSE: Duration = Duration::from_millis(50);
/// The least time that a node is given to answer a renewal, however short the lease is.
pub const SHORTEST_ATTEMPT: Duration = Duration::from_millis(100);

/// A lease is renewed when so much of it is over: two more tries of the same length fit in.
const RENEW_AT: u32 = 3;
/// So much of the lease one node may take for a renewal, so that a paused one does not use up the rest.
const ATTEMPT_AT_MOST: u32 = 6;

/// A lease, as its holder counts it.
#[derive(Debug)]
pub(super) struct Lease {
    pub client: Client,
    pub grant: LockGrant,
    pub ttl: Duration,
    /// Before the request that it was last granted or renewed by was sent.
    since: Instant,
}

/// How the lock stands.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// Valid up to then, if nothing is heard before.
    Held(Instant),
    Lost(Loss),
}

impl Lease {
    pub fn new(client: Client, grant: LockGrant, ttl: Duration, since: Instant) -> Lease {
        Lease { client, grant, ttl, since }
    }

    pub fn ends(&self) -> Instant {
        self.since + self.ttl
    }

    pub fn renewal_is_due(&self) -> Instant {
        self.since + self.ttl / RENEW_AT
    }

    /// Renews it, by one request after the other to whichever node answers, until that is of no more use.
    async fn renew(&mut self, until: Instant) -> Result<(), ClientError> {
        let body = RenewLock {
            name: self.grant.name.clone(),
            owner: self.grant.owner.clone(),
            token: self.grant.token,
            ttl_ms: millis(self.ttl),
        };
        let patience = (self.ttl / ATTEMPT_AT_MOST).clamp(SHORTEST_ATTEMPT, ANSWER_WITHIN);
        loop {
            let (sent, key) = (Instant::now(), Uuid::new_v4());
            let attempt = || {
                let left = until.saturating_duration_since(Instant::now());
                Request::post("/v1/locks/renew", &body).under(key).within(patience.min(left))
            };
            match self.client.insist::<LockGrant>(until, attempt).await {
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

    /// Gives it back. A release that was carried out, and not answered, is answered the next time.
    async fn release(&self) -> Result<(), ClientError> {
        let body = ReleaseLock {
            name: self.grant.name.clone(),
            owner: self.grant.owner.clone(),
            token: self.grant.token,
        };
        self.client.post("/v1/locks/release", &body).await
    }

    /// Renews the lease time and again until `stop` is dropped, and gives it back then. It is known to run
    /// up to `until`; as far as the holder may count, it may be over.
    pub async fn keep(
        mut self,
        until: Instant,
        standing: watch::Sender<Standing>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<(), LockError> {
        let loss = tokio::select! {
            _ = &mut stop => return Ok(self.release().await?),
            loss = self.renew_while_held(until, &standing) => loss,
        };
        standing.send_replace(Standing::Lost(loss.clone()));
        // The holder may still be at work. Once it has stopped, others may be let in before the lease is over.
        let _ = stop.await;
        if matches!(loss, Loss::RanOut(_)) {
            // For the holder it is lost, whatever comes of this.
            let _ = self.release().await;
        }
        Err(loss.into())
    }

    async fn renew_while_held(&mut self, mut until: Instant, standing: &watch::Sender<Standing>) -> Loss {
        loop {
            sleep_until(self.renewal_is_due()).await;
            if Instant::now() >= until {
                return Loss::RanOut("this process did not get to renewing it".to_owned());
            }
            match self.renew(until).await {
                Ok(()) => {}
                Err(error) if error.is(Code::LockLost) => return Loss::Taken(error.to_string()),
                Err(error) => return Loss::RanOut(error.to_string()),
            }
            let ends = self.ends();
            // Under the lock through which the guard looks: what it took for lost never becomes valid again.
            let in_time = standing.send_if_modified(|standing| {
                let in_time = Instant::now() < until;
                if in_time {
                    *standing = Standing::Held(ends);
                }
                in_time
            });
            if !in_time {
                return Loss::RanOut("the answer to its renewal came too late".to_owned());
            }
            until = ends;
        }
    }
}
