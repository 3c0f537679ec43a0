//! Cluster time.

use ringmaster_common::duration::millis;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Milliseconds of cluster time: the leader's monotonic clock, carried on from leader to leader.
/// It never runs faster than any real clock, and never backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterTime(pub u64);

impl ClusterTime {
    pub fn after(self, duration: Duration) -> ClusterTime {
        ClusterTime(self.0.saturating_add(millis(duration)))
    }
}
