//! Instants as one number, so that they fit into an atomic; and what happens once in an interval at the most.

use ringmaster_common::duration;
use ringmaster_net::clock;
use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

static ORIGIN: LazyLock<Instant> = LazyLock::new(clock::now);

/// Microseconds since a fixed instant of this process. 0 stands for *never*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoarseInstant(pub u64);

impl CoarseInstant {
    pub fn now() -> CoarseInstant {
        CoarseInstant::of(clock::now())
    }

    pub fn of(instant: Instant) -> CoarseInstant {
        CoarseInstant(duration::micros(instant.saturating_duration_since(*ORIGIN)) + 1)
    }

    pub fn after(self, wait: Duration) -> CoarseInstant {
        CoarseInstant(self.0.saturating_add(duration::micros(wait)))
    }

    /// At the earliest the first instant that exists.
    pub fn before(self, age: Duration) -> CoarseInstant {
        CoarseInstant(self.0.saturating_sub(duration::micros(age)).max(1))
    }

    /// None if `later` is not later.
    pub fn until(self, later: CoarseInstant) -> Option<Duration> {
        later.0.checked_sub(self.0).filter(|left| *left > 0).map(Duration::from_micros)
    }

    pub fn since(self, earlier: CoarseInstant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Lets one event pass in each interval, without a lock.
#[derive(Debug, Default)]
pub struct Sampler(AtomicU64);

impl Sampler {
    pub fn is_due(&self, interval: Duration, now: CoarseInstant) -> bool {
        let due = self.0.load(Relaxed);
        now.0 >= due && self.0.compare_exchange(due, now.after(interval).0, Relaxed, Relaxed).is_ok()
    }
}
