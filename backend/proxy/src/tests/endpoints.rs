//! Endpoints that move, that are new, and that leave.

use super::{http2_origin::Http2Origin, *};
use crate::address::tests::set_host;
use ringmaster_common::traffic::{
    health::HealthCheck,
    upstream::{Endpoint, EndpointState, Protocol},
};

/// A check that finds out quickly.
fn check() -> HealthCheck {
    HealthCheck::Http {
        path: "/health".to_owned(),
        host: None,
        status: None,
        interval_ms: 50,
        timeout_ms: 500,
        rise: 2,
        fall: 2,
        max_hold_ms: 0,
    }
}

fn says(fixture: &Fixture, id: &str, verdict: Verdict) -> bool {
    let opinions = fixture.proxy.opinions();
    opinions.borrow().iter().any(|opinion| opinion.endpoint == id && opinion.verdict == verdict)
}

impl Fixture {
    /// One more endpoint, of which nothing is known.
    fn add(&mut self, origin: &Origin) {
        let mut endpoint: Endpoint = upstream("u", &[(origin.name.as_str(), 1)]).config.endpoints.remove(0);
        endpoint.addr = origin.addr.to_string();
        self.upstream.config.endpoints.push(endpoint);
        self.apply();
    }
}

#[tokio::test]
async fn requests_and_checks_move_with_a_name() {
    let (old, new) = (Origin::start("old").await, Origin::start("new").await);
    set_host("moving.test:80", &[old.addr]);
    let fixture = Fixture::with(&[&old], |upstream, _| {
        upstream.config.endpoints[0].addr = "moving.test:80".to_owned();
        upstream.config.health_check = Some(check());
    })
    .await;
    // Connections that stay open, and are in use all the time.
    let mut clients = [fixture.connect().await, fixture.connect().await];
    for client in &mut clients {
        assert_eq!(client.get("/x").await.header("x-origin"), Some("old"));
    }
    set_host("moving.test:80", &[new.addr]);
    let deadline = clock::now() + PATIENCE;
    for client in &mut clients {
        while client.get("/x").await.header("x-origin") != Some("new") {
            assert!(clock::now() < deadline, "requests still go to the old address");
        }
    }
    let before = old.requests();
    for client in &mut clients {
        assert_eq!(client.get("/x").await.header("x-origin"), Some("new"));
    }
    assert_eq!(old.requests(), before, "no request goes back");
    old.seen.ill.store(true, Relaxed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(says(&fixture, "old", Verdict::Healthy), "the check judges the new address");
    new.seen.ill.store(true, Relaxed);
    until("the check finds the new address ill", || says(&fixture, "old", Verdict::Unhealthy)).await;
}

#[tokio::test]
async fn shared_connections_move_with_a_name() {
    let (old, new) = (Http2Origin::start().await, Http2Origin::start().await);
    set_host("moving-http2.test:80", &[old.addr]);
    let fixture = Fixture::with(&[], |from, _| {
        from.config.endpoints = upstream("u", &[("a", 1)]).config.endpoints;
        from.config.endpoints[0].addr = "moving-http2.test:80".to_owned();
        from.config.protocol = Protocol::Http2;
    })
    .await;
    let mut client = fixture.connect().await;
    assert_eq!(client.get("/x").await.status, 200);
    assert_eq!((old.requests(), new.requests()), (1, 0));
    set_host("moving-http2.test:80", &[new.addr]);
    let deadline = clock::now() + PATIENCE;
    while new.requests() == 0 {
        assert_eq!(client.get("/x").await.status, 200);
        assert!(clock::now() < deadline, "requests still go to the old address");
    }
    let before = old.requests();
    client.get("/x").await;
    assert_eq!(old.requests(), before);
}

#[tokio::test]
async fn a_name_serves_by_any_of_its_addresses() {
    let origin = Origin::start("a").await;
    set_host("some-refuse.test:80", &[free_addr(), free_addr(), origin.addr]);
    let fixture = Fixture::with(&[&origin], |upstream, _| {
        upstream.config.endpoints[0].addr = "some-refuse.test:80".to_owned();
        upstream.config.health_check = Some(check());
    })
    .await;
    assert_eq!(fixture.get("/x").await.status, 200);
    until("the check passes, too", || says(&fixture, "a", Verdict::Healthy)).await;
}

#[tokio::test]
async fn a_new_endpoint_receives_no_request_before_it_has_passed_a_check() {
    let (known, new) = (Origin::start("known").await, Origin::start("new").await);
    let mut fixture = Fixture::with(&[&known], |upstream, _| {
        upstream.config.endpoints[0].health.verdict = Verdict::Healthy;
        upstream.config.health_check = Some(check());
    })
    .await;
    new.seen.ill.store(true, Relaxed);
    fixture.add(&new);
    for _ in 0..20 {
        assert_eq!(fixture.get("/x").await.header("x-origin"), Some("known"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(new.requests(), 0);
    new.seen.ill.store(false, Relaxed);
    until("its check passes", || says(&fixture, "new", Verdict::Healthy)).await;
    for _ in 0..4 {
        assert_eq!(fixture.get("/x").await.status, 200);
    }
    assert_eq!(new.requests(), 2, "half of the requests, though the cluster has no verdict yet");
}

#[tokio::test]
async fn a_request_waits_for_the_first_check_of_a_new_endpoint_if_no_other_is_left() {
    let origin = Origin::start("a").await;
    let fixture = Fixture::with(&[&origin], |upstream, _| upstream.config.health_check = Some(check())).await;
    assert_eq!(fixture.get("/x").await.status, 200, "all endpoints are new");
    // Where the check fails, so does the request, and the endpoint sees neither it nor others.
    let ill = Origin::start("ill").await;
    ill.seen.ill.store(true, Relaxed);
    let fixture = Fixture::with(&[&ill], |upstream, _| upstream.config.health_check = Some(check())).await;
    let reply = fixture.get("/x").await;
    assert_eq!(reply.status, 503, "{reply:?}");
    let why = reply.body.contains("1 waiting for the first check") || reply.body.contains("1 unhealthy");
    assert!(why && ill.requests() == 0, "{reply:?}");
}

#[tokio::test]
async fn endpoints_that_served_before_do_not_wait_for_a_check() {
    let (healthy, assumed) = (Origin::start("healthy").await, Origin::start("assumed").await);
    // After a restart of the node, of which this is the first table, or with another check than before.
    let fixture = Fixture::with(&[&healthy, &assumed], |upstream, _| {
        upstream.config.endpoints[0].health.verdict = Verdict::Healthy;
        upstream.config.endpoints[1].health.assumed_healthy = true;
        upstream.config.health_check =
            Some(HealthCheck::Tcp { interval_ms: 60_000, timeout_ms: 500, rise: 2, fall: 2, max_hold_ms: 0 });
    })
    .await;
    let mut served = [fixture.get("/x").await, fixture.get("/x").await]
        .map(|reply| reply.header("x-origin").map(str::to_owned));
    served.sort();
    assert_eq!(served, [Some("assumed".to_owned()), Some("healthy".to_owned())]);
}

#[tokio::test]
async fn what_is_in_flight_at_a_removed_endpoint_is_counted_until_it_ends() {
    let (stays, leaves) = (Origin::start("stays").await, Origin::start("leaves").await);
    let mut fixture = Fixture::with(&[&leaves, &stays], |_, _| {}).await;
    let mut client = fixture.connect().await;
    let mut slow = Vec::new();
    // Two of the four go to the endpoint that leaves.
    for _ in 0..4 {
        let addr = fixture.addr;
        slow.push(tokio::spawn(async move { Client::to(addr).await.get("/held").await.status }));
    }
    until("all are in flight", || leaves.requests() + stays.requests() == 4).await;
    assert_eq!(fixture.proxy.draining(), [], "it still receives requests");
    let in_flight = leaves.requests() as u32;
    fixture.upstream.config.endpoints.remove(0);
    fixture.apply();
    let found = fixture.proxy.draining();
    let [one] = &found[..] else { panic!("{found:?}") };
    assert_eq!((one.upstream.as_str(), one.endpoint.as_str(), one.in_flight), ("u", "leaves", in_flight));
    assert_eq!(one.addr, leaves.addr.to_string());
    // Other tables do not make it forgotten.
    fixture.upstream.config.endpoints[0].state = EndpointState::Drain;
    fixture.apply();
    assert_eq!(fixture.proxy.draining().len(), 2, "a drained endpoint counts as well");
    leaves.seen.release.notify_waiters();
    stays.seen.release.notify_waiters();
    for request in slow {
        assert_eq!(request.await.unwrap(), 200);
    }
    until("nothing is in flight", || fixture.proxy.draining().is_empty()).await;
    fixture.upstream.config.endpoints[0].state = EndpointState::Ready;
    fixture.apply();
    assert_eq!(client.get("/x").await.status, 200);
}

#[tokio::test]
async fn what_is_in_flight_at_a_failed_primary_is_cut_off_soon_after_it_is_replaced() {
    let (old, new) = (Origin::start("old").await, Origin::start("new").await);
    let primary = |id: &str, epoch| {
        serde_json::from_value(serde_json::json!({
            "endpoint": id, "epoch": epoch, "since": "2026-01-01T00:00:00Z"
        }))
        .unwrap()
    };
    for (verdict, is_cut) in [(Verdict::Healthy, false), (Verdict::Unhealthy, true)] {
        let mut fixture = Fixture::with(&[&old, &new], |upstream, _| {
            upstream.config.active_standby = Some(Default::default());
            upstream.config.drain_ms = 600_000;
            upstream.primary = primary("old", 1);
        })
        .await;
        let mut client = fixture.connect().await;
        client.send("GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101"));
        fixture.upstream.config.endpoints[0].health.verdict = verdict;
        fixture.upstream.primary = primary("new", 2);
        fixture.apply();
        let ended = timeout(Duration::from_secs(3), client.is_closed()).await;
        assert_eq!(ended.is_ok(), is_cut, "{verdict:?}");
    }
}
