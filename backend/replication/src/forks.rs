//! A leader whose log differs from what this replica has committed.
//!
//! Raft excludes it as long as no voter forgets anything. Where a majority was put back to an older state, it elects a
//! leader without the entries that it had acknowledged, and a replica that still has them is the only trace of them.
//! openraft takes what is committed here for a part of the leader's log, unseen: entries that differ would be skipped,
//! and this replica would answer reads from another history than the others. So the replica stops instead.

use crate::{
    replica::Replica,
    types::{LogId, TypeConfig},
    wire::Append,
};
use openraft::{RaftMetrics, async_runtime::WatchReceiver, entry::RaftEntry};
use ringmaster_peer::{Failure, FailureCode};

/// Refuses an append of such a leader, and stops the replica.
pub async fn check(replica: &Replica, append: &Append) -> Result<(), Failure> {
    let Some(committed) = committed_before(&replica.raft().metrics().borrow_watched(), append) else {
        return Ok(());
    };
    // The last entry that both have: logs that agree about it agree about all before it.
    let shared = append.entries.iter().rev().map(RaftEntry::log_id).find(|id| id.index <= committed.index);
    let Some(theirs) = shared.or(append.prev_log_id).filter(|id| id.index <= committed.index) else {
        return Ok(());
    };
    let ours =
        if theirs.index == committed.index { Some(committed) } else { replica.entry_at(theirs.index).await };
    match ours {
        Some(ours) if ours != theirs => {
            let reason = forked(ours, theirs);
            replica.fail(reason.clone());
            Err(Failure::new(FailureCode::Stopped, reason))
        }
        Some(_) | None => Ok(()),
    }
}

/// The last entry that is committed here, unless the append is of a leader of the past, which is refused anyway.
fn committed_before(metrics: &RaftMetrics<TypeConfig>, append: &Append) -> Option<LogId> {
    (append.vote >= metrics.vote).then_some(metrics.local_committed?)
}

pub fn forked(ours: LogId, theirs: LogId) -> String {
    format!(
        "the leader's log has an entry of term {} at index {}, where this node has committed one of term {}: a majority \
         of the voters was put back to an older state, and the cluster has gone on without writes that this node has. \
         Keep a copy of its data directory if they matter; then remove the node, and let it join with an empty data \
         directory",
        theirs.leader_id.term, theirs.index, ours.leader_id.term
    )
}
