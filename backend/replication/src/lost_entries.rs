//! A replica that has lost entries which it had acknowledged: its data directory is an older copy, or a part of it is gone.
//!
//! Raft counts on what a voter has acknowledged. A replica that has lost a part of that could help to elect a leader
//! without entries that a majority held, or vote twice in a term. It cannot know by itself what it has lost, and others
//! do know: a leader's heartbeats name the last entry that the follower has acknowledged to it, and each peer remembers
//! how far the replica had come by its own reports.
//!
//! What always holds: until the replica has the lost entries again, or newer ones of a later term, it does not campaign,
//! and votes only for a candidate that has them. It catches up like any follower.

use crate::types::LogId;
use std::sync::Arc;
use tokio::sync::watch;

/// Of one replica. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct LostEntries(Arc<watch::Sender<Losses>>);

#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// The last entry that was acknowledged and is not there.
    last: Option<LogId>,
    /// How often entries were found to be lost.
    #[cfg(test)]
    times: u32,
}

impl Default for LostEntries {
    fn default() -> Self {
        LostEntries(Arc::new(watch::Sender::default()))
    }
}

impl LostEntries {
    /// The last entry that was acknowledged and is not there; none where nothing is lost.
    pub fn last(&self) -> Option<LogId> {
        self.0.borrow().last
    }

    #[cfg(test)]
    pub fn times(&self) -> u32 {
        self.0.borrow().times
    }

    /// Changes when entries are found to be lost, and when they are there again.
    pub fn watch(&self) -> watch::Receiver<Losses> {
        self.0.subscribe()
    }

    /// Another node knows that this replica had acknowledged an entry that it does not have.
    pub fn found(&self, acknowledged: LogId) {
        let mut is_first = false;
        self.0.send_if_modified(|losses| {
            let more = losses.last < Some(acknowledged);
            is_first = losses.last.is_none();
            if more {
                losses.last = Some(acknowledged);
            }
            #[cfg(test)]
            (losses.times += u32::from(is_first));
            more
        });
        if is_first {
            tracing::error!(
                acknowledged = acknowledged.index,
                "this node has lost log entries that it had acknowledged: its data directory is an older copy, or a part \
                 of it is gone; until it has them again it does not lead, and votes only for a node that has them. Where \
                 its disk may lose more, remove the node and let it join with an empty data directory"
            );
        }
    }

    /// This replica's log ends at `last`.
    pub fn reached(&self, last: LogId) {
        let again = self.0.send_if_modified(|losses| {
            let again = losses.last.is_some_and(|lost| last >= lost);
            if again {
                losses.last = None;
            }
            again
        });
        if again {
            tracing::warn!(through = last.index, "this node has caught up with the entries that it had lost");
        }
    }

    /// Whether a vote for a candidate whose log ends at `last` loses nothing that was acknowledged here.
    pub fn allow_vote_for(&self, last: Option<LogId>) -> bool {
        last >= self.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TypeConfig;
    use openraft::alias::CommittedLeaderIdOf;

    fn entry(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(term), index)
    }

    #[test]
    fn entries_are_lost_until_the_log_reaches_them_again() {
        let lost = LostEntries::default();
        lost.found(entry(3, 262));
        lost.found(entry(3, 100));
        assert_eq!(lost.last(), Some(entry(3, 262)));
        lost.reached(entry(3, 261));
        assert_eq!(lost.last(), Some(entry(3, 262)));
        lost.reached(entry(3, 262));
        assert_eq!(lost.last(), None);
        lost.found(entry(3, 262));
        lost.reached(entry(5, 70));
        assert_eq!(lost.last(), None, "a later term stands above a higher index");
    }

    #[test]
    fn a_vote_goes_to_a_node_that_has_the_lost_entries() {
        let lost = LostEntries::default();
        assert!(lost.allow_vote_for(None));
        lost.found(entry(3, 262));
        assert!(!lost.allow_vote_for(None));
        assert!(!lost.allow_vote_for(Some(entry(3, 261))));
        assert!(!lost.allow_vote_for(Some(entry(2, 300))));
        assert!(lost.allow_vote_for(Some(entry(3, 262))));
        assert!(lost.allow_vote_for(Some(entry(4, 10))));
    }
}
