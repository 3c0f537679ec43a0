use super::*;
use crate::{Settings, upstream::tests::upstream};
use ringmaster_common::{
    id::NodeId,
    traffic::upstream::{ActiveStandby, EndpointState, Primary, Upstream as Configuration},
};
use ringmaster_net::supervisor::Supervisor;
use std::{collections::BTreeSet, time::Duration};

fn proxy(upstreams: &[&Configuration]) -> Proxy {
    let settings =
        Settings { node: NodeId(1), listen: None, data_dir: None, workers: Some(1), connections: 100 };
    let proxy = Proxy::start(settings, &Supervisor::new()).unwrap();
    proxy.set_table(upstreams.iter().copied(), [].into_iter());
    proxy
}

/// The ids of the endpoints of an upstream, in the order of DNS.
fn found(proxy: &Proxy, name: &str) -> Vec<String> {
    let Some(Discovered::Upstream(places)) = proxy.discover(name) else { panic!("{name} is an upstream") };
    places.into_iter().map(|place| place.endpoint).collect()
}

#[tokio::test]
async fn eligible_endpoints_are_found() {
    let mut web = upstream("web.v2", &[("a", 1), ("b.1", 2), ("c", 1)]);
    web.config.endpoints[0].state = EndpointState::Drain;
    web.config.endpoints[1].addr = "[::1]:80".to_owned();
    web.config.endpoints[2].addr = "host:81".to_owned();
    let proxy = proxy(&[&web]);
    let b = Place { endpoint: "b.1".to_owned(), host: Host::Ip("::1".parse().unwrap()), port: 80, weight: 2 };
    let c = Place { endpoint: "c".to_owned(), host: Host::Name("host".to_owned()), port: 81, weight: 1 };
    let Some(Discovered::Upstream(mut places)) = proxy.discover("WEB.v2") else { panic!("an upstream") };
    places.sort_by_key(|place| place.port);
    assert_eq!(places, [b.clone(), c]);
    assert_eq!(proxy.discover("B.1.web.v2"), Some(Discovered::Endpoint(Some(b))));
    assert_eq!(
        proxy.discover("a.web.v2"),
        Some(Discovered::Endpoint(None)),
        "it exists, and is not eligible"
    );
    for parent in ["v2", "1.web.v2"] {
        assert_eq!(proxy.discover(parent), Some(Discovered::Parent), "{parent}");
    }
    for unknown in ["d.web.v2", "web", "", "a.", ".web.v2", "a", "2", ".", "..", "b.web.v2"] {
        assert_eq!(proxy.discover(unknown), None, "{unknown}");
    }
}

/// Upstreams in each state that matters: DNS has what the proxy chooses, no more and no less.
#[tokio::test]
async fn discovery_has_the_endpoints_that_the_proxy_chooses() {
    let now = CoarseInstant::now();
    let later = |s: u64| now.after(Duration::from_secs(s)).0;
    /// The state of an endpoint, the end of its ejection, and the requests in flight.
    type Given = (EndpointState, u64, u32);
    let cases: &[(&[Given], &[&str])] = {
        use EndpointState::{Drain, Maintenance, Ready};
        &[
            (&[(Ready, 0, 0), (Ready, 0, 0), (Drain, 0, 0)], &["e0", "e1"]),
            (&[(Ready, 60, 0), (Ready, 0, 0), (Ready, 90, 0)], &["e1"]),
            (&[(Ready, 60, 0), (Drain, 0, 0)], &["e0"]),
            (&[(Ready, 60, 0), (Ready, 30, 0), (Maintenance, 0, 0)], &["e1"]),
            (&[(Drain, 60, 0), (Maintenance, 0, 0)], &[]),
            (&[(Ready, 0, 0), (Ready, 60, 2000)], &["e0"]),
        ]
    };
    for (endpoints, expected) in cases {
        let ids = ["e0", "e1", "e2"].map(|id| (id, 1));
        let mut web = upstream("web", &ids[..endpoints.len()]);
        for (endpoint, (state, ..)) in web.config.endpoints.iter_mut().zip(*endpoints) {
            endpoint.state = *state;
        }
        let proxy = proxy(&[&web]);
        let table = proxy.table();
        let compiled = table.upstream("web").unwrap();
        for (slot, (_, ejected_for, in_flight)) in compiled.slots.iter().zip(*endpoints) {
            let until = if *ejected_for == 0 { 0 } else { later(*ejected_for) };
            slot.endpoint.ejected_until.store(until, Relaxed);
            slot.endpoint.in_flight.store(*in_flight, Relaxed);
        }
        let chosen: BTreeSet<_> = (0..20)
            .filter_map(|turn| {
                let attempt = compiled.choose(&Default::default(), 0, now, turn).ok()?;
                Some(compiled.endpoint(attempt.choice.slot).id.clone())
            })
            .collect();
        let discovered: BTreeSet<_> = found(&proxy, "web").into_iter().collect();
        let expected: BTreeSet<_> = expected.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!((&chosen, &discovered), (&expected, &expected), "{endpoints:?}");
        for id in ["e0", "e1"] {
            let is_there =
                matches!(proxy.discover(&format!("{id}.web")), Some(Discovered::Endpoint(Some(_))));
            assert_eq!(is_there, expected.contains(id), "{id} of {endpoints:?}");
        }
    }
}

#[tokio::test]
async fn a_standby_is_not_found_and_a_full_endpoint_is() {
    let mut db = upstream("db", &[("a", 1), ("b", 1)]);
    db.config.active_standby = Some(ActiveStandby::default());
    db.primary = Some(Primary {
        endpoint: Some("b".to_owned()),
        epoch: 1,
        since: ringmaster_common::Timestamp::UNIX_EPOCH,
        fails_over_at: None,
    });
    let proxy = proxy(&[&db]);
    proxy.table().upstream("db").unwrap().endpoint(1).in_flight.store(5_000, Relaxed);
    assert_eq!(found(&proxy, "db"), ["b"]);
}

#[tokio::test]
async fn each_endpoint_comes_first_at_times() {
    let proxy = proxy(&[&upstream("web", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)])]);
    let mut first = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..400 {
        let order = found(&proxy, "web");
        assert_eq!(order.len(), 4);
        *first.entry(order[0].clone()).or_default() += 1;
    }
    // 100 each by chance; fewer than 50 happens once in 10^8 runs.
    assert!(first.len() == 4 && first.values().all(|count| *count > 50), "{first:?}");
}

#[tokio::test]
async fn names_that_dns_cannot_have_are_reported() {
    let long = "u".repeat(64);
    let of_srv = "s".repeat(63);
    let mut hosts = upstream("hosts", &[("a", 1), ("b", 1), (&long, 1)]);
    hosts.config.endpoints[0].addr = "no..host:80".to_owned();
    hosts.config.endpoints[1].addr = "app.example.org.:80".to_owned();
    let proxy = proxy(&[
        &upstream("web", &[("e1", 1)]),
        &upstream("WEB", &[]),
        &upstream("a..b", &[("e1", 1)]),
        &upstream("a.", &[]),
        &upstream(&long, &[]),
        &upstream(&of_srv, &[]),
        &hosts,
    ]);
    let reported = proxy.unresolvable_names();
    let said = |upstream: &str, endpoint: Option<&str>| {
        let of = |one: &&ringmaster_common::traffic::warnings::UnresolvableName| {
            one.upstream == upstream && one.endpoint.as_deref() == endpoint
        };
        reported
            .iter()
            .find(of)
            .unwrap_or_else(|| panic!("{upstream} {endpoint:?}: {reported:?}"))
            .reason
            .clone()
    };
    for (upstream, endpoint, words) in [
        ("a..b", None, "cannot be empty"),
        ("a.", None, "cannot be empty"),
        (long.as_str(), None, "up to 63 bytes, not 64"),
        (of_srv.as_str(), None, "up to 62 bytes, not 63 after the underscore, so it has no SRV records"),
        ("hosts", Some("a"), "no..host is no DNS name"),
        ("hosts", Some(long.as_str()), "up to 63 bytes, not 64, so it has no SRV record"),
        ("web", None, "another upstream has the same DNS name"),
    ] {
        assert!(said(upstream, endpoint).contains(words), "{upstream}: {}", said(upstream, endpoint));
    }
    assert!(!reported.iter().any(|one| one.endpoint.as_deref() == Some("b")), "a dot at the end is fine");
}

#[tokio::test]
async fn two_endpoints_of_one_name_are_reported_and_the_number_is_bounded() {
    let mut ids: Vec<_> = (0..100).map(|n| (format!("bad..{n}"), 1)).collect();
    ids.insert(0, ("e1".to_owned(), 1));
    ids.insert(1, ("E1".to_owned(), 1));
    ids.insert(2, ("x".to_owned(), 1));
    let ids: Vec<_> = ids.iter().map(|(id, weight)| (id.as_str(), *weight)).collect();
    let proxy = proxy(&[&upstream("web", &ids), &upstream("x.web", &[])]);
    let reported = proxy.unresolvable_names();
    assert_eq!(reported.len(), ringmaster_common::traffic::warnings::MAX_UNRESOLVABLE_NAMES);
    assert_eq!(reported[0].endpoint.as_deref(), Some("E1"));
    assert_eq!(reported[1].endpoint.as_deref(), Some("x"));
    assert_eq!(reported[1].reason, "upstream x.web has the same DNS name, and is resolved instead");
}

/// Anyone may ask for names that do not exist, as often as they like.
#[tokio::test]
async fn an_unknown_name_costs_no_search_of_all_endpoints() {
    let ids: Vec<_> = (0..64).map(|n| format!("endpoint-{n}")).collect();
    let ids: Vec<_> = ids.iter().map(|id| (id.as_str(), 1)).collect();
    let upstreams: Vec<_> = (0..256).map(|n| upstream(&format!("upstream-{n}"), &ids)).collect();
    let proxy = proxy(&upstreams.iter().collect::<Vec<_>>());
    let began = ringmaster_net::clock::now();
    for n in 0..10_000 {
        assert_eq!(proxy.discover(&format!("endpoint-{n}.missing-{n}")), None);
    }
    // Without optimisation, a search of 16,384 endpoints takes a millisecond or so.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
