//! Each policy against its definition.

use super::*;
use crate::{hash::hash, random::Random, upstream::tests::upstream};
use std::time::Duration;

const NOW: CoarseInstant = CoarseInstant(1_000_000_000);

fn with(policy: Policy, endpoints: &[(&str, u32)]) -> Upstream {
    let mut from = upstream("u", endpoints);
    from.config.policy = policy;
    Upstream::compile(&from, None, 1)
}

fn picks(upstream: &Upstream, count: usize, key: impl Fn(usize) -> u64) -> Vec<usize> {
    let mut random = Random::seeded();
    let mut choose = |n| {
        let hints = SelectionHints { key: key(n), ..SelectionHints::default() };
        upstream.choose(&hints, 0, NOW, random.next()).unwrap().choice.slot
    };
    (0..count).map(&mut choose).collect()
}

fn shares(picks: &[usize], slots: usize) -> Vec<usize> {
    (0..slots).map(|slot| picks.iter().filter(|pick| **pick == slot).count()).collect()
}

#[test]
fn round_robin_goes_in_turns_and_the_share_of_an_ineligible_endpoint_is_spread() {
    let upstream = with(Policy::RoundRobin, &[("a", 1), ("b", 9), ("c", 1), ("d", 1)]);
    assert_eq!(picks(&upstream, 8, |_| 0), [0, 1, 2, 3, 0, 1, 2, 3]);
    upstream.endpoint(1).set_opinion(0, Verdict::Unhealthy, String::new());
    assert_eq!(shares(&picks(&upstream, 300, |_| 0), 4), [100, 0, 100, 100]);
}

#[test]
fn a_weighted_round_robin_is_exact_and_smooth() {
    let upstream = with(Policy::WeightedRoundRobin, &[("a", 5), ("b", 1), ("c", 1)]);
    let picks = picks(&upstream, 7, |_| 0);
    assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0], "as it is defined for 5, 1, 1");
    assert_eq!(shares(&self::picks(&upstream, 7_000, |_| 0), 3), [5_000, 1_000, 1_000]);
}

#[test]
fn least_connections_fills_up_in_proportion_to_weight() {
    let upstream = with(Policy::LeastConnections, &[("a", 1), ("b", 1), ("c", 2)]);
    for _ in 0..400 {
        let slot = picks(&upstream, 1, |_| 0)[0];
        upstream.endpoint(slot).in_flight.fetch_add(1, Relaxed);
    }
    let load: Vec<_> = upstream.slots.iter().map(|slot| slot.endpoint.in_flight.load(Relaxed)).collect();
    assert_eq!(load, [100, 100, 200]);
    // Equals take turns, also when nothing is in flight.
    let idle = with(Policy::LeastConnections, &[("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(shares(&picks(&idle, 300, |_| 0), 3), [100, 100, 100]);
}

#[test]
fn two_choices_prefer_the_quicker_and_starve_no_endpoint() {
    let upstream = with(Policy::P2cEwma, &[("a", 1), ("b", 1), ("c", 1)]);
    for slot in &upstream.slots {
        slot.endpoint.ewma.observe(Duration::from_millis(10), NOW);
    }
    let even = shares(&picks(&upstream, 6_000, |_| 0), 3);
    assert!(even.iter().all(|share| (1_700..2_300).contains(share)), "{even:?}");
    upstream.endpoint(0).ewma.observe(Duration::from_millis(100), NOW);
    let slow = shares(&picks(&upstream, 6_000, |_| 0), 3);
    assert_eq!(slow[0], 0, "each other one is better");
    // What was slow once is tried again, though no request was measured.
    let later = NOW.after(Duration::from_secs(60));
    for slot in &upstream.slots[1..] {
        slot.endpoint.ewma.observe(Duration::from_millis(10), later);
    }
    let mut random = Random::seeded();
    let again = (0..6_000).filter(|_| {
        upstream.choose(&SelectionHints::default(), 0, later, random.next()).unwrap().choice.slot == 0
    });
    assert!(again.count() > 2_000);
}

#[test]
fn two_choices_look_at_what_is_in_flight() {
    let upstream = with(Policy::P2cEwma, &[("a", 1), ("b", 1)]);
    for slot in &upstream.slots {
        slot.endpoint.ewma.observe(Duration::from_millis(10), NOW);
    }
    for _ in 0..100 {
        let slot = picks(&upstream, 1, |_| 0)[0];
        upstream.endpoint(slot).in_flight.fetch_add(1, Relaxed);
    }
    assert!(upstream.slots.iter().all(|slot| slot.endpoint.in_flight.load(Relaxed) == 50));
}

#[test]
fn a_hash_spreads_by_weight_and_moves_only_the_keys_of_an_endpoint_that_is_gone() {
    let upstream = with(Policy::ConsistentHash, &[("a", 1), ("b", 1), ("c", 2), ("d", 1)]);
    let key = |n: usize| hash(format!("key-{n}").as_bytes());
    let before = picks(&upstream, 10_000, key);
    assert_eq!(before, picks(&upstream, 10_000, key), "the same key, the same endpoint");
    for (share, weight) in shares(&before, 4).into_iter().zip([1, 1, 2, 1]) {
        assert!((1_850 * weight..2_150 * weight).contains(&share), "{share} of weight {weight}");
    }
    upstream.endpoint(3).set_opinion(0, Verdict::Unhealthy, String::new());
    let after = picks(&upstream, 10_000, key);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    assert!(moved.clone().all(|(before, _)| *before == 3));
    assert_eq!(moved.count(), shares(&before, 4)[3]);
}

#[test]
fn a_hash_keeps_every_load_within_a_quarter_above_its_share() {
    let upstream = with(Policy::ConsistentHash, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    // All requests have the same key.
    for n in 1..=1_000u32 {
        let slot = picks(&upstream, 1, |_| 42)[0];
        upstream.endpoint(slot).in_flight.fetch_add(1, Relaxed);
        let most = upstream.slots.iter().map(|slot| slot.endpoint.in_flight.load(Relaxed)).max().unwrap();
        assert!(f64::from(most) <= (LOAD_FACTOR * f64::from(n) / 4.0).ceil(), "{most} of {n}");
    }
}

#[test]
fn a_cookie_holds_as_long_as_its_endpoint_takes_requests() {
    let upstream = with(Policy::RoundRobin, &[("a", 1), ("b", 1), ("c", 1)]);
    let hints = SelectionHints { sticky: Some(upstream.endpoint(2).token), ..SelectionHints::default() };
    assert!(
        (0..10).all(|_| upstream.choose(&hints, 0, NOW, 0).unwrap().choice
            == Choice { slot: 2, reason: Reason::Sticky })
    );
    upstream.endpoint(2).set_opinion(0, Verdict::Unhealthy, String::new());
    assert!((0..10).all(|_| upstream.choose(&hints, 0, NOW, 0).unwrap().choice.slot != 2));
}

#[test]
fn a_full_endpoint_is_passed_over() {
    let mut from = upstream("u", &[("a", 1), ("b", 1)]);
    from.config.max_in_flight = 2;
    let upstream = Upstream::compile(&from, None, 1);
    upstream.endpoint(0).in_flight.store(2, Relaxed);
    assert!(picks(&upstream, 10, |_| 0).iter().all(|slot| *slot == 1));
    upstream.endpoint(1).in_flight.store(2, Relaxed);
    let error = upstream.choose(&SelectionHints::default(), 0, NOW, 0).unwrap_err();
    assert_eq!(error.0, "upstream u has 2 endpoints: 2 at the limit of requests");
}

#[test]
fn a_new_endpoint_gets_a_growing_share_of_any_policy() {
    for policy in [Policy::RoundRobin, Policy::WeightedRoundRobin] {
        let mut from = upstream("u", &[("a", 1), ("b", 1)]);
        (from.config.policy, from.config.slow_start_ms) = (policy, 1_000);
        let upstream = Upstream::compile(&from, None, 1);
        upstream.endpoint(1).ready_since.store(NOW.0 - 500_000, Relaxed);
        let shares = shares(&picks(&upstream, 300, |_| 0), 2);
        assert_eq!(shares, [200, 100], "{policy:?}");
    }
}

#[test]
fn each_worker_has_its_own_weighted_sequence() {
    let mut from = upstream("u", &[("a", 2), ("b", 1)]);
    from.config.policy = Policy::WeightedRoundRobin;
    let upstream = Upstream::compile(&from, None, 2);
    let choose = |worker| upstream.choose(&SelectionHints::default(), worker, NOW, 0).unwrap().choice.slot;
    let interleaved: Vec<_> = (0..6).map(|turn| choose(turn % 2)).collect();
    assert_eq!(interleaved, [0, 0, 1, 1, 0, 0]);
}

#[test]
fn a_decision_shows_the_loads_before_its_own_request() {
    let upstream = with(Policy::LeastConnections, &[("a", 1), ("b", 1), ("c", 1)]);
    let interval = crate::decisions::INTERVAL;
    let mut open = Vec::new();
    for n in 0..30u32 {
        let attempt =
            upstream.choose(&SelectionHints::default(), 0, NOW.after(interval * n), 0).expect("an endpoint");
        let considered = attempt.considered.as_ref().expect("one each interval is in the sample");
        let load = |slot: usize| {
            let words = considered[slot].weighed.strip_suffix(" in flight").expect("a load");
            words.parse::<u32>().expect("a number")
        };
        let least = (0..3).map(load).min();
        assert_eq!(Some(load(attempt.choice.slot)), least, "{considered:?}, chosen: {:?}", attempt.choice);
        open.push(attempt);
    }
    let next =
        upstream.choose(&SelectionHints::default(), 0, NOW.after(interval * 29), 0).expect("an endpoint");
    assert!(next.considered.is_none(), "a second one within the interval is not");
}
