//! Flap damping: a thing that fails again soon after each recovery must prove itself for longer each time.
//!
//! Used for nodes and for endpoints alike. The damper counts flaps, and says for how long a thing that has failed must
//! look healthy before it may be called so. Bad news is never held back. What is remembered may be lost: then the thing
//! is trusted sooner.

use std::time::{Duration, Instant};

/// A failure within this long after a recovery is a flap.
pub const FLAP_WINDOW: Duration = Duration::from_secs(60);
/// How long a thing must look healthy after its first flap; the time doubles with each further one.
const FIRST_HOLD: Duration = Duration::from_millis(500);
/// After so many doublings the time grows no further; callers have lower limits.
const MAX_DOUBLINGS: u32 = 16;

/// The history of one thing that fails and recovers.
#[derive(Clone, Debug, Default)]
pub struct FlapDamper {
    flaps: u32,
    /// Since when it looks healthy, while it counts as failed.
    healthy_since: Option<Instant>,
    recovered_at: Option<Instant>,
}

impl FlapDamper {
    /// It was healthy, and has failed.
    pub fn failed(&mut self, now: Instant) {
        self.healthy_since = None;
        self.flaps = match self.recovered_at.take() {
            Some(at) if now.saturating_duration_since(at) < FLAP_WINDOW => self.flaps.saturating_add(1),
            _ => 0,
        };
    }

    /// It counts as failed, and looks it.
    pub fn looks_failed(&mut self) {
        self.healthy_since = None;
    }

    /// It counts as failed, and looks healthy. Whether it has for long enough.
    pub fn looks_healthy(&mut self, now: Instant, max_hold: Duration) -> bool {
        let since = *self.healthy_since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.hold(max_hold)
    }

    /// It counted as failed, and counts as healthy from now on.
    pub fn recovered(&mut self, now: Instant) {
        self.healthy_since = None;
        self.recovered_at = Some(now);
    }

    /// How often it has failed soon after a recovery, without a longer time of health in between.
    pub fn flaps(&self) -> u32 {
        self.flaps
    }

    /// How long it must look healthy before it may count as that.
    pub fn hold(&self, max_hold: Duration) -> Duration {
        match self.flaps {
            0 => Duration::ZERO,
            flaps => FIRST_HOLD.saturating_mul(1 << (flaps - 1).min(MAX_DOUBLINGS)).min(max_hold),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MAX_HOLD: Duration = Duration::from_secs(30);

    /// Fails, and waits until it counts as healthy again: how long that took, looking every 100 ms.
    fn recovery_ms(damper: &mut FlapDamper, now: &mut Instant) -> u128 {
        damper.failed(*now);
        let since = *now;
        while !damper.looks_healthy(*now, MAX_HOLD) {
            *now += Duration::from_millis(100);
        }
        damper.recovered(*now);
        now.saturating_duration_since(since).as_millis()
    }

    #[test]
    fn each_flap_doubles_the_time_up_to_a_limit() {
        let (mut damper, mut now) = (FlapDamper::default(), clock::now());
        let waits: Vec<_> = (0..10).map(|_| recovery_ms(&mut damper, &mut now)).collect();
        assert_eq!(waits, [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(damper.flaps(), 9);
        now += FLAP_WINDOW;
        assert_eq!(recovery_ms(&mut damper, &mut now), 0, "a long time of health clears the record");
    }

    #[test]
    fn a_relapse_while_it_proves_itself_starts_the_time_anew() {
        let (mut damper, mut now) = (FlapDamper::default(), clock::now());
        recovery_ms(&mut damper, &mut now);
        damper.failed(now);
        let at = |ms| now + Duration::from_millis(ms);
        assert!(!damper.looks_healthy(at(0), MAX_HOLD));
        damper.looks_failed();
        assert!(!damper.looks_healthy(at(400), MAX_HOLD));
        assert!(!damper.looks_healthy(at(899), MAX_HOLD));
        assert!(damper.looks_healthy(at(900), MAX_HOLD));
        assert_eq!(damper.flaps(), 1, "a relapse is no flap");
    }
}
