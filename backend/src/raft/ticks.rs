//! Stops openraft's clock where it would find nothing.
//!
//! It ticks five times for each heartbeat. A leader needs that to send them, and whoever misses a leader to stand
//! for election. A follower that has just heard of its leader has nothing to do before a time-out could pass, and
//! an idle node would spend most of its waking on these ticks.
//!
//! What always holds: the clock runs where nobody leads, on the leader from the moment that it is elected, and
//! from before the shortest election time-out has passed in silence.

use super::{cluster_group::ClusterGroup, types::TypeConfig};
use openraft::{Instant, RaftState, async_runtime::WatchReceiver, errors::Fatal};
use std::time::Duration;
use tokio::time::timeout;

/// How much earlier than the shortest time-out the clock runs again.
const AHEAD: Duration = Duration::from_millis(20);

/// Runs until Raft has stopped. No election time-out is shorter than `timeout_min`.
pub async fn run(group: ClusterGroup, timeout_min: Duration) {
    let patience = timeout_min.saturating_sub(AHEAD);
    while look(&group, patience).await.is_ok() {}
}

/// Lets the clock run or not, and returns when it has to be looked at again.
async fn look(group: &ClusterGroup, patience: Duration) -> Result<(), Fatal<TypeConfig>> {
    let raft = group.raft();
    let mut standing = raft.server_metrics();
    let now = standing.borrow_watched().clone();
    let follows = now.current_leader.is_some_and(|leader| leader != group.me());
    let heard = |state: &RaftState<TypeConfig>| state.vote_last_modified();
    let silence = if follows { raft.with_raft_state(heard).await? } else { None };
    let left = silence.and_then(|heard| patience.checked_sub(heard.elapsed())).filter(|left| !left.is_zero());
    raft.runtime_config().tick(left.is_none());
    let changed = standing.wait_until(|other| *other != now);
    // News of a leader change nothing else that could be waited for.
    let changed = if follows { timeout(left.unwrap_or(patience), changed).await } else { Ok(changed.await) };
    match changed {
        Ok(Err(_)) => Err(Fatal::Stopped),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}
