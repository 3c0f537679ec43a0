//! How long commands take, as a leader measures it: over the last few seconds, and since the start.

use crate::{clock, histogram::WindowedHistogram};
use prometheus_client::metrics::histogram::Histogram as Buckets;
use ringmaster_common::duration::micros;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long commands took from the proposal to the application of their entry.
#[derive(Debug)]
pub struct Latencies {
    recent: WindowedHistogram,
    window: Mutex<Option<Window>>,
    seconds: Buckets,
    proposals: AtomicU64,
}

/// When the histogram was turned last, and what the turn before covers.
#[derive(Debug)]
struct Window {
    since: Instant,
    previous: Duration,
}

/// A summary of [`Latencies`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencySummary {
    pub per_second: f64,
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
}

/// How long one set of buckets fills. A summary covers one to two of these.
const WINDOW: Duration = Duration::from_secs(2);
/// The shortest time that a rate is computed over.
const MIN_COVERED: Duration = Duration::from_millis(500);
/// Upper bounds of the buckets, in seconds.
const BUCKETS: [f64; 13] =
    [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.5, 1.0, 3.0];

impl Default for Latencies {
    fn default() -> Self {
        Latencies {
            recent: WindowedHistogram::default(),
            window: Mutex::default(),
            seconds: Buckets::new(BUCKETS),
            proposals: AtomicU64::new(0),
        }
    }
}

impl Latencies {
    /// Counts a proposal, however it ends.
    pub fn proposed(&self) {
        self.proposals.fetch_add(1, Ordering::Relaxed);
    }

    pub fn proposals(&self) -> u64 {
        self.proposals.load(Ordering::Relaxed)
    }

    /// All latencies since the process started, in seconds.
    pub fn seconds(&self) -> &Buckets {
        &self.seconds
    }

    pub fn record(&self, latency: Duration) {
        self.seconds.observe(latency.as_secs_f64());
        self.turn(clock::now(), true);
        self.recent.record(micros(latency));
    }

    pub fn summary(&self, now: Instant) -> LatencySummary {
        let Some(covered) = self.turn(now, false) else { return LatencySummary::default() };
        let counts = self.recent.recent();
        let quantile = |quantile| counts.quantile(quantile).map(Duration::from_micros);
        LatencySummary {
            per_second: counts.count() as f64 / covered.max(MIN_COVERED).as_secs_f64(),
            p50: quantile(0.5),
            p99: quantile(0.99),
        }
    }

    /// Turns the histogram where that is due, and says how long it covers; none before the first record.
    fn turn(&self, now: Instant, begin: bool) -> Option<Duration> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if begin && window.is_none() {
            *window = Some(Window { since: now, previous: Duration::ZERO });
        }
        let window = window.as_mut()?;
        let age = now.saturating_duration_since(window.since);
        if age >= WINDOW {
            self.recent.turn();
            if age >= 2 * WINDOW {
                self.recent.turn();
            }
            *window = Window { since: now, previous: WINDOW };
        }
        Some(window.previous + now.saturating_duration_since(window.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_covers_the_last_seconds_and_forgets() {
        let latencies = Latencies::default();
        assert_eq!(latencies.summary(clock::now()), LatencySummary::default());
        for _ in 0..99 {
            latencies.record(Duration::from_millis(1));
        }
        latencies.record(Duration::from_millis(100));
        let summary = latencies.summary(clock::now());
        let p50 = summary.p50.expect("there are latencies");
        assert!(p50.abs_diff(Duration::from_millis(1)) < Duration::from_micros(125), "{p50:?}");
        assert!(summary.per_second > 1.0, "{summary:?}");
        let later = clock::now() + 3 * WINDOW;
        assert_eq!(latencies.summary(later).p50, None);
    }
}
