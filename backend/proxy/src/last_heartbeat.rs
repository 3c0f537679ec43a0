//! When an endpoint last sent a heartbeat: to this node, or to another node that reported it.

use crate::coarse_clock::CoarseInstant;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// By how much reports of other nodes may be late: the time of two reports, and a little.
const RELAY_DELAY: Duration = Duration::from_millis(1_500);

#[derive(Debug, Default)]
pub struct LastHeartbeat {
    /// To this node, as a [`CoarseInstant`].
    direct: AtomicU64,
    /// To another node.
    relayed: AtomicU64,
}

impl LastHeartbeat {
    pub fn record(&self, now: CoarseInstant) {
        self.direct.fetch_max(now.0, Relaxed);
    }

    pub fn record_relayed(&self, at: CoarseInstant) {
        self.relayed.fetch_max(at.0, Relaxed);
    }

    pub fn direct(&self) -> CoarseInstant {
        CoarseInstant(self.direct.load(Relaxed))
    }

    /// Whether the last heartbeat is younger than the TTL; none before the first heartbeat: the endpoint may send to
    /// a node whose report has not arrived yet.
    pub fn is_alive(&self, ttl: Duration, now: CoarseInstant) -> Option<bool> {
        let (direct, relayed) = (self.direct.load(Relaxed), self.relayed.load(Relaxed));
        let delay = if relayed == 0 { Duration::ZERO } else { RELAY_DELAY };
        let last = direct.max(relayed);
        (last != 0).then(|| now.since(CoarseInstant(last)) < ttl + delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_counts_for_its_ttl() {
        let (last, ttl, start) =
            (LastHeartbeat::default(), Duration::from_secs(2), CoarseInstant(1_000_000_000));
        let after = |millis| start.after(Duration::from_millis(millis));
        assert_eq!(last.is_alive(ttl, start), None);
        last.record(start);
        assert_eq!([1_999, 2_000].map(|at| last.is_alive(ttl, after(at))), [Some(true), Some(false)]);
        // Another node received one later. An older one changes nothing.
        last.record_relayed(after(1_000));
        last.record_relayed(after(500));
        last.record(start);
        assert_eq!([4_499, 4_500].map(|at| last.is_alive(ttl, after(at))), [Some(true), Some(false)]);
    }
}
