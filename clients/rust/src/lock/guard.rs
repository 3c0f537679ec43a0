//! A lock that is held.

use super::keeper::{Lease, Standing};
use crate::ClientError;
use ringmaster_common::{error::Code, id::Token};
use std::time::Duration;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

/// A lock that is held, for as long as this lives and the cluster can be reached.
///
/// Dropping it gives the lock back in the background, as well as that goes: where the runtime ends
/// first, the lease runs out. [`LockGuard::release`] waits for it, and tells what came of it.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct LockGuard {
    name: String,
    owner: String,
    token: Token,
    standing: watch::Receiver<Standing>,
    /// Dropped with the guard: that tells the keeper to give the lock back.
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<Result<(), LockError>>,
}

/// Why a lock is no longer held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The cluster says that the token does not hold it any more.
    #[error("the lock is lost: {0}")]
    Taken(String),
    /// The lease could not be renewed in time.
    #[error("the lock is lost: its lease ran out before it was renewed: {0}")]
    RanOut(String),
}

/// Why a lock was not acquired, or not given back.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The request was refused, or not answered. Where it was a release, the lease runs out by itself.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It was lost before. Where it was released after that, what was done under it lately may have met
    /// with somebody else's work.
    #[error(transparent)]
    Lost(#[from] Loss),
}

impl LockError {
    /// Whether a node refused with this code.
    pub fn is(&self, code: Code) -> bool {
        matches!(self, LockError::Client(error) if error.is(code))
    }
}

impl LockGuard {
    /// Keeps a lease that was just granted. Where a good part of it is over already, as after a wait,
    /// it is renewed first.
    pub(super) async fn keep(lease: Lease) -> Result<LockGuard, LockError> {
        let (name, owner, token) = (lease.grant.name.clone(), lease.grant.owner.clone(), lease.grant.token);
        let now = Instant::now();
        let renewed_first = now >= lease.renewal_is_due();
        let until = if renewed_first { now + lease.ttl } else { lease.ends() };
        let (tell, mut standing) = watch::channel(Standing::Held(lease.ends()));
        let (stop, stopped) = oneshot::channel();
        let keeper = tokio::spawn(lease.keep(until, tell, stopped));
        // Dropped from here on, it is given back.
        let guard = LockGuard { name, owner, token, standing: standing.clone(), stop, keeper };
        if renewed_first {
            // The keeper tells what came of it before it ends.
            let _ = standing.changed().await;
            if let Standing::Lost(loss) = &*standing.borrow() {
                return Err(loss.clone().into());
            }
        }
        Ok(guard)
    }

    /// The fencing token. Pass it to whatever the lock protects.
    pub fn token(&self) -> Token {
        self.token
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Whether the lock is held, as far as anybody can tell here. Once false, always false.
    pub fn is_valid(&self) -> bool {
        !self.valid_for().is_zero()
    }

    /// How long it is held from now on if no renewal succeeds; zero once it is lost.
    pub fn valid_for(&self) -> Duration {
        match &*self.standing.borrow() {
            Standing::Held(until) => until.saturating_duration_since(Instant::now()),
            Standing::Lost(_) => Duration::ZERO,
        }
    }

    /// Waits until the lock is lost.
    pub async fn lost(&self) -> Loss {
        let mut standing = self.standing.clone();
        loop {
            if let Standing::Lost(loss) = &*standing.borrow_and_update() {
                return loss.clone();
            }
            if standing.changed().await.is_err() {
                return Loss::RanOut("nobody renews it any more".to_owned());
            }
        }
    }

    /// Gives the lock back, and waits until the cluster has taken it.
    pub async fn release(self) -> Result<(), LockError> {
        let LockGuard { stop, keeper, .. } = self;
        drop(stop);
        match keeper.await {
            Ok(outcome) => outcome,
            Err(_) => Err(Loss::RanOut("nobody renews it any more".to_owned()).into()),
        }
    }
}
