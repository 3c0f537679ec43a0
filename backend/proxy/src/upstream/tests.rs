use super::*;
use ringmaster_common::{
    Timestamp,
    id::Revision,
    traffic::{
        route::{Route, RouteSpec},
        upstream::{Endpoint as Configured, OutlierEjection, Primary, UpstreamSpec},
    },
};

/// An upstream whose endpoints have these ids and weights, at addresses where nobody is.
pub fn upstream(name: &str, endpoints: &[(&str, u32)]) -> Configuration {
    let endpoint = |(position, (id, weight)): (usize, &(&str, u32))| Configured {
        id: (*id).to_owned(),
        addr: format!("127.0.0.1:{}", position + 1),
        weight: *weight,
        state: EndpointState::Ready,
        state_since: Timestamp::UNIX_EPOCH,
        health: Default::default(),
        registered: None,
    };
    Configuration {
        name: name.to_owned(),
        config: UpstreamSpec::default().with_endpoints(endpoints.iter().enumerate().map(endpoint).collect()),
        primary: None,
        version: Revision(1),
        updated_at: Timestamp::UNIX_EPOCH,
        updated_by: "test".to_owned(),
    }
}

pub fn route(name: &str, path_prefix: &str, upstream: &str) -> Route {
    let spec = serde_json::json!({"path_prefix": path_prefix, "upstream": upstream});
    Route {
        name: name.to_owned(),
        spec: serde_json::from_value::<RouteSpec>(spec).unwrap(),
        version: Revision(1),
        updated_at: Timestamp::UNIX_EPOCH,
        updated_by: "test".to_owned(),
    }
}

fn compiled(from: &Configuration) -> Upstream {
    Upstream::compile(from, None, 1)
}

const NOW: Moment = Moment(1_000_000_000);

fn fail(upstream: &Upstream, seat: usize, times: u32, now: Moment) {
    (0..times).for_each(|_| upstream.note(seat, Outcome::Failed(ErrorKind::Unreached), Duration::ZERO, now));
}

#[test]
fn whoever_keeps_failing_is_left_out_for_longer_each_time() {
    let mut from = upstream("u", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    from.config.outlier_ejection =
        OutlierEjection { consecutive_failures: 3, base_ms: 1_000, max_ms: 3_000, max_ejected_percent: 50 };
    let upstream = compiled(&from);
    fail(&upstream, 0, 2, NOW);
    upstream.went_well(0, Outcome::Answered(200));
    fail(&upstream, 0, 2, NOW);
    assert_eq!(upstream.seats[0].endpoint.ejected_for(NOW), None, "only failures on end count");
    let mut now = NOW;
    for expected in [1_000, 2_000, 3_000, 3_000] {
        fail(&upstream, 0, 3, now);
        assert_eq!(upstream.seats[0].endpoint.ejected_for(now), Some(Duration::from_millis(expected)));
        assert_eq!(upstream.why_ineligible(0, &Tried::default(), now), Some(Ineligible::Ejected));
        now = now.after(Duration::from_millis(expected));
        assert_eq!(upstream.why_ineligible(0, &Tried::default(), now), None, "it comes back");
    }
    // Half of them at the most.
    (0..4).for_each(|seat| fail(&upstream, seat, 3, now));
    let ejected = upstream.seats.iter().filter(|seat| seat.endpoint.ejected_for(now).is_some()).count();
    assert_eq!(ejected, 2);
}

#[test]
fn the_last_one_is_never_ejected_and_an_ejected_one_is_better_than_none() {
    let mut from = upstream("u", &[("a", 1), ("b", 1)]);
    from.config.endpoints[1].state = EndpointState::Drain;
    let upstream = compiled(&from);
    fail(&upstream, 0, 50, NOW);
    assert_eq!(upstream.seats[0].endpoint.ejected_for(NOW), None);
    upstream.seats[0].endpoint.ejected_until.store(NOW.0 + 1_000, Relaxed);
    assert_eq!(upstream.pick(&Default::default(), NOW, 0).unwrap().seat, 0);
}

#[test]
fn good_conduct_makes_ejections_forgotten() {
    let mut from = upstream("u", &[("a", 1), ("b", 1)]);
    from.config.outlier_ejection.base_ms = 1_000;
    let upstream = compiled(&from);
    fail(&upstream, 0, 5, NOW);
    assert_eq!(upstream.seats[0].endpoint.ejections.load(Relaxed), 1);
    upstream.tick(NOW.after(Duration::from_secs(2)));
    assert_eq!(upstream.seats[0].endpoint.ejections.load(Relaxed), 1);
    upstream.tick(NOW.after(Duration::from_secs(4)));
    assert_eq!(upstream.seats[0].endpoint.ejections.load(Relaxed), 0);
}

#[test]
fn nobody_is_left_for_reasons_that_are_counted() {
    let mut from = upstream("u", &[("a", 1), ("b", 1), ("c", 1)]);
    from.config.endpoints[0].state = EndpointState::Drain;
    from.config.endpoints[1].health.verdict = Verdict::Unhealthy;
    let upstream = compiled(&from);
    upstream.seats[2].endpoint.set_opinion(0, Verdict::Unhealthy, "connection refused".to_owned());
    let nobody = upstream.pick(&Default::default(), NOW, 0).unwrap_err();
    assert_eq!(nobody.0, "upstream u has 3 endpoints: 1 drained, 2 unhealthy");
}

#[test]
fn only_the_primary_is_asked_and_endpoints_learn_the_epoch() {
    let mut from = upstream("u", &[("a", 1), ("b", 1)]);
    from.config.active_standby = Some(Default::default());
    let primary = |endpoint: Option<&str>| Primary {
        endpoint: endpoint.map(str::to_owned),
        epoch: 7,
        since: Timestamp::UNIX_EPOCH,
        fails_over_at: None,
    };
    from.primary = Some(primary(Some("b")));
    let upstream = compiled(&from);
    assert_eq!(upstream.epoch.as_deref(), Some("7"));
    assert!((0..10).all(|_| upstream.pick(&Default::default(), NOW, 0).unwrap().seat == 1));
    from.primary = Some(primary(None));
    let nobody = compiled(&from).pick(&Default::default(), NOW, 0).unwrap_err();
    assert_eq!(nobody.0, "upstream u has 2 endpoints: 2 standing by, and none is primary");
}

#[test]
fn what_is_known_of_endpoints_outlives_a_table() {
    let mut from = upstream("u", &[("a", 1), ("b", 1)]);
    let before = compiled(&from);
    before.seats[0].endpoint.in_flight.store(3, Relaxed);
    from.config.endpoints[1].addr = "127.0.0.1:99".to_owned();
    let after = Upstream::compile(&from, Some(&before), 1);
    assert!(Arc::ptr_eq(&before.seats[0].endpoint, &after.seats[0].endpoint));
    assert!(!Arc::ptr_eq(&before.seats[1].endpoint, &after.seats[1].endpoint), "it is another one");
    assert!(Arc::ptr_eq(&before.standing, &after.standing));
}

#[test]
fn retries_are_a_share_of_requests() {
    let mut from = upstream("u", &[("a", 1)]);
    from.config.retries.budget_percent = 20;
    let upstream = compiled(&from);
    let retries = |upstream: &Upstream| (0..10_000).filter(|_| upstream.may_retry()).count() as i64;
    assert_eq!(retries(&upstream), MAX_RETRY_TOKENS);
    (0..500).for_each(|_| upstream.seats[0].endpoint.count(Outcome::Answered(200)));
    upstream.tick(NOW);
    assert_eq!(retries(&upstream), 100);
    upstream.tick(NOW);
    assert_eq!(retries(&upstream), MIN_RETRIES_PER_S);
}

#[test]
fn a_newcomer_warms_up() {
    let mut from = upstream("u", &[("a", 10)]);
    from.config.slow_start_ms = 1_000;
    let upstream = compiled(&from);
    assert_eq!(upstream.weight(0, NOW), 1_000, "whoever was there from the start is warm");
    upstream.seats[0].endpoint.ready_since.store(NOW.0, Relaxed);
    assert_eq!(upstream.weight(0, NOW), 100);
    assert_eq!(upstream.weight(0, NOW.after(Duration::from_millis(500))), 500);
    assert_eq!(upstream.weight(0, NOW.after(Duration::from_secs(5))), 1_000);
}
