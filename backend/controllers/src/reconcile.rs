//! The loop of every controller: wait until this node leads, observe, compute, propose in this term, wait.
//!
//! A controller looks again after a change, at the time that it asked for, or after an interval. A proposal that was not
//! taken is not repeated as such: the next look computes anew what is right by then.

use crate::{PROPOSAL_DEADLINE, request};
use ringmaster_cluster::command::{Command, Response};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::error::Refusal;
use ringmaster_net::clock;
use std::{
    future::pending,
    ops::Deref,
    time::{Duration, Instant},
};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        watch,
    },
    time::{sleep, timeout},
};

/// What a controller does in its turn.
pub trait Controller: Send {
    /// Observes, computes and proposes, as the leader of a term. Says when to look again.
    fn reconcile(&mut self, leadership: &Leadership) -> impl Future<Output = NextLook> + Send;
}

/// The term in which this node leads, and the way to propose in it.
pub struct Leadership {
    group: ClusterGroup,
    pub term: u64,
}

impl Deref for Leadership {
    type Target = ClusterGroup;

    fn deref(&self) -> &ClusterGroup {
        &self.group
    }
}

impl Leadership {
    /// Proposes in this term and in no other.
    pub async fn propose(&self, command: Command) -> Result<Response, Refusal> {
        let deadline = clock::now() + PROPOSAL_DEADLINE;
        self.group.propose_if_term(self.term, request(self.group.me()), command, deadline).await
    }
}

/// When a controller looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextLook {
    not_before: Duration,
    at_latest: Option<Duration>,
}

impl NextLook {
    /// After a change alone.
    pub const ON_CHANGE: NextLook = NextLook { not_before: Duration::ZERO, at_latest: None };

    /// After a change, or after so long.
    pub const fn within(at_latest: Duration) -> NextLook {
        NextLook { not_before: Duration::ZERO, at_latest: Some(at_latest) }
    }

    /// After this pause and not sooner, with or without a change.
    pub const fn after(pause: Duration) -> NextLook {
        NextLook { not_before: pause, at_latest: Some(pause) }
    }

    /// Changes come in bursts: not sooner than this after the last look.
    pub const fn not_before(self, pause: Duration) -> NextLook {
        NextLook { not_before: pause, ..self }
    }

    /// Waits until it is time, for a controller that looked at this moment.
    async fn wait(self, looked_at: Instant, changes: &mut impl Changes) {
        let passed = || clock::now().saturating_duration_since(looked_at);
        if self.at_latest.is_none_or(|latest| latest > self.not_before) {
            let change = changes.next();
            match self.at_latest {
                Some(latest) => drop(timeout(latest.saturating_sub(passed()), change).await),
                None => change.await,
            }
        }
        let rest = self.not_before.saturating_sub(passed());
        if !rest.is_zero() {
            sleep(rest).await;
        }
    }
}

/// A source of changes that are worth a look.
pub trait Changes: Send {
    /// Waits for a change since the last one. Never ready once the source is gone.
    fn next(&mut self) -> impl Future<Output = ()> + Send;
}

impl<T: Send + Sync> Changes for watch::Receiver<T> {
    async fn next(&mut self) {
        if self.changed().await.is_err() {
            pending().await
        }
    }
}

impl<T: Clone + Send> Changes for broadcast::Receiver<T> {
    async fn next(&mut self) {
        match self.recv().await {
            // Changes that were missed are changes.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => pending().await,
        }
    }
}

/// Runs a controller for as long as the node runs.
pub async fn run(group: ClusterGroup, mut changes: impl Changes, mut controller: impl Controller) {
    loop {
        let term = group.until_leading().await;
        let next = controller.reconcile(&Leadership { group: group.clone(), term }).await;
        next.wait(clock::now(), &mut changes).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(30);

    /// How long a controller waits that looks again then, where something `changed` since it looked.
    async fn waited(next: NextLook, changed: bool) -> Duration {
        let (sender, mut changes) = watch::channel(0);
        if changed {
            sender.send_replace(1);
        }
        let started = clock::now();
        next.wait(started, &mut changes).await;
        clock::now().saturating_duration_since(started)
    }

    #[tokio::test]
    async fn a_change_ends_the_wait() {
        assert!(waited(NextLook::ON_CHANGE, true).await < LONG);
        assert!(waited(NextLook::within(LONG), true).await < LONG);
    }

    #[tokio::test]
    async fn without_a_change_the_wait_ends_at_the_latest_time() {
        assert!(waited(NextLook::within(SHORT), false).await >= SHORT);
        let wait = waited(NextLook::ON_CHANGE, false);
        assert!(timeout(SHORT, wait).await.is_err(), "it waits for a change alone");
    }

    #[tokio::test]
    async fn changes_in_bursts_end_the_wait_no_sooner_than_asked_for() {
        let next = NextLook::within(LONG).not_before(SHORT);
        let waited_for = waited(next, true).await;
        assert!(waited_for >= SHORT && waited_for < LONG, "{waited_for:?}");
        assert!(waited(NextLook::after(SHORT), true).await >= SHORT);
    }
}
