//! How far followers have acknowledged the log to this leader, and which of them have lost a part of that.
//!
//! openraft starts to search a follower's log anew when the follower turns out to lack what it had acknowledged
//! (`allow_log_reversion`). The follower has to learn of it first, from a heartbeat that names what it had acknowledged:
//! so the conflict of an append is passed on as a failed call until a heartbeat has met it.

use crate::types::{LogId, TypeConfig, Vote};
use openraft::raft::{StreamAppendError, StreamAppendResult};
use ringmaster_common::id::NodeId;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Of all followers, for one group. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged(Arc<Mutex<Followers>>);

#[derive(Debug, Default)]
struct Followers {
    /// The leadership in which they have acknowledged it: a later leader may replace what is not committed.
    vote: Option<Vote>,
    by_node: BTreeMap<NodeId, Follower>,
}

#[derive(Debug, Default)]
struct Follower {
    matched: Option<LogId>,
    /// The last entry that it had acknowledged and that it did not have at the last heartbeat.
    lost: Option<LogId>,
}

impl Acknowledged {
    /// The followers that have lost entries, with the index through which they had acknowledged them.
    pub fn lost(&self) -> BTreeMap<NodeId, u64> {
        let followers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = |(node, follower): (&NodeId, &Follower)| Some((*node, follower.lost?.index));
        followers.by_node.iter().filter_map(lost).collect()
    }

    /// None for an answer to an earlier leadership that comes late: the record of the present one stays as it is.
    fn with<T>(&self, node: NodeId, vote: &Vote, work: impl FnOnce(&mut Follower) -> T) -> Option<T> {
        let mut followers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if followers.vote.is_some_and(|present| *vote < present) {
            return None;
        }
        if followers.vote != Some(*vote) {
            *followers = Followers { vote: Some(*vote), by_node: BTreeMap::new() };
        }
        Some(work(followers.by_node.entry(node).or_default()))
    }

    /// A heartbeat is sent that names `matched` as what the follower has acknowledged.
    pub fn heartbeat_sent(&self, node: NodeId, vote: &Vote, matched: Option<LogId>) {
        self.with(node, vote, |follower| follower.matched = matched);
    }

    /// The answer to that heartbeat.
    pub fn heartbeat_answered(
        &self,
        node: NodeId,
        vote: &Vote,
        matched: Option<LogId>,
        answer: &StreamAppendResult<TypeConfig>,
    ) {
        self.with(node, vote, |follower| match answer {
            Ok(_) if matched >= follower.lost => follower.lost = None,
            Err(StreamAppendError::Conflict(_)) => {
                if follower.lost < matched {
                    tracing::error!(%node, acknowledged = matched.map_or(0, |id| id.index),
                        "node {node} has lost log entries that it had acknowledged");
                    follower.lost = matched;
                }
                follower.matched = None;
            }
            Ok(_) | Err(StreamAppendError::HigherVote(_)) => {}
        });
    }

    /// The answer to an append. False where it shows a loss that no heartbeat has shown to the follower.
    pub fn append_answered(
        &self,
        node: NodeId,
        vote: &Vote,
        answer: &StreamAppendResult<TypeConfig>,
    ) -> bool {
        let consistent = self.with(node, vote, |follower| match answer {
            Ok(matched) => {
                follower.matched = follower.matched.max(*matched);
                true
            }
            Err(StreamAppendError::Conflict(conflict)) => follower.matched < Some(*conflict),
            Err(StreamAppendError::HigherVote(_)) => true,
        });
        consistent.unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::alias::CommittedLeaderIdOf;

    const NODE: NodeId = NodeId(3);

    fn entry(index: u64) -> LogId {
        LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(1), index)
    }

    fn conflict(index: u64) -> StreamAppendResult<TypeConfig> {
        Err(StreamAppendError::Conflict(entry(index)))
    }

    #[test]
    fn a_conflict_below_what_was_acknowledged_is_a_loss() {
        let (acknowledged, vote) = (Acknowledged::default(), Vote::new_committed(1, NodeId(1)));
        assert!(acknowledged.append_answered(NODE, &vote, &conflict(50)), "the search for its log");
        assert!(acknowledged.append_answered(NODE, &vote, &Ok(Some(entry(40)))));
        assert!(acknowledged.append_answered(NODE, &vote, &conflict(41)));
        assert!(!acknowledged.append_answered(NODE, &vote, &conflict(40)));
        assert_eq!(acknowledged.lost(), BTreeMap::new(), "it does not know yet");

        acknowledged.heartbeat_sent(NODE, &vote, Some(entry(40)));
        acknowledged.heartbeat_answered(NODE, &vote, Some(entry(40)), &conflict(40));
        assert_eq!(acknowledged.lost(), [(NODE, 40)].into());
        assert!(acknowledged.append_answered(NODE, &vote, &conflict(40)), "the search begins anew");

        acknowledged.heartbeat_answered(NODE, &vote, None, &Ok(None));
        assert_eq!(acknowledged.lost(), [(NODE, 40)].into());
        acknowledged.heartbeat_answered(NODE, &vote, Some(entry(41)), &Ok(Some(entry(41))));
        assert_eq!(acknowledged.lost(), BTreeMap::new());
    }

    #[test]
    fn another_leadership_and_a_node_that_joined_again_begin_anew() {
        let acknowledged = Acknowledged::default();
        let [first, second] = [1, 2].map(|term| Vote::new_committed(term, NodeId(1)));
        acknowledged.append_answered(NODE, &first, &Ok(Some(entry(40))));
        assert!(acknowledged.append_answered(NODE, &second, &conflict(30)));
        acknowledged.append_answered(NODE, &second, &Ok(Some(entry(40))));
        acknowledged.heartbeat_sent(NODE, &second, None);
        assert!(acknowledged.append_answered(NODE, &second, &conflict(30)));
    }

    #[test]
    fn a_late_answer_to_an_earlier_leadership_changes_nothing() {
        let acknowledged = Acknowledged::default();
        let [first, second] = [1, 2].map(|term| Vote::new_committed(term, NodeId(1)));
        acknowledged.append_answered(NODE, &second, &Ok(Some(entry(40))));
        assert!(acknowledged.append_answered(NODE, &first, &conflict(30)));
        assert!(!acknowledged.append_answered(NODE, &second, &conflict(30)), "it had acknowledged 40");
    }
}
