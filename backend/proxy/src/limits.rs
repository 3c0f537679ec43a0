//! Bounds on rates, without queues and without locks: requests of a route, and retries of an upstream.
//!
//! A route is limited by the generic cell rate algorithm: one number says when the next request would be due if
//! requests came evenly. A request may be early by the length of a burst, and is refused beyond that. Retries are a
//! share of the requests, kept as a bucket of tokens that is refilled once a second.

use crate::coarse_clock::CoarseInstant;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// The length of a burst: all requests of one second may come at once.
const BURST_MICROS: u64 = 1_000_000;
/// The most retries that an upstream saves up.
pub const MAX_RETRY_TOKENS: i64 = 200;
/// How many retries a second are allowed however few requests there are.
pub const MIN_RETRIES_PER_S: i64 = 10;

#[derive(Debug)]
pub struct RateLimit {
    interval_nanos: u64,
    /// When the next request is due, in nanoseconds of [`CoarseInstant`].
    due: AtomicU64,
}

impl RateLimit {
    pub fn per_second(rate: u32) -> RateLimit {
        RateLimit { interval_nanos: 1_000_000_000 / u64::from(rate.max(1)), due: AtomicU64::new(0) }
    }

    /// Whether a request may pass now. A refused request leaves no trace.
    pub fn admits(&self, now: CoarseInstant) -> bool {
        let now = now.0.saturating_mul(1_000);
        let early = (BURST_MICROS * 1_000).max(self.interval_nanos);
        let step = |due: u64| {
            let next = due.max(now) + self.interval_nanos;
            (next <= now + early).then_some(next)
        };
        self.due.fetch_update(Relaxed, Relaxed, step).is_ok()
    }
}

#[derive(Debug)]
pub struct RetryBudget {
    tokens: AtomicI64,
    requests_seen: AtomicU64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { tokens: AtomicI64::new(MAX_RETRY_TOKENS), requests_seen: AtomicU64::new(0) }
    }
}

impl RetryBudget {
    /// Takes a token, if there is one.
    pub fn take(&self) -> bool {
        self.tokens.fetch_update(Relaxed, Relaxed, |left| (left > 0).then(|| left - 1)).is_ok()
    }

    /// Adds what the requests since the last refill allow. To be called once a second with all requests so far.
    pub fn refill(&self, requests: u64, percent: u32) {
        let before = self.requests_seen.swap(requests, Relaxed);
        let earned = requests.saturating_sub(before) * u64::from(percent) / 100;
        let earned = if percent == 0 { 0 } else { (earned as i64).max(MIN_RETRIES_PER_S) };
        let fill = |left: i64| Some((left + earned).min(MAX_RETRY_TOKENS));
        // The update always gives a value.
        let _ = self.tokens.fetch_update(Relaxed, Relaxed, fill);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_rate_bounds_the_requests_of_a_second() {
        for rate in [1, 10, 333, 20_000] {
            let limit = RateLimit::per_second(rate);
            let start = CoarseInstant(1);
            let passed = (0..50_000u64)
                .filter(|step| limit.admits(start.after(Duration::from_micros(step * 200))))
                .count() as f64
                / 10.0;
            // The burst comes on top, once in the ten seconds; and no more can pass than come.
            let expected = f64::from(rate).min(5_000.0);
            assert!((expected..=expected * 1.1 + 0.2).contains(&passed), "{passed} of {rate}");
        }
    }

    #[test]
    fn retries_are_a_share_of_requests() {
        let budget = RetryBudget::default();
        let retries = || (0..10_000).filter(|_| budget.take()).count() as i64;
        assert_eq!(retries(), MAX_RETRY_TOKENS);
        budget.refill(500, 20);
        assert_eq!(retries(), 100);
        budget.refill(500, 20);
        assert_eq!(retries(), MIN_RETRIES_PER_S);
        budget.refill(1_000, 0);
        assert_eq!(retries(), 0);
    }
}
