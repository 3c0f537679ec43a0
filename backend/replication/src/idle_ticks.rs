//! Stops openraft's clock while it would find nothing to do.
//!
//! The clock ticks five times for each heartbeat. Each tick looks whether a heartbeat is due, or whether a leader has
//! been silent for too long; an idle node would wake up mostly for that. So a leader's heartbeats are sent from here,
//! and on a follower that has just heard from its leader the clock is stopped for as long as no time-out can pass.
//!
//! What always holds: the clock runs while no leader is known, and from before the shortest election time-out has
//! passed in silence. A node sends a heartbeat as soon as it is elected.

use crate::{elections::Elections, replica::Replica, types::TypeConfig};
use openraft::{Instant, RaftState, async_runtime::WatchReceiver, errors::Fatal};
use std::time::Duration;
use tokio::time::timeout;

/// How much earlier than the shortest time-out the clock runs again.
const AHEAD: Duration = Duration::from_millis(20);
/// The shortest pause between two adjustments.
const MIN_PAUSE: Duration = Duration::from_millis(5);

/// Runs until Raft has stopped.
pub async fn run(replica: Replica, elections: Elections) {
    // However this ends, the clock runs again.
    let running = Running(replica);
    while adjust(&running.0, &elections).await.is_ok() {}
}

struct Running(Replica);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.raft().runtime_config().tick(true);
    }
}

/// For how long no time-out can pass, after such a silence of the leader; none if the clock has to run.
fn remaining(silence: Option<Duration>, timeout_min: Duration) -> Option<Duration> {
    timeout_min.saturating_sub(AHEAD).checked_sub(silence?).filter(|remaining| !remaining.is_zero())
}

/// Does what is due, and returns when it is to be called again.
async fn adjust(replica: &Replica, elections: &Elections) -> Result<(), Fatal<TypeConfig>> {
    let raft = replica.raft();
    let mut metrics = raft.server_metrics();
    let seen = metrics.borrow_watched().clone();
    let pause = match seen.current_leader {
        Some(leader) if leader == replica.node() => {
            raft.runtime_config().tick(false);
            raft.trigger().heartbeat().await?;
            Some(elections.heartbeat)
        }
        Some(_) => {
            let last_heard = |state: &RaftState<TypeConfig>| state.vote_last_modified();
            let silence = raft.with_raft_state(last_heard).await?.map(|heard| heard.elapsed());
            let remaining = remaining(silence, elections.timeout_min);
            raft.runtime_config().tick(remaining.is_none());
            Some(remaining.unwrap_or(elections.heartbeat).max(MIN_PAUSE))
        }
        None => {
            raft.runtime_config().tick(true);
            None
        }
    };
    let changed = metrics.wait_until(|other| *other != seen);
    let changed = match pause {
        Some(pause) => timeout(pause, changed).await,
        None => Ok(changed.await),
    };
    match changed {
        Ok(Err(_)) => Err(Fatal::Stopped),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stops_only_while_no_time_out_can_pass() {
        let remaining = |silence: u64, timeout_min: u64| {
            remaining(Some(Duration::from_millis(silence)), Duration::from_millis(timeout_min))
        };
        assert_eq!(remaining(0, 190), Some(Duration::from_millis(170)));
        assert_eq!(remaining(169, 190), Some(Duration::from_millis(1)));
        assert_eq!(remaining(170, 190), None);
        assert_eq!(remaining(5_000, 190), None);
        assert_eq!(remaining(0, 15), None, "a time-out shorter than the start is ahead of it");
        assert_eq!(super::remaining(None, Duration::from_millis(190)), None, "no leader was ever heard");
    }
}
