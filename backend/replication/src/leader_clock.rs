//! The clock of a group, as its leader stamps it on commands.
//!
//! A leader anchors its clock at the last stamp that was applied when the first entry of its own term was applied, and
//! advances it by its monotonic clock alone. All stamps of earlier terms are applied by then, so time continues from
//! where it stood. The time between two leaders is not counted: a lease can end late by that, and never early. No wall
//! clock is read.

use crate::published::Applied;
use ringmaster_common::duration::millis;
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
    stamp_ms: u64,
    at: Instant,
}

impl LeaderClock {
    /// The milliseconds to stamp on a command that is submitted in `term`; none before the first entry of that term
    /// is applied.
    pub fn stamp(
        &self,
        term: u64,
        now: Instant,
        applied: Applied,
        last_stamp_ms: impl FnOnce() -> u64,
    ) -> Option<u64> {
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let anchor = match *anchor {
            Some(anchor) if anchor.term == term => anchor,
            _ if applied.term == term => *anchor.insert(Anchor { term, stamp_ms: last_stamp_ms(), at: now }),
            _ => return None,
        };
        Some(anchor.stamp_ms.saturating_add(millis(now.saturating_duration_since(anchor.at))))
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
    fn time_continues_from_the_last_applied_stamp() {
        let clock = LeaderClock::default();
        let start = ringmaster_net::clock::now();
        let last = || 5_000;
        assert_eq!(clock.stamp(3, start, applied(2), last), None, "the term's first entry is not applied");
        assert_eq!(clock.stamp(3, start, applied(3), last), Some(5_000));
        let later = start + Duration::from_millis(250);
        let unused = || unreachable!("the anchor stands");
        assert_eq!(clock.stamp(3, later, applied(3), unused), Some(5_250));
    }

    #[test]
    fn a_new_term_has_a_new_anchor() {
        let clock = LeaderClock::default();
        let start = ringmaster_net::clock::now();
        clock.stamp(3, start, applied(3), || 5_000);
        // Another node led for a while; ten minutes passed here, and two seconds of cluster time there.
        let later = start + Duration::from_secs(600);
        assert_eq!(clock.stamp(5, later, applied(4), || 7_000), None);
        assert_eq!(clock.stamp(5, later, applied(5), || 7_000), Some(7_000));
    }
}
