//! Each policy against its definition.

use super::*;
use crate::{random::Random, upstream::tests::upstream};
use ringmaster_common::traffic::health::Verdict;
use std::time::Duration;

const NOW: Moment = Moment(1_000_000_000);

fn with(policy: Policy, endpoints: &[(&str, u32)]) -> Upstream {
    let mut from = upstream("u", endpoints);
    from.config.policy = policy;
    Upstream::compile(&from, None, 1)
}

fn picks(upstream: &Upstream, count: usize, key: impl Fn(usize) -> u64) -> Vec<usize> {
    let mut random = Random::seeded();
    let mut pick =
        |n| upstream.pick(&Wish { key: key(n), ..Wish::default() }, NOW, random.next()).unwrap().seat;
    (0..count).map(&mut pick).collect()
}

fn shares(picks: &[usize], seats: usize) -> Vec<usize> {
    (0..seats).map(|seat| picks.iter().filter(|pick| **pick == seat).count()).collect()
}

#[test]
fn round_robin_goes_in_turns_and_nobody_inherits_a_share() {
    let upstream = with(Policy::RoundRobin, &[("a", 1), ("b", 9), ("c", 1), ("d", 1)]);
    assert_eq!(picks(&upstream, 8, |_| 0), [0, 1, 2, 3, 0, 1, 2, 3]);
    upstream.seats[1].endpoint.set_opinion(0, Verdict::Unhealthy, String::new());
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
        let seat = picks(&upstream, 1, |_| 0)[0];
        upstream.seats[seat].endpoint.in_flight.fetch_add(1, Relaxed);
    }
    let load: Vec<_> = upstream.seats.iter().map(|seat| seat.endpoint.in_flight.load(Relaxed)).collect();
    assert_eq!(load, [100, 100, 200]);
    // Equals take turns, also when nothing is under way.
    let idle = with(Policy::LeastConnections, &[("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(shares(&picks(&idle, 300, |_| 0), 3), [100, 100, 100]);
}

#[test]
fn two_choices_prefer_the_quicker_and_starve_nobody() {
    let upstream = with(Policy::P2cEwma, &[("a", 1), ("b", 1), ("c", 1)]);
    for seat in &upstream.seats {
        seat.endpoint.ewma.observe(Duration::from_millis(10), NOW);
    }
    let even = shares(&picks(&upstream, 6_000, |_| 0), 3);
    assert!(even.iter().all(|share| (1_700..2_300).contains(share)), "{even:?}");
    upstream.seats[0].endpoint.ewma.observe(Duration::from_millis(100), NOW);
    let slow = shares(&picks(&upstream, 6_000, |_| 0), 3);
    assert_eq!(slow[0], 0, "each other one is better");
    // What was slow once is tried again, though nothing was heard of it.
    let later = NOW.after(Duration::from_secs(60));
    for seat in &upstream.seats[1..] {
        seat.endpoint.ewma.observe(Duration::from_millis(10), later);
    }
    let mut random = Random::seeded();
    let again =
        (0..6_000).filter(|_| upstream.pick(&Wish::default(), later, random.next()).unwrap().seat == 0);
    assert!(again.count() > 2_000);
}

#[test]
fn two_choices_look_at_what_is_under_way() {
    let upstream = with(Policy::P2cEwma, &[("a", 1), ("b", 1)]);
    for seat in &upstream.seats {
        seat.endpoint.ewma.observe(Duration::from_millis(10), NOW);
    }
    for _ in 0..100 {
        let seat = picks(&upstream, 1, |_| 0)[0];
        upstream.seats[seat].endpoint.in_flight.fetch_add(1, Relaxed);
    }
    assert!(upstream.seats.iter().all(|seat| seat.endpoint.in_flight.load(Relaxed) == 50));
}

#[test]
fn a_hash_spreads_by_weight_and_moves_only_the_keys_of_who_is_gone() {
    let upstream = with(Policy::ConsistentHash, &[("a", 1), ("b", 1), ("c", 2), ("d", 1)]);
    let key = |n: usize| hash(format!("key-{n}").as_bytes());
    let before = picks(&upstream, 10_000, key);
    assert_eq!(before, picks(&upstream, 10_000, key), "the same key, the same endpoint");
    for (share, weight) in shares(&before, 4).into_iter().zip([1, 1, 2, 1]) {
        assert!((1_850 * weight..2_150 * weight).contains(&share), "{share} of weight {weight}");
    }
    upstream.seats[3].endpoint.set_opinion(0, Verdict::Unhealthy, String::new());
    let after = picks(&upstream, 10_000, key);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    assert!(moved.clone().all(|(before, _)| *before == 3));
    assert_eq!(moved.count(), shares(&before, 4)[3]);
}

#[test]
fn a_hash_keeps_every_load_within_a_quarter_above_its_share() {
    let upstream = with(Policy::ConsistentHash, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    // Everybody wants the same.
    for n in 1..=1_000u32 {
        let seat = picks(&upstream, 1, |_| 42)[0];
        upstream.seats[seat].endpoint.in_flight.fetch_add(1, Relaxed);
        let most = upstream.seats.iter().map(|seat| seat.endpoint.in_flight.load(Relaxed)).max().unwrap();
        assert!(f64::from(most) <= (LOAD_FACTOR * f64::from(n) / 4.0).ceil(), "{most} of {n}");
    }
}

#[test]
fn a_cookie_holds_as_long_as_its_endpoint_takes_requests() {
    let upstream = with(Policy::RoundRobin, &[("a", 1), ("b", 1), ("c", 1)]);
    let wish = Wish { sticky: Some(upstream.seats[2].endpoint.token), ..Wish::default() };
    assert!((0..10).all(|_| upstream.pick(&wish, NOW, 0).unwrap() == Pick { seat: 2, why: Why::Sticky }));
    upstream.seats[2].endpoint.set_opinion(0, Verdict::Unhealthy, String::new());
    assert!((0..10).all(|_| upstream.pick(&wish, NOW, 0).unwrap().seat != 2));
}

#[test]
fn a_full_endpoint_is_passed_over() {
    let mut from = upstream("u", &[("a", 1), ("b", 1)]);
    from.config.max_in_flight = 2;
    let upstream = Upstream::compile(&from, None, 1);
    upstream.seats[0].endpoint.in_flight.store(2, Relaxed);
    assert!(picks(&upstream, 10, |_| 0).iter().all(|seat| *seat == 1));
    upstream.seats[1].endpoint.in_flight.store(2, Relaxed);
    let nobody = upstream.pick(&Wish::default(), NOW, 0).unwrap_err();
    assert_eq!(nobody.0, "upstream u has 2 endpoints: 2 at its limit of requests");
}

#[test]
fn a_newcomer_gets_a_growing_share_of_any_policy() {
    for policy in [Policy::RoundRobin, Policy::WeightedRoundRobin] {
        let mut from = upstream("u", &[("a", 1), ("b", 1)]);
        (from.config.policy, from.config.slow_start_ms) = (policy, 1_000);
        let upstream = Upstream::compile(&from, None, 1);
        upstream.seats[1].endpoint.ready_since.store(NOW.0 - 500_000, Relaxed);
        let shares = shares(&picks(&upstream, 300, |_| 0), 2);
        assert_eq!(shares, [200, 100], "{policy:?}");
    }
}
