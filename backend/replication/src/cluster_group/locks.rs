//! Acquiring a lock, with the wait for it.
//!
//! Entering and leaving the queue are log entries; waiting is not. A client waits here, on the node
//! that it is connected to, and the node is told by what it applies ([`WaitingRoom`]). A grant is
//! claimed by the same request again before the client hears of it, so one that goes away in between
//! holds nobody up. What a client of ours may have lost sight of, the same request finds again on any
//! other node.
//!
//! [`WaitingRoom`]: crate::waiting_room::WaitingRoom

use super::{ClusterGroup, out_of_protocol};
use crate::waiting_room::News;
use ringmaster_cluster::{
    command::{Actor, ClusterTime, Command, Outcome, Request},
    locks::{Attachment, Fate},
};
use ringmaster_common::{
    duration::millis,
    error::{Code, Refusal},
    lock::{AcquireLock, LockGrant},
};
use ringmaster_net::clock;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout_at},
};

/// How many of those who wait are let propose at a time; the others queue up for that.
pub const MAX_PROPOSING_WAITERS: usize = 192;
/// How long a proposal of a waiter may take. Those who wait have queued up for theirs.
const PROPOSAL_DEADLINE: Duration = Duration::from_secs(3);
/// How much longer than they asked for somebody waits to hear that their wait has passed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before telling again that this node has started.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Names the clients that wait here, and has them take turns.
#[derive(Debug)]
pub(super) struct Waiters {
    lifetime: u64,
    serial: AtomicU64,
    turns: Semaphore,
}

impl Default for Waiters {
    fn default() -> Self {
        Waiters {
            // Random, and below 2^53.
            lifetime: uuid::Uuid::new_v4().as_u64_pair().0 >> 11,
            serial: AtomicU64::new(0),
            turns: Semaphore::new(MAX_PROPOSING_WAITERS),
        }
    }
}

impl ClusterGroup {
    /// Acquires a lock, once it is the client's turn, or refuses it once the wait has passed. If it is
    /// dropped before, the client waits no more.
    pub async fn acquire(&self, request: Request, acquire: AcquireLock) -> Result<LockGrant, Refusal> {
        let waiters = &self.0.waiters;
        let attachment = Attachment {
            node: self.me(),
            lifetime: waiters.lifetime,
            serial: waiters.serial.fetch_add(1, Ordering::Relaxed),
        };
        let may_return = request.repeatable;
        let mut departure =
            Departure { group: self, name: &acquire.name, attachment, may_return, is_due: true };
        let mut guest = self.0.published.waiting().enter(&acquire.name, &request.id);
        let waits_until = clock::now() + Duration::from_millis(acquire.wait_ms);
        let (mut queued, mut granted) = (false, false);
        loop {
            let turn = timeout_at((waits_until + PATIENCE).into(), waiters.turns.acquire());
            // A claim takes no turn: it has little time, and there are no more of them than grants.
            let turn = if acquire.wait_ms > 0 && !granted { turn.await.ok() } else { None };
            let asked = clock::now();
            let left = waits_until.saturating_duration_since(asked);
            let acquire = AcquireLock { wait_ms: millis(left), ..acquire.clone() };
            let command = Command::AcquireLock { acquire, attachment };
            let outcome = self.propose(request.clone(), command, asked + PROPOSAL_DEADLINE).await;
            drop(turn);
            match outcome.map(|response| response.outcome) {
                Ok(Outcome::LockGranted(grant)) => {
                    departure.is_due = false;
                    let spent = millis(clock::now().saturating_duration_since(asked));
                    return Ok(LockGrant {
                        expires_in_ms: grant.expires_in_ms.saturating_sub(spent),
                        ..grant
                    });
                }
                Ok(Outcome::LockQueued) => queued = true,
                Ok(_) => return Err(out_of_protocol()),
                // It has a place, and whether it still has one is not known.
                Err(_) if queued => return Err(self.unanswered(true)),
                Err(refusal) => {
                    departure.is_due = refusal.code == Code::OutcomeUnknown;
                    return Err(refusal);
                }
            }
            match timeout_at((waits_until + PATIENCE).into(), guest.news()).await {
                Ok(News::Fate(Fate::GaveUp)) if clock::now() >= waits_until => {
                    departure.is_due = false;
                    let state = self.state();
                    return Err(state.locks.not_granted(departure.name, self.cluster_time_here()));
                }
                // It is to be claimed, or the place in the queue was lost with time left, or nobody knows.
                Ok(news) => granted = matches!(news, News::Fate(Fate::Granted)),
                Err(_) => return Err(self.unanswered(true)),
            }
        }
    }

    /// Cluster time as far as this node can tell: to show what is left of a lease.
    pub fn cluster_time_here(&self) -> ClusterTime {
        self.cluster_time().unwrap_or_else(|| {
            let since = self.0.published.applied().at.map(|at| clock::now().saturating_duration_since(at));
            self.state().clock.after(since.unwrap_or_default())
        })
    }

    /// Tells that this node knows nothing of the clients that it had before it started.
    pub async fn announce_start(self) {
        let command = Command::DetachWaiters { node: self.me(), lifetime: self.0.waiters.lifetime };
        loop {
            let told =
                self.propose(self.own_request(), command.clone(), clock::now() + PROPOSAL_DEADLINE).await;
            if told.is_ok() {
                return;
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    fn own_request(&self) -> Request {
        Request {
            id: uuid::Uuid::new_v4().to_string(),
            actor: Actor::Node(self.me()),
            repeatable: false,
            resent_after: None,
        }
    }
}

/// Leaves the queue, or gives back what was granted, for a client that goes away unanswered.
struct Departure<'a> {
    group: &'a ClusterGroup,
    name: &'a str,
    attachment: Attachment,
    /// Whether the client named its request, and so can come back for what it asked for.
    may_return: bool,
    is_due: bool,
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        if !self.is_due {
            return;
        }
        let command = Command::LeaveLock {
            name: self.name.to_owned(),
            attachment: self.attachment,
            may_return: self.may_return,
        };
        let group = self.group.clone();
        tokio::spawn(async move {
            // As many at a time as of those who come.
            let _turn = group.0.waiters.turns.acquire().await;
            // Untold, a place in the queue is found out by the grant that nobody claims; a lease that
            // was granted at once lasts for its TTL.
            let _ = group.propose(group.own_request(), command, clock::now() + PROPOSAL_DEADLINE).await;
        });
    }
}
