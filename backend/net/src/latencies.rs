//! How long commands take, as a leader sees it, over the last few seconds.

use crate::clock;
use hdrhistogram::Histogram;
use prometheus_client::metrics::histogram::Histogram as Buckets;
use ringmaster_common::duration::micros;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long commands took from proposing to applied: over the last few seconds, and ever.
#[derive(Debug)]
pub struct Latencies {
    window: Mutex<Option<Window>>,
    seconds: Buckets,
    proposals: AtomicU64,
}

/// Two histograms: the one that fills, and the one before it.
#[derive(Debug)]
struct Window {
    filling: Histogram<u64>,
    full: Histogram<u64>,
    since: Instant,
    full_for: Duration,
}

/// A summary of [`Latencies`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencySummary {
    pub per_second: f64,
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
}

/// How long a histogram fills. A summary covers one to two of these.
const WINDOW: Duration = Duration::from_secs(2);
/// The longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(60);
/// Upper bounds of the buckets, in seconds.
const BUCKETS: [f64; 13] =
    [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.5, 1.0, 3.0];

impl Default for Latencies {
    fn default() -> Self {
        Latencies { window: Mutex::default(), seconds: Buckets::new(BUCKETS), proposals: AtomicU64::new(0) }
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
        let now = clock::now();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let window = window.get_or_insert_with(|| Window::new(now));
        window.turn(now);
        window.filling.saturating_record(micros(latency));
    }

    pub fn summary(&self, now: Instant) -> LatencySummary {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(window) = window.as_mut() else { return LatencySummary::default() };
        window.turn(now);
        let mut all = window.full.clone();
        all.add(&window.filling).expect("both have the same bounds");
        let covered = window.full_for + now.saturating_duration_since(window.since);
        let at = |quantile| (!all.is_empty()).then(|| Duration::from_micros(all.value_at_quantile(quantile)));
        LatencySummary {
            per_second: all.len() as f64 / covered.as_secs_f64().max(0.5),
            p50: at(0.5),
            p99: at(0.99),
        }
    }
}

impl Window {
    fn new(now: Instant) -> Self {
        let empty = Histogram::new_with_bounds(1, micros(LONGEST), 2).expect("the bounds are in order");
        Window { filling: empty.clone(), full: empty, since: now, full_for: Duration::ZERO }
    }

    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= WINDOW {
            std::mem::swap(&mut self.filling, &mut self.full);
            self.filling.reset();
            if age >= 2 * WINDOW {
                self.full.reset();
            }
            self.full_for = WINDOW;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_cover_the_last_seconds_and_forget() {
        let latencies = Latencies::default();
        assert_eq!(latencies.summary(clock::now()), LatencySummary::default());
        for _ in 0..99 {
            latencies.record(Duration::from_millis(1));
        }
        latencies.record(Duration::from_millis(100));
        let summary = latencies.summary(clock::now());
        assert_eq!(summary.p50.map(|p50| p50.as_millis()), Some(1));
        assert!(summary.per_second > 1.0, "{summary:?}");
        let later = clock::now() + 3 * WINDOW;
        assert_eq!(latencies.summary(later).p50, None);
    }
}
