//! Moments as one number, so that they fit into an atomic.

use ringmaster_common::duration;
use ringmaster_net::clock;
use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

static ORIGIN: LazyLock<Instant> = LazyLock::new(clock::now);

/// Microseconds since some moment in the past of this process. 0 is no moment: it stands for *never*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    pub fn now() -> Moment {
        Moment::of(clock::now())
    }

    pub fn of(instant: Instant) -> Moment {
        Moment(duration::micros(instant.saturating_duration_since(*ORIGIN)) + 1)
    }

    pub fn after(self, wait: Duration) -> Moment {
        Moment(self.0.saturating_add(duration::micros(wait)))
    }

    /// Not before the first one there is.
    pub fn before(self, age: Duration) -> Moment {
        Moment(self.0.saturating_sub(duration::micros(age)).max(1))
    }

    /// None where it was earlier, or at this very moment.
    pub fn until(self, later: Moment) -> Option<Duration> {
        later.0.checked_sub(self.0).filter(|left| *left > 0).map(Duration::from_micros)
    }

    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}
