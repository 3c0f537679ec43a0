//! Stops openraft's clock where it would find nothing.
//!
//! It ticks five times for each heartbeat, and looks each time whether one is due, or whether a leader has been
//! silent for too long. An idle node would spend most of its waking on that. So a leader's heartbeats are sent from
//! here, and a follower that has just heard of its leader has the clock stopped for as long as no time-out can pass.
//!
//! What always holds: the clock runs where nobody leads, and from before the shortest election time-out has passed
//! in silence. Who is elected sends a heartbeat at once.

use super::{cluster_group::ClusterGroup, types::TypeConfig};
use crate::config::Elections;
use openraft::{Instant, RaftState, async_runtime::WatchReceiver, errors::Fatal};
use std::time::Duration;
use tokio::time::timeout;

/// How much earlier than the shortest time-out the clock runs again.
const AHEAD: Duration = Duration::from_millis(20);

/// Runs until Raft has stopped.
pub async fn run(group: ClusterGroup, elections: Elections) {
    while look(&group, &elections).await.is_ok() {}
}

/// Does what is due, and returns when there is something to look at again.
async fn look(group: &ClusterGroup, elections: &Elections) -> Result<(), Fatal<TypeConfig>> {
    let raft = group.raft();
    let mut standing = raft.server_metrics();
    let now = standing.borrow_watched().clone();
    let pause = match now.current_leader {
        Some(leader) if leader == group.me() => {
            raft.runtime_config().tick(false);
            raft.trigger().heartbeat().await?;
            Some(elections.heartbeat)
        }
        Some(_) => {
            let heard = |state: &RaftState<TypeConfig>| state.vote_last_modified();
            let silence = raft.with_raft_state(heard).await?.map(|heard| heard.elapsed());
            let patience = elections.timeout_min.saturating_sub(AHEAD);
            let left = silence.and_then(|silence| patience.checked_sub(silence));
            raft.runtime_config().tick(left.is_none());
            Some(left.unwrap_or(patience).max(AHEAD / 4))
        }
        None => {
            raft.runtime_config().tick(true);
            None
        }
    };
    let news = standing.wait_until(|other| *other != now);
    let news = match pause {
        Some(pause) => timeout(pause, news).await,
        None => Ok(news.await),
    };
    match news {
        Ok(Err(_)) => Err(Fatal::Stopped),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}
