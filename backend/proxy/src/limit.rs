//! How many requests a second are let through, without a queue and without a lock.
//!
//! The generic cell rate algorithm: one number says when the next request would be due if all came evenly.
//! A request may be early by a burst's length, and is refused beyond that.

use super::moment::Moment;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Of how long the requests may come at once: of the second that the rate is for.
const BURST_MICROS: u64 = 1_000_000;

#[derive(Debug)]
pub struct RateLimit {
    interval_nanos: u64,
    /// In nanoseconds, as [`Moment`] counts.
    due: AtomicU64,
}

impl RateLimit {
    pub fn per_second(rate: u32) -> RateLimit {
        RateLimit { interval_nanos: 1_000_000_000 / u64::from(rate.max(1)), due: AtomicU64::new(0) }
    }

    /// Whether a request may pass now. One that may not leaves no trace.
    pub fn admits(&self, now: Moment) -> bool {
        let now = now.0.saturating_mul(1_000);
        let early = (BURST_MICROS * 1_000).max(self.interval_nanos);
        let step = |due: u64| {
            let next = due.max(now) + self.interval_nanos;
            (next <= now + early).then_some(next)
        };
        self.due.fetch_update(Relaxed, Relaxed, step).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn as_many_pass_in_a_second_as_the_rate_says() {
        for rate in [1, 10, 333, 20_000] {
            let limit = RateLimit::per_second(rate);
            let start = Moment(1);
            let passed = (0..50_000u64)
                .filter(|step| limit.admits(start.after(Duration::from_micros(step * 200))))
                .count() as f64
                / 10.0;
            // Those of the burst come on top, once in the ten seconds; and no more than ask can pass.
            let expected = f64::from(rate).min(5_000.0);
            assert!((expected..=expected * 1.1 + 0.2).contains(&passed), "{passed} of {rate}");
        }
    }
}
