//! Acquiring a lock, with the wait for it.
//!
//! Entering and leaving the queue are log entries; waiting is not. A client waits here, on the node that it is connected
//! to, until an entry that this node applies wakes it ([`LockWaiters`]). A grant is claimed by the same request again
//! before the client hears of it, so a client that goes away in between delays no other. A client of ours that loses
//! its node finds its place again on any other node, with the same request.
//!
//! [`LockWaiters`]: crate::lock_waiters::LockWaiters

use crate::{ClusterGroup, lock_waiters::Wakeup, unexpected_answer};
use ringmaster_cluster::{
    command::{Actor, ClusterTime, Command, Outcome, Request},
    locks::{SessionRef, WaitResult},
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

/// How many waiters may propose at a time; the others queue for that.
pub const MAX_PROPOSING_WAITERS: usize = 192;
/// How long a proposal of a waiter may take, once it is its turn.
const PROPOSAL_DEADLINE: Duration = Duration::from_secs(3);
/// How much longer than it asked for a client waits for the entry that ends its wait.
const WAIT_GRACE: Duration = Duration::from_secs(5);
/// The pause before the start of this node is announced again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Names the clients that wait here, and limits how many propose at a time.
#[derive(Debug)]
pub(crate) struct Waiters {
    boot_id: u64,
    seq: AtomicU64,
    turns: Semaphore,
}

impl Default for Waiters {
    fn default() -> Self {
        Waiters {
            // Random, and below 2^53.
            boot_id: uuid::Uuid::new_v4().as_u64_pair().0 >> 11,
            seq: AtomicU64::new(0),
            turns: Semaphore::new(MAX_PROPOSING_WAITERS),
        }
    }
}

impl ClusterGroup {
    /// Acquires a lock when it is the client's turn, or refuses it when the wait has passed. If the future is dropped
    /// before, the client leaves the queue.
    pub async fn acquire(&self, request: Request, acquire: AcquireLock) -> Result<LockGrant, Refusal> {
        let waiters = &self.0.waiters;
        let session = SessionRef {
            node: self.me(),
            boot_id: waiters.boot_id,
            seq: waiters.seq.fetch_add(1, Ordering::Relaxed),
        };
        let may_return = request.repeatable;
        let mut departure = Departure { group: self, name: &acquire.name, session, may_return, is_due: true };
        let mut waiting = self.0.raft.application().waiters.enter(&acquire.name, &request.id);
        let waits_until = clock::now() + Duration::from_millis(acquire.wait_ms);
        let (mut queued, mut granted) = (false, false);
        loop {
            let turn = timeout_at((waits_until + WAIT_GRACE).into(), waiters.turns.acquire());
            // A claim takes no turn: it has little time, and there are no more of them than grants.
            let turn = if acquire.wait_ms > 0 && !granted { turn.await.ok() } else { None };
            let asked = clock::now();
            let left = waits_until.saturating_duration_since(asked);
            let acquire = AcquireLock { wait_ms: millis(left), ..acquire.clone() };
            let command = Command::AcquireLock { acquire, session };
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
                Ok(_) => return Err(unexpected_answer()),
                // It had a place in the queue, and may still have it, unless another attempt has taken it.
                Err(refusal) if queued && refusal.code != Code::LockLost => {
                    return Err(self.0.raft.unanswered(true));
                }
                Err(refusal) => {
                    departure.is_due = refusal.code == Code::OutcomeUnknown;
                    return Err(refusal);
                }
            }
            match timeout_at((waits_until + WAIT_GRACE).into(), waiting.wakeup()).await {
                Ok(Wakeup::Result(WaitResult::GaveUp)) if clock::now() >= waits_until => {
                    departure.is_due = false;
                    let state = self.state();
                    return Err(state.locks.not_granted(departure.name, self.cluster_time_here()));
                }
                // The grant has to be claimed, or the place in the queue was lost with time left, or it is not known.
                Ok(wakeup) => granted = matches!(wakeup, Wakeup::Result(WaitResult::Granted)),
                Err(_) => return Err(self.0.raft.unanswered(true)),
            }
        }
    }

    /// Cluster time as far as this node knows: to show what is left of a lease.
    pub fn cluster_time_here(&self) -> ClusterTime {
        self.cluster_time().unwrap_or_else(|| {
            let since = self.published().applied().at.map(|at| clock::now().saturating_duration_since(at));
            self.state().clock.after(since.unwrap_or_default())
        })
    }

    /// Announces that this node has started, and has none of its former clients.
    pub async fn announce_start(self) {
        let command = Command::DisconnectWaiters { node: self.me(), boot_id: self.0.waiters.boot_id };
        loop {
            let announced =
                self.propose(self.own_request(), command.clone(), clock::now() + PROPOSAL_DEADLINE).await;
            if announced.is_ok() {
                return;
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    pub(crate) fn own_request(&self) -> Request {
        Request {
            id: uuid::Uuid::new_v4().to_string(),
            actor: Actor::Node(self.me()),
            repeatable: false,
            fingerprint: None,
            resent_after: None,
        }
    }
}

/// Leaves the queue, or gives the grant back, for a client that goes away unanswered.
struct Departure<'a> {
    group: &'a ClusterGroup,
    name: &'a str,
    session: SessionRef,
    /// Whether the client named its request, and so can come back with it.
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
            session: self.session,
            may_return: self.may_return,
        };
        let group = self.group.clone();
        tokio::spawn(async move {
            // As many at a time as of those that enter.
            let _turn = group.0.waiters.turns.acquire().await;
            // If this fails, the place in the queue ends with a grant that is not claimed; a lease that was granted
            // at once lasts for its TTL.
            let _ = group.propose(group.own_request(), command, clock::now() + PROPOSAL_DEADLINE).await;
        });
    }
}
