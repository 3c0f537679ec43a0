//! Checkpoints: the entries of the log at which all nodes compare their states.
//!
//! An entry is one if cluster time passes a multiple of [`CHECKPOINT_EVERY`] with it. All nodes agree about that, because
//! the time is in the entries.

use crate::ClusterGroup;
use ringmaster_cluster::{State, command::ClusterTime};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How often the states of the nodes are compared, in cluster time.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
const EVERY_MS: u64 = CHECKPOINT_EVERY.as_millis() as u64;

/// The state at the latest checkpoint, until it is taken.
#[derive(Debug, Default)]
pub struct Checkpoints(watch::Sender<Latest>);

#[derive(Debug, Default)]
pub struct Latest {
    revision: u64,
    state: Option<Arc<State>>,
}

impl Checkpoints {
    /// The state after an entry, and the time before it.
    pub fn applied(&self, before: ClusterTime, state: &State) {
        if before.0 / EVERY_MS != state.clock.0 / EVERY_MS {
            let latest = Latest { revision: state.revision.0, state: Some(Arc::new(state.clone())) };
            self.0.send_replace(latest);
        }
    }
}

impl ClusterGroup {
    /// Changes with each checkpoint.
    pub fn watch_checkpoints(&self) -> watch::Receiver<Latest> {
        self.checkpoints().0.subscribe()
    }

    /// The state at the latest checkpoint; none if it was taken.
    pub fn take_checkpoint(&self) -> Option<Arc<State>> {
        let mut state = None;
        self.checkpoints().0.send_if_modified(|latest| {
            state = latest.state.take();
            false
        });
        state
    }

    /// When the states are to be compared once more: something was applied since the last checkpoint.
    pub fn next_checkpoint(&self) -> Option<ClusterTime> {
        let state = self.state();
        let is_new = state.revision.0 > self.checkpoints().0.borrow().revision;
        is_new.then(|| ClusterTime((state.clock.0 / EVERY_MS + 1) * EVERY_MS))
    }

    fn checkpoints(&self) -> &Checkpoints {
        &self.0.raft.application().checkpoints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_passes_a_multiple_is_a_checkpoint() {
        let checkpoints = Checkpoints::default();
        let is_one = |before, after| {
            checkpoints.0.send_replace(Latest::default());
            checkpoints
                .applied(ClusterTime(before), &State { clock: ClusterTime(after), ..State::default() });
            checkpoints.0.borrow().state.is_some()
        };
        assert!(!is_one(0, EVERY_MS - 1));
        assert!(is_one(EVERY_MS - 1, EVERY_MS));
        assert!(!is_one(EVERY_MS, EVERY_MS));
        assert!(is_one(EVERY_MS + 5, 7 * EVERY_MS));
    }
}
