//! How regularly a peer is heard of, and how odd its present silence is.
//!
//! This is the phi accrual failure detector: from the intervals between arrivals it estimates how
//! likely it is that the peer is merely late. Phi is the negative decimal logarithm of that, so 3
//! means one in a thousand. A link whose arrivals scatter is given more time than one that ticks like
//! a clock, without anybody having to say so.

use std::time::{Duration, Instant};

/// The weight of the newest interval in the averages.
const WEIGHT: f64 = 1.0 / 16.0;
/// The deviation is taken for at least this: a busy machine is late by as much now and then.
const MIN_DEVIATION: Duration = Duration::from_millis(50);
/// Before anything is known, arrivals are thought to come this far apart.
const FIRST_INTERVAL: Duration = Duration::from_millis(200);
/// No interval counts as more: a peer that was away for an hour is not expected hourly.
const MAX_INTERVAL: Duration = Duration::from_secs(2);
/// The greatest phi; beyond it, doubles run out.
const MAX_PHI: f64 = 99.0;

#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    last: Option<Instant>,
    mean: Option<f64>,
    variance: f64,
}

impl Arrivals {
    pub fn heard(&mut self, now: Instant) {
        if let Some(last) = self.last {
            let interval = now.saturating_duration_since(last).min(MAX_INTERVAL).as_secs_f64();
            let mean = self.mean.unwrap_or(interval);
            let off = interval - mean;
            self.mean = Some(mean + WEIGHT * off);
            self.variance = (1.0 - WEIGHT) * (self.variance + WEIGHT * off * off);
        }
        self.last = Some(now);
    }

    /// Since the peer was last heard of.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        self.last.map(|last| now.saturating_duration_since(last))
    }

    /// How odd the present silence is.
    pub fn phi(&self, now: Instant) -> f64 {
        let Some(silence) = self.silence(now) else { return 0.0 };
        let mean = self.mean.unwrap_or(FIRST_INTERVAL.as_secs_f64());
        let deviation = self.variance.sqrt().max(MIN_DEVIATION.as_secs_f64());
        // The logistic approximation of the normal distribution's tail.
        let y = (silence.as_secs_f64() - mean) / deviation;
        let odds = (-y * (1.5976 + 0.070566 * y * y)).exp();
        let later = if y > 0.0 { odds / (1.0 + odds) } else { 1.0 - 1.0 / (1.0 + odds) };
        if later > 0.0 { (-later.log10()).clamp(0.0, MAX_PHI) } else { MAX_PHI }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(intervals: impl IntoIterator<Item = u64>) -> (Arrivals, Instant) {
        let (mut arrivals, mut now) = (Arrivals::default(), ringmaster_net::clock::now());
        arrivals.heard(now);
        for interval in intervals {
            now += Duration::from_millis(interval);
            arrivals.heard(now);
        }
        (arrivals, now)
    }

    fn phi_after(arrivals: &Arrivals, last: Instant, silence_ms: u64) -> f64 {
        arrivals.phi(last + Duration::from_millis(silence_ms))
    }

    #[test]
    fn silence_is_odder_the_longer_it_lasts() {
        let (arrivals, last) = after([50; 100]);
        let phis: Vec<_> = (0..40).map(|step| phi_after(&arrivals, last, step * 25)).collect();
        assert!(phis.is_sorted(), "{phis:?}");
        assert!(phis[2] < 1.0, "the next one is just due: {phis:?}");
        assert!(phis[20] > 8.0, "ten were missed: {phis:?}");
    }

    #[test]
    fn a_link_that_scatters_is_given_more_time() {
        let (steady, steady_last) = after([100; 200]);
        let (scattered, scattered_last) = after([20, 30, 400, 50, 600, 25, 500, 60].repeat(25));
        assert!(phi_after(&steady, steady_last, 700) > 8.0);
        assert!(phi_after(&scattered, scattered_last, 700) < 3.0);
    }

    #[test]
    fn an_absence_is_forgotten() {
        let (arrivals, last) = after([50; 100].into_iter().chain([3_600_000]).chain([50; 100]));
        assert!(phi_after(&arrivals, last, 1_000) > 8.0);
    }

    #[test]
    fn who_was_never_heard_of_is_not_judged() {
        assert_eq!(Arrivals::default().phi(ringmaster_net::clock::now()), 0.0);
    }
}
