//! Expiry: lets time pass in the log when something is due there: leases of locks, deadlines of steps, and after the last
//! write the comparison of the nodes' states.
//!
//! The state expires things by the time stamps of entries alone. Where no other entry comes, the leader proposes a tick
//! at the moment that the first thing is due.

use crate::{
    IDLE_INTERVAL,
    reconcile::{self, Controller, Leadership, NextLook},
};
use ringmaster_cluster::command::{ClusterTime, Command};
use ringmaster_cluster_group::ClusterGroup;
use std::time::Duration;

/// The shortest time between two looks: a tick may have been proposed and not been taken, and under load each entry is
/// a change.
const MIN_PAUSE: Duration = Duration::from_millis(5);

pub async fn run(group: ClusterGroup) {
    // A lease that ends sooner than all others may come with any entry.
    let changes = group.published().watch();
    reconcile::run(group, changes, Expiry).await;
}

struct Expiry;

impl Controller for Expiry {
    async fn reconcile(&mut self, leadership: &Leadership) -> NextLook {
        let due = || leadership.state().next_due().into_iter().chain(leadership.next_checkpoint()).min();
        let left = || Some(time_left(due()?, leadership.cluster_time()?));
        if left() == Some(Duration::ZERO)
            && let Err(refusal) = leadership.propose(Command::Tick).await
        {
            tracing::debug!(%refusal, "the passing of time was not recorded; the leader tries again");
        }
        let at_latest = left().map_or(IDLE_INTERVAL, |left| left.clamp(MIN_PAUSE, IDLE_INTERVAL));
        NextLook::within(at_latest).not_before(MIN_PAUSE)
    }
}

/// How long it takes until something is due.
fn time_left(due: ClusterTime, now: ClusterTime) -> Duration {
    Duration::from_millis(due.0.saturating_sub(now.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_left_once_something_is_due() {
        let left = |due, now| time_left(ClusterTime(due), ClusterTime(now)).as_millis();
        assert_eq!([left(1_000, 400), left(1_000, 1_000), left(1_000, 1_700)], [600, 0, 0]);
    }
}
