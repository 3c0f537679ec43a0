//! Compares the log of a leader with what this replica has committed, before Raft is given an append.
//!
//! openraft takes what is committed here for a part of the leader's log, unseen: entries that differ would be skipped.

use crate::{
    forks::forked,
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
