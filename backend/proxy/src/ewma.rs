//! The moving average of an endpoint's latency that the policy `p2c_ewma` compares.

use crate::coarse_clock::CoarseInstant;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// How far back latencies count.
const WINDOW: Duration = Duration::from_secs(10);

/// A peak-sensitive average: it rises to a high latency at once and falls slowly. It decays while no request is
/// measured, so that an endpoint that was slow once is tried again.
#[derive(Debug, Default)]
pub struct PeakEwma {
    micros: AtomicU64,
    at: AtomicU64,
}

impl PeakEwma {
    pub fn observe(&self, took: Duration, now: CoarseInstant) {
        let took = took.as_micros() as f64;
        let (known, decay) = self.read(now);
        let next = if took >= known { took } else { known * decay + took * (1.0 - decay) };
        self.micros.store(next.to_bits(), Relaxed);
        self.at.store(now.0, Relaxed);
    }

    /// In microseconds; 0 if no latency was measured.
    pub fn value(&self, now: CoarseInstant) -> f64 {
        let (known, decay) = self.read(now);
        known * decay
    }

    fn read(&self, now: CoarseInstant) -> (f64, f64) {
        let age = now.since(CoarseInstant(self.at.load(Relaxed)));
        let decay = (-age.as_secs_f64() / WINDOW.as_secs_f64()).exp();
        (f64::from_bits(self.micros.load(Relaxed)), decay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_high_latency_counts_at_once_and_decays() {
        let (ewma, start) = (PeakEwma::default(), CoarseInstant(1_000_000));
        ewma.observe(Duration::from_millis(1), start);
        ewma.observe(Duration::from_millis(80), start);
        assert_eq!(ewma.value(start), 80_000.0);
        ewma.observe(Duration::from_millis(1), start.after(Duration::from_millis(10)));
        assert!(ewma.value(start) > 75_000.0, "one quick response is not enough");
        assert!(ewma.value(start.after(Duration::from_secs(60))) < 1_000.0, "the endpoint is tried again");
    }
}
