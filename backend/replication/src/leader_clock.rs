//! Cluster time, as the leader stamps it.
//!
//! A leader anchors its clock at the last stamp that was applied when the first entry of its own
//! term was, and carries it on by its monotonic clock alone. All stamps of earlier terms are applied
//! by then, so time goes on from where it stood. What passes between two leaders is not counted: a
//! lease can end late by that, and never early. No wall clock is asked.

use crate::state_machine::Applied;
use ringmaster_cluster::command::ClusterTime;
use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

#[derive(Debug, Default)]
pub struct LeaderClock {
    anchor: Mutex<Option<Anchor>>,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    term: u64,
    stamp: ClusterTime,
    at: Instant,
}

impl LeaderClock {
    /// The stamp for a command that is submitted in `term`, or none before the first entry of that
    /// term is applied.
    pub fn stamp(
        &self,
        term: u64,
        now: Instant,
        applied: Applied,
        last_stamp: impl FnOnce() -> ClusterTime,
    ) -> Option<ClusterTime> {
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let anchor = match *anchor {
            Some(anchor) if anchor.term == term => anchor,
            _ if applied.term == term => *anchor.insert(Anchor { term, stamp: last_stamp(), at: now }),
            _ => return None,
        };
        Some(anchor.stamp.after(now.saturating_duration_since(anchor.at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::id::Revision;
    use std::time::Duration;

    fn applied(term: u64) -> Applied {
        Applied { revision: Revision(10), term, at: None }
    }

    #[test]
    fn time_goes_on_from_the_last_applied_stamp() {
        let clock = LeaderClock::default();
        let start = ringmaster_net::clock::now();
        let last = || ClusterTime(5_000);
        assert_eq!(clock.stamp(3, start, applied(2), last), None, "the term's first entry is not applied");
        assert_eq!(clock.stamp(3, start, applied(3), last), Some(ClusterTime(5_000)));
        let later = start + Duration::from_millis(250);
        let unused = || unreachable!("the anchor stands");
        assert_eq!(clock.stamp(3, later, applied(3), unused), Some(ClusterTime(5_250)));
    }

    #[test]
    fn a_new_term_anchors_anew() {
        let clock = LeaderClock::default();
        let start = ringmaster_net::clock::now();
        clock.stamp(3, start, applied(3), || ClusterTime(5_000));
        // Another node led for a while; ten minutes passed here, and two seconds of cluster time there.
        let later = start + Duration::from_secs(600);
        assert_eq!(clock.stamp(5, later, applied(4), || ClusterTime(7_000)), None);
        assert_eq!(clock.stamp(5, later, applied(5), || ClusterTime(7_000)), Some(ClusterTime(7_000)));
    }
}
