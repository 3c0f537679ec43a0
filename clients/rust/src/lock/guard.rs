//! A held lock.

use super::renewal::{Lease, LeaseState};
use crate::ClientError;
use ringmaster_common::{error::Code, id::Token};
use std::time::Duration;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

/// A lock that is held while this value lives and the cluster can be reached.
///
/// Dropping the guard releases the lock in the background, without a guarantee: if the runtime ends
/// first, the lease expires instead. [`LockGuard::release`] waits for the release and returns its outcome.
#[derive(Debug)]
#[must_use = "dropping the guard releases the lock"]
pub struct LockGuard {
    name: String,
    owner: String,
    token: Token,
    state: watch::Receiver<LeaseState>,
    /// Dropped with the guard: the renewal task then releases the lock.
    stop: oneshot::Sender<()>,
    renewals: JoinHandle<Result<(), LockError>>,
}

/// Why a lock is no longer held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockLoss {
    /// The cluster answered that the token no longer holds the lock.
    #[error("the lock is lost: {0}")]
    Revoked(String),
    /// The lease was not renewed in time.
    #[error("the lock is lost: its lease expired before it was renewed: {0}")]
    Expired(String),
}

/// Why a lock was not acquired, or not released.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The request was refused, or not answered. After a failed release, the lease expires.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The lock was lost earlier. Work done since then may have overlapped with that of another holder.
    #[error(transparent)]
    Lost(#[from] LockLoss),
}

impl LockError {
    /// Whether a node refused with this code.
    pub fn is(&self, code: Code) -> bool {
        matches!(self, LockError::Client(error) if error.is(code))
    }
}

impl LockGuard {
    /// Starts the renewals of a new lease. If a third of it has passed already, as after a wait, it is
    /// renewed before this returns.
    pub(super) async fn start(lease: Lease) -> Result<LockGuard, LockError> {
        let (name, owner, token) = (lease.grant.name.clone(), lease.grant.owner.clone(), lease.grant.token);
        let now = Instant::now();
        let granted_until = now + lease.granted_for();
        let renew_first = now >= lease.renewal_is_due() || granted_until < lease.ends();
        let until = if renew_first { granted_until } else { lease.ends() };
        let (sender, mut state) = watch::channel(LeaseState::Held(lease.ends()));
        let (stop, stopped) = oneshot::channel();
        let renewals = tokio::spawn(lease.run(until, sender, stopped));
        // From here on, dropping the guard releases the lock.
        let guard = LockGuard { name, owner, token, state: state.clone(), stop, renewals };
        if renew_first {
            // The renewal task reports the outcome before it ends.
            let _ = state.changed().await;
            if let LeaseState::Lost(loss) = &*state.borrow() {
                return Err(loss.clone().into());
            }
        }
        Ok(guard)
    }

    /// The fencing token. Pass it to the resource that the lock protects.
    pub fn token(&self) -> Token {
        self.token
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Whether the lock is held, by this process's count. Once false, always false.
    pub fn is_valid(&self) -> bool {
        !self.valid_for().is_zero()
    }

    /// How long the lock stays held if no further renewal succeeds; zero after a loss.
    pub fn valid_for(&self) -> Duration {
        match &*self.state.borrow() {
            LeaseState::Held(until) => until.saturating_duration_since(Instant::now()),
            LeaseState::Lost(_) => Duration::ZERO,
        }
    }

    /// Waits until the lock is lost.
    pub async fn lost(&self) -> LockLoss {
        let mut state = self.state.clone();
        loop {
            if let LeaseState::Lost(loss) = &*state.borrow_and_update() {
                return loss.clone();
            }
            if state.changed().await.is_err() {
                return LockLoss::Expired("its renewals have stopped".to_owned());
            }
        }
    }

    /// Releases the lock, and waits until the cluster has confirmed it.
    pub async fn release(self) -> Result<(), LockError> {
        let LockGuard { stop, renewals, .. } = self;
        drop(stop);
        match renewals.await {
            Ok(outcome) => outcome,
            Err(_) => Err(LockLoss::Expired("its renewals have stopped".to_owned()).into()),
        }
    }
}
