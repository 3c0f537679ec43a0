//! Stops openraft's clock where it would find nothing.
//!
//! It ticks five times for each heartbeat, and looks each time whether one is due, or whether a leader has been
//! silent for too long. An idle node would spend most of its waking on that. So a leader's heartbeats are sent from
//! here, and a follower that has just heard of its leader has the clock stopped for as long as no time-out can pass.
//!
//! What always holds: the clock runs where nobody leads, and from before the shortest election time-out has passed
//! in silence. Who is elected sends a heartbeat at once.

use super::{cluster_group::ClusterGroup, types::TypeConfig};
use crate::elections::Elections;
use openraft::{Instant, RaftState, async_runtime::WatchReceiver, errors::Fatal};
use std::time::Duration;
use tokio::time::timeout;

/// How much earlier than the shortest time-out the clock runs again.
const AHEAD: Duration = Duration::from_millis(20);
/// The shortest rest between two looks.
const BREATH: Duration = Duration::from_millis(5);

/// Runs until Raft has stopped.
pub async fn run(group: ClusterGroup, elections: Elections) {
    // Whatever ends this, the clock goes on.
    let running = Running(group);
    while look(&running.0, &elections).await.is_ok() {}
}

struct Running(ClusterGroup);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.raft().runtime_config().tick(true);
    }
}

/// For how long no time-out can pass, after so long a silence of the leader; none if the clock has to run.
fn left(silence: Option<Duration>, timeout_min: Duration) -> Option<Duration> {
    timeout_min.saturating_sub(AHEAD).checked_sub(silence?).filter(|left| !left.is_zero())
}

/// Does what is due, and returns when there is something to look at again.
async fn look(group: &ClusterGroup, elections: &Elections) -> Result<(), Fatal<TypeConfig>> {
    let raft = group.raft();
    let mut standing = raft.server_metrics();
    let seen = standing.borrow_watched().clone();
    let pause = match seen.current_leader {
        Some(leader) if leader == group.me() => {
            raft.runtime_config().tick(false);
            raft.trigger().heartbeat().await?;
            Some(elections.heartbeat)
        }
        Some(_) => {
            let last_heard = |state: &RaftState<TypeConfig>| state.vote_last_modified();
            let silence = raft.with_raft_state(last_heard).await?.map(|heard| heard.elapsed());
            let left = left(silence, elections.timeout_min);
            raft.runtime_config().tick(left.is_none());
            Some(left.unwrap_or(elections.heartbeat).max(BREATH))
        }
        None => {
            raft.runtime_config().tick(true);
            None
        }
    };
    let news = standing.wait_until(|other| *other != seen);
    let news = match pause {
        Some(pause) => timeout(pause, news).await,
        None => Ok(news.await),
    };
    match news {
        Ok(Err(_)) => Err(Fatal::Stopped),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_rests_only_while_no_time_out_can_pass() {
        let left = |silence: u64, timeout_min: u64| {
            left(Some(Duration::from_millis(silence)), Duration::from_millis(timeout_min))
        };
        assert_eq!(left(0, 190), Some(Duration::from_millis(170)));
        assert_eq!(left(169, 190), Some(Duration::from_millis(1)));
        assert_eq!(left(170, 190), None);
        assert_eq!(left(5_000, 190), None);
        assert_eq!(left(0, 15), None, "a time-out shorter than the start is ahead of it");
        assert_eq!(super::left(None, Duration::from_millis(190)), None, "a leader that was never heard");
    }
}
