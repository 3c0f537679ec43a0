//! Outlier ejection: an endpoint that keeps failing is left out for a while, longer each time.
//!
//! What counts is what clients' requests met: no connection, no response, a truncated response, or a status of 502, 503
//! or 504. What always holds: no more than the configured share of an upstream is ejected, and never the last eligible
//! endpoint. A verdict of health checks is another thing, see [`crate::health`].

use crate::{coarse_clock::CoarseInstant, selection::SlotSet, upstream::Upstream};
use ringmaster_common::traffic::upstream::OutlierEjection;
use std::{
    sync::{PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

impl Upstream {
    /// Ejects an endpoint that has too many consecutive failures.
    pub fn eject_failing(&self, slot: usize, failures: u32, now: CoarseInstant) {
        let enough = self.config.outlier_ejection.consecutive_failures;
        if enough > 0 && failures >= enough {
            self.eject(slot, now);
        }
    }

    fn eject(&self, slot: usize, now: CoarseInstant) {
        let config = &self.config.outlier_ejection;
        let endpoint = self.endpoint(slot);
        let _one_at_a_time = self.stats.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let ejected = self.slots.iter().filter(|slot| slot.endpoint.ejected_for(now).is_some()).count();
        let allowed = (self.slots.len() * config.max_ejected_percent as usize / 100).max(1);
        let others = (0..self.slots.len())
            .any(|other| other != slot && self.why_ineligible(other, &SlotSet::default(), now).is_none());
        if config.max_ejected_percent == 0
            || endpoint.ejected_for(now).is_some()
            || ejected >= allowed
            || !others
        {
            return;
        }
        let times = endpoint.ejections.fetch_add(1, Relaxed);
        let duration = Duration::from_millis(ejection_ms(config, times));
        let until = now.after(duration);
        endpoint.consecutive_failures.store(0, Relaxed);
        endpoint.ejected_until.store(until.0, Relaxed);
        endpoint.ready_since.store(until.0, Relaxed);
        tracing::info!(
            upstream = self.name,
            endpoint = endpoint.id,
            for_ms = duration.as_millis() as u64,
            "ejected an endpoint that keeps failing"
        );
    }

    /// To be called now and then: one ejection is forgotten after each period without failures, which is twice as long
    /// as the last ejection.
    pub fn forget_ejections(&self, now: CoarseInstant) {
        for endpoint in self.slots.iter().map(|slot| &slot.endpoint) {
            let (times, until) = (endpoint.ejections.load(Relaxed), endpoint.ejected_until.load(Relaxed));
            let good_for = now.since(CoarseInstant(until));
            let last = ejection_ms(&self.config.outlier_ejection, times.saturating_sub(1));
            if times > 0 && now.0 > until && good_for > Duration::from_millis(2 * last) {
                endpoint.ejections.store(times - 1, Relaxed);
                endpoint.ejected_until.store(now.0, Relaxed);
            }
        }
    }
}

/// How long the ejection after so many others takes.
fn ejection_ms(config: &OutlierEjection, times: u32) -> u64 {
    config.base_ms.saturating_mul(1 << times.min(30)).min(config.max_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outcome::{AttemptOutcome, ErrorKind, ResponseEnd},
        selection::Ineligible,
        upstream::tests::upstream,
    };
    use ringmaster_common::traffic::upstream::{EndpointState, Upstream as Configuration};

    const NOW: CoarseInstant = CoarseInstant(1_000_000_000);

    fn compiled(from: &Configuration) -> Upstream {
        Upstream::compile(from, None, 1)
    }

    fn fail(upstream: &Upstream, slot: usize, times: u32, now: CoarseInstant) {
        for _ in 0..times {
            let outcome = AttemptOutcome::Error(ErrorKind::ConnectFailed);
            let failures = upstream.endpoint(slot).end_attempt(outcome, Duration::ZERO, 0, None);
            upstream.eject_failing(slot, failures.unwrap(), now);
        }
    }

    #[test]
    fn an_endpoint_that_keeps_failing_is_ejected_for_longer_each_time() {
        let mut from = upstream("u", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
        from.config.outlier_ejection = OutlierEjection {
            consecutive_failures: 3,
            base_ms: 1_000,
            max_ms: 3_000,
            max_ejected_percent: 50,
        };
        let upstream = compiled(&from);
        fail(&upstream, 0, 2, NOW);
        let success = AttemptOutcome::Response(200, ResponseEnd::Complete);
        assert_eq!(upstream.endpoint(0).end_attempt(success, Duration::ZERO, 0, None), None);
        fail(&upstream, 0, 2, NOW);
        assert_eq!(upstream.endpoint(0).ejected_for(NOW), None, "only consecutive failures count");
        let mut now = NOW;
        for expected in [1_000, 2_000, 3_000, 3_000] {
            fail(&upstream, 0, 3, now);
            assert_eq!(upstream.endpoint(0).ejected_for(now), Some(Duration::from_millis(expected)));
            assert_eq!(upstream.why_ineligible(0, &SlotSet::default(), now), Some(Ineligible::Ejected));
            now = now.after(Duration::from_millis(expected));
            assert_eq!(upstream.why_ineligible(0, &SlotSet::default(), now), None, "it comes back");
        }
        // Half of them at the most.
        (0..4).for_each(|slot| fail(&upstream, slot, 3, now));
        let ejected = upstream.slots.iter().filter(|slot| slot.endpoint.ejected_for(now).is_some()).count();
        assert_eq!(ejected, 2);
    }

    #[test]
    fn the_last_endpoint_is_never_ejected_and_an_ejected_one_is_better_than_none() {
        let mut from = upstream("u", &[("a", 1), ("b", 1)]);
        from.config.endpoints[1].state = EndpointState::Drain;
        let upstream = compiled(&from);
        fail(&upstream, 0, 50, NOW);
        assert_eq!(upstream.endpoint(0).ejected_for(NOW), None);
        upstream.endpoint(0).ejected_until.store(NOW.0 + 1_000, Relaxed);
        assert_eq!(upstream.choose(&Default::default(), 0, NOW, 0).unwrap().choice.slot, 0);
    }

    #[test]
    fn ejections_are_forgotten_after_a_time_without_failures() {
        let mut from = upstream("u", &[("a", 1), ("b", 1)]);
        from.config.outlier_ejection.base_ms = 1_000;
        let upstream = compiled(&from);
        fail(&upstream, 0, 5, NOW);
        assert_eq!(upstream.endpoint(0).ejections.load(Relaxed), 1);
        upstream.forget_ejections(NOW.after(Duration::from_secs(2)));
        assert_eq!(upstream.endpoint(0).ejections.load(Relaxed), 1);
        upstream.forget_ejections(NOW.after(Duration::from_secs(4)));
        assert_eq!(upstream.endpoint(0).ejections.load(Relaxed), 0);
    }
}
