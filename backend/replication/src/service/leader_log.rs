//! Compares the log of a leader with what this replica has committed, before Raft is given an append or a snapshot.
//!
//! openraft takes what is committed here for a part of the leader's log, unseen: entries that differ would be skipped, and
//! acknowledged to the leader.

use crate::{
    forks::{forked, two_leaders},
    replica::Replica,
    types::{LogId, TypeConfig, Vote},
    wire::Append,
};
use openraft::{RaftMetrics, async_runtime::WatchReceiver, entry::RaftEntry};
use ringmaster_peer::{Failure, FailureCode};

/// Refuses an append of a leader whose log differs, and stops the replica.
pub async fn check(replica: &Replica, append: &Append) -> Result<(), Failure> {
    check_leader(replica, &append.vote)?;
    let Some(committed) = committed_before(&replica.raft().metrics().borrow_watched(), &append.vote) else {
        return Ok(());
    };
    // The last entry that both have: logs that agree about it agree about all before it.
    let shared = append.entries.iter().rev().map(RaftEntry::log_id).find(|id| id.index <= committed.index);
    compare(replica, committed, shared.or(append.prev_log_id)).await
}

/// The same for a snapshot, of which `last` is the last entry. One that ends after what is committed here may differ
/// unseen.
pub async fn check_snapshot(replica: &Replica, vote: &Vote, last: Option<LogId>) -> Result<(), Failure> {
    check_leader(replica, vote)?;
    let Some(committed) = committed_before(&replica.raft().metrics().borrow_watched(), vote) else {
        return Ok(());
    };
    compare(replica, committed, last).await
}

/// A term has one leader. Entries of two could not be told apart by their ids.
fn check_leader(replica: &Replica, theirs: &Vote) -> Result<(), Failure> {
    let ours = replica.raft().metrics().borrow_watched().vote;
    let [mine, other] = [&ours, theirs].map(|vote| (vote.leader_id.term, vote.leader_id.voted_for));
    if !ours.committed || !theirs.committed || mine.0 != other.0 || mine.1 == other.1 {
        return Ok(());
    }
    let reason = two_leaders(mine.0, mine.1, other.1);
    replica.fail(reason.clone());
    Err(Failure::new(FailureCode::Stopped, reason))
}

async fn compare(replica: &Replica, committed: LogId, theirs: Option<LogId>) -> Result<(), Failure> {
    let Some(theirs) = theirs.filter(|id| id.index <= committed.index) else { return Ok(()) };
    // Terms never fall along a log, so this needs no entry: it may have been purged here.
    let has_later_term = theirs.committed_leader_id() > committed.committed_leader_id();
    let ours = if has_later_term || theirs.index == committed.index {
        Some(committed)
    } else {
        replica.entry_at(theirs.index).await
    };
    match ours {
        Some(ours) if ours != theirs => {
            let reason = forked(ours, theirs);
            replica.fail(reason.clone());
            Err(Failure::new(FailureCode::Stopped, reason))
        }
        Some(_) | None => Ok(()),
    }
}

/// The last entry that is committed here, unless the message is of a leader of the past, which is refused anyway.
fn committed_before(metrics: &RaftMetrics<TypeConfig>, vote: &Vote) -> Option<LogId> {
    (*vote >= metrics.vote).then_some(metrics.local_committed?)
}
