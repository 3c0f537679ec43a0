use super::*;
use ringmaster_common::{
    Timestamp,
    id::Revision,
    traffic::{
        route::{Route, RouteSpec},
        upstream::{Endpoint as Configured, Primary, UpstreamSpec},
    },
};

/// An upstream whose endpoints have these ids and weights, at addresses where no server listens.
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

const NOW: CoarseInstant = CoarseInstant(1_000_000_000);

#[test]
fn reasons_are_counted_when_no_endpoint_is_eligible() {
    let mut from = upstream("u", &[("a", 1), ("b", 1), ("c", 1)]);
    from.config.endpoints[0].state = EndpointState::Drain;
    from.config.endpoints[1].health.verdict = Verdict::Unhealthy;
    let upstream = compiled(&from);
    upstream.endpoint(2).set_opinion(0, Verdict::Unhealthy, "connection refused".to_owned());
    let error = upstream.choose(&Default::default(), 0, NOW, 0).unwrap_err();
    assert_eq!(error.0, "upstream u has 3 endpoints: 1 drained, 2 unhealthy");
}

#[test]
fn only_the_primary_is_chosen_and_the_epoch_is_known() {
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
    assert!((0..10).all(|_| upstream.choose(&Default::default(), 0, NOW, 0).unwrap().choice.slot == 1));
    from.primary = Some(primary(None));
    let error = compiled(&from).choose(&Default::default(), 0, NOW, 0).unwrap_err();
    assert_eq!(error.0, "upstream u has 2 endpoints: 2 on standby, and none is primary");
}

#[test]
fn what_is_known_of_endpoints_outlives_a_table() {
    let mut from = upstream("u", &[("a", 1), ("b", 1)]);
    let before = compiled(&from);
    before.endpoint(0).in_flight.store(3, Relaxed);
    from.config.endpoints[1].addr = "127.0.0.1:99".to_owned();
    let after = Upstream::compile(&from, Some(&before), 1);
    assert!(Arc::ptr_eq(&before.slots[0].endpoint, &after.slots[0].endpoint));
    assert!(!Arc::ptr_eq(&before.slots[1].endpoint, &after.slots[1].endpoint), "it is another one");
    assert!(Arc::ptr_eq(&before.stats, &after.stats));
}

#[test]
fn a_new_endpoint_warms_up() {
    let mut from = upstream("u", &[("a", 10)]);
    from.config.slow_start_ms = 1_000;
    let upstream = compiled(&from);
    assert_eq!(upstream.effective_weight(0, NOW), 1_000, "the endpoints of the first table are warm");
    upstream.endpoint(0).ready_since.store(NOW.0, Relaxed);
    assert_eq!(upstream.effective_weight(0, NOW), 100);
    assert_eq!(upstream.effective_weight(0, NOW.after(Duration::from_millis(500))), 500);
    assert_eq!(upstream.effective_weight(0, NOW.after(Duration::from_secs(5))), 1_000);
}
