//! What passes through, and where it goes.

use super::*;
use ringmaster_common::traffic::{
    health::{HealthCheck, ReceivedHeartbeat},
    upstream::{EndpointState, Policy, Protocol},
};
use std::collections::{BTreeMap, BTreeSet};

#[tokio::test]
async fn requests_go_in_turns_on_connections_that_last() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fixture = Fixture::new(&[&a, &b]).await;
    let mut client = fixture.connect().await;
    for n in 0..100 {
        let reply = client.get(&format!("/x?n={n}")).await;
        assert_eq!((reply.status, reply.header("keep-alive")), (200, None), "{reply:?}");
    }
    assert_eq!((a.requests(), b.requests()), (50, 50));
    assert_eq!(a.seen.connections.load(Relaxed), 1, "one client at a time needs one connection");
    assert!(b.last_head().starts_with("GET /x?n=99 HTTP/1.1\r\nhost: test\r\n"), "{}", b.last_head());
    assert!(b.last_head().contains("x-forwarded-for: 127.0.0.1\r\n"));
    let metrics = fixture.measured(|metrics| metrics.requests_per_s > 0.0 && metrics.p50_us.is_some()).await;
    assert_eq!((metrics.in_flight, metrics.endpoints.len()), (0, 2));
    let decisions = fixture.proxy.decisions("u").unwrap();
    assert_eq!((decisions[0].request.as_str(), decisions[0].why.as_str()), ("GET /x", "round robin"));
    assert!(fixture.proxy.decisions("missing").is_none());
}

#[tokio::test]
async fn bodies_of_any_framing_pass_both_ways() {
    let origin = Origin::start("a").await;
    let fixture = Fixture::new(&[&origin]).await;
    let mut client = fixture.connect().await;
    let big = "y".repeat(300_000);
    client
        .send(format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{big}", big.len()))
        .await;
    assert_eq!(client.reply().await.body, big);
    client.send("POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    client.send("0\r\nX-Trailer: gone\r\n\r\n").await;
    assert_eq!(client.reply().await.body, "3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(client.get("/chunked").await.body, "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    assert_eq!(client.get("/big").await.body.len(), 1_000_000);
    // Two at once, on the same connection, in their order.
    client.send("GET /slow/50 HTTP/1.1\r\nHost: t\r\n\r\nPOST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!((client.reply().await.status, client.reply().await.body.as_str()), (200, "ok"));
    client.send("HEAD /big HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert!(client.head().await.unwrap().contains("content-length: 1000000"));
    drop(client);
    let mut client = fixture.connect().await;
    let reply = client.get("/until-close").await;
    assert_eq!((reply.header("connection"), reply.body.as_str()), (Some("close"), "all of it"));
    let mut old = fixture.connect().await;
    old.send("GET /chunked HTTP/1.0\r\n\r\n").await;
    let reply = old.reply().await;
    assert_eq!((reply.header("transfer-encoding"), reply.body.as_str()), (None, "hello world"));
}

#[tokio::test]
async fn the_endpoint_answers_a_client_that_expects_100_continue() {
    let origin = Origin::start("a").await;
    let fixture = Fixture::new(&[&origin]).await;
    let mut client = fixture.connect().await;
    client.send("POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("ok").await;
    assert_eq!(client.reply().await.body, "ok");
}

#[tokio::test]
async fn a_truncated_response_ends_the_connection() {
    let origin = Origin::start("a").await;
    let fixture = Fixture::new(&[&origin]).await;
    let mut client = fixture.connect().await;
    client.send("GET /half HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert!(client.head().await.unwrap().contains("content-length: 100"));
    while client.more().await {}
    assert_eq!(client.left, b"half");
}

#[tokio::test]
async fn invalid_responses_are_not_passed_on() {
    let origin = Origin::start("a").await;
    let fixture = Fixture::new(&[&origin]).await;
    for path in ["/nonsense", "/two-lengths"] {
        let reply = fixture.get(path).await;
        assert_eq!(reply.status, 502, "{reply:?}");
        assert!(reply.body.contains("\"code\":\"bad_gateway\""), "{reply:?}");
    }
    // Bytes behind a response are not taken for the next response.
    assert_eq!(fixture.get("/too-much").await.body, "ok");
    assert_eq!(fixture.get("/x").await.body, "");
}

#[tokio::test]
async fn an_upgrade_is_a_tunnel_once_the_endpoint_agrees() {
    let origin = Origin::start("a").await;
    let fixture = Fixture::new(&[&origin]).await;
    let mut client = fixture.connect().await;
    // What a client sends too early goes nowhere before the endpoint has said 101.
    client
        .send("GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
        .await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket\r\n"), "{head}");
    client.send(" and late").await;
    while client.left.len() < 14 {
        assert!(client.more().await);
    }
    assert_eq!(client.left, b"early and late");
    // Where the endpoint does not agree, it is an answer like any other.
    let mut client = fixture.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.get("/y").await.status, 200);
}

#[tokio::test]
async fn killing_an_endpoint_loses_no_request_that_can_be_sent_again() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fixture = Fixture::new(&[&a, &b]).await;
    let clients = (0..16).map(|_| {
        let addr = fixture.addr;
        tokio::spawn(async move {
            let mut client = Client::to(addr).await;
            let mut statuses = BTreeMap::<u16, usize>::new();
            for _ in 0..100 {
                *statuses.entry(client.get("/slow/2").await.status).or_default() += 1;
            }
            statuses
        })
    });
    let clients: Vec<_> = clients.collect();
    until("there is traffic", || a.requests() > 50).await;
    a.kill();
    for client in clients {
        assert_eq!(client.await.unwrap(), BTreeMap::from([(200, 100)]));
    }
    fixture.measured(|metrics| metrics.retries_per_s > 0.0).await;
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_not_sent_again() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fixture = Fixture::new(&[&a, &b]).await;
    for request in [
        "POST /hang-up HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n",
        "PUT /hang-up HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab",
    ] {
        let before = a.requests() + b.requests();
        let mut client = fixture.connect().await;
        client.send(request).await;
        assert_eq!(client.reply().await.status, 502);
        assert_eq!(a.requests() + b.requests(), before + 1, "{request}");
    }
    let before = a.requests() + b.requests();
    assert_eq!(fixture.get("/hang-up").await.status, 502);
    assert!(a.requests() + b.requests() > before + 1, "a GET is tried elsewhere");
}

#[tokio::test]
async fn a_drained_endpoint_completes_requests_in_flight_and_gets_no_new_ones() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let mut fixture = Fixture::with(&[&a, &b], |upstream, _| upstream.config.drain_ms = 1_000).await;
    let slow = [fixture.connect().await, fixture.connect().await]
        .map(|mut client| tokio::spawn(async move { client.get("/slow/400").await }));
    until("both are busy", || a.requests() == 1 && b.requests() == 1).await;
    fixture.upstream.config.endpoints[0].state = EndpointState::Drain;
    fixture.apply();
    for _ in 0..20 {
        assert_eq!(fixture.get("/x").await.header("x-origin"), Some("b"));
    }
    for reply in slow {
        assert_eq!(reply.await.unwrap().status, 200, "requests in flight complete");
    }
    // Back, busy, and drained with no time left.
    fixture.upstream.config.endpoints[0].state = EndpointState::Ready;
    fixture.apply();
    let before = a.requests();
    let late = [fixture.connect().await, fixture.connect().await]
        .map(|mut client| tokio::spawn(async move { client.get("/slow/5000").await }));
    until("it is busy again", || a.requests() > before).await;
    (fixture.upstream.config.endpoints[0].state, fixture.upstream.config.drain_ms) =
        (EndpointState::Drain, 0);
    fixture.upstream.config.drain_ms = 0;
    let start = clock::now();
    fixture.apply();
    let mut statuses = BTreeSet::new();
    for reply in late {
        statuses.insert(reply.await.unwrap().status);
    }
    assert_eq!(statuses, BTreeSet::from([200, 502]), "what is at the other endpoint is left alone");
    assert!(clock::now() - start < PATIENCE);
}

#[tokio::test]
async fn no_eligible_endpoint_is_answered_with_reasons() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fixture = Fixture::with(&[&a, &b], |upstream, _| {
        upstream.config.endpoints[0].state = EndpointState::Drain;
        upstream.config.endpoints[1].health.verdict = Verdict::Unhealthy;
    })
    .await;
    let reply = fixture.get("/x").await;
    assert_eq!((reply.status, reply.header("content-type")), (503, Some("application/problem+json")));
    assert!(reply.body.contains("\"code\":\"no_endpoint\""), "{reply:?}");
    assert!(reply.body.contains("2 endpoints: 1 drained, 1 unhealthy"), "{reply:?}");
    fixture.measured(|metrics| metrics.failures_per_s > 0.0).await;
}

#[tokio::test]
async fn a_check_finds_failures_and_recoveries() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fixture = Fixture::with(&[&a, &b], |upstream, _| {
        upstream.config.health_check = Some(HealthCheck::Http {
            path: "/health".to_owned(),
            host: None,
            status: None,
            interval_ms: 50,
            timeout_ms: 500,
            rise: 2,
            fall: 2,
            max_hold_ms: 0,
        });
    })
    .await;
    let opinions = fixture.proxy.opinions();
    let says = |id: &str, verdict: Verdict| {
        opinions.borrow().iter().any(|opinion| opinion.endpoint == id && opinion.verdict == verdict)
    };
    until("both are healthy", || says("a", Verdict::Healthy) && says("b", Verdict::Healthy)).await;
    a.seen.ill.store(true, Relaxed);
    until("one is ill", || says("a", Verdict::Unhealthy)).await;
    assert!(opinions.borrow().iter().any(|opinion| opinion.detail == "status 503"));
    for _ in 0..10 {
        assert_eq!(fixture.get("/x").await.header("x-origin"), Some("b"));
    }
    a.seen.ill.store(false, Relaxed);
    until("it has recovered", || says("a", Verdict::Healthy)).await;
    b.kill();
    until("the other one is gone", || says("b", Verdict::Unhealthy)).await;
    assert_eq!(fixture.get("/x").await.header("x-origin"), Some("a"));
}

#[tokio::test]
async fn an_endpoint_without_heartbeats_is_unhealthy() {
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |upstream, _| {
        upstream.config.health_check = Some(HealthCheck::Heartbeat { ttl_ms: 300 });
    })
    .await;
    let opinions = fixture.proxy.opinions();
    assert_eq!(fixture.get("/x").await.status, 200, "before the first heartbeat nothing is known");
    assert!(!fixture.proxy.heartbeat("u", "missing") && fixture.proxy.heartbeat("u", "a"));
    let says = |verdict| opinions.borrow().first().is_some_and(|opinion| opinion.verdict == verdict);
    until("it is alive", || says(Verdict::Healthy)).await;
    until("it is silent", || says(Verdict::Unhealthy)).await;
    assert_eq!(fixture.get("/x").await.status, 503);
    // It sends to another node now, which reports it.
    let received = fixture.proxy.received_heartbeats();
    assert!(received.is_empty(), "an old heartbeat is not reported: {received:?}");
    let mut heartbeat = ReceivedHeartbeat {
        upstream: "u".to_owned(),
        endpoint: "a".to_owned(),
        addr: "127.0.0.1:1".to_owned(),
        age_ms: 200,
    };
    fixture.proxy.merge_heartbeats(&[heartbeat.clone()], Duration::from_millis(50));
    assert!(says(Verdict::Unhealthy), "a heartbeat from another address does not count");
    heartbeat.addr = a.addr.to_string();
    fixture.proxy.merge_heartbeats(&[heartbeat.clone()], Duration::from_millis(50));
    until("it is alive, as another node reports", || says(Verdict::Healthy)).await;
    until("it is silent for longer than reports take", || says(Verdict::Unhealthy)).await;
}

#[tokio::test]
async fn a_cookie_brings_a_client_back() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fixture =
        Fixture::with(&[&a, &b], |upstream, _| upstream.config.sticky_cookie = Some("sid".to_owned())).await;
    let first = fixture.get("/x").await;
    let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    for _ in 0..10 {
        let mut client = fixture.connect().await;
        client.send(format!("GET /x HTTP/1.1\r\nHost: t\r\nCookie: x=y; {cookie}\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!(reply.header("x-origin"), first.header("x-origin"));
        assert_eq!(reply.header("set-cookie"), None, "it knows already");
    }
}

#[tokio::test]
async fn a_route_rewrites_and_sets_headers() {
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |_, route| {
        route.spec.path_prefix = "/api".to_owned();
        route.spec.rewrite_prefix = Some("/v1".to_owned());
        route.spec.set_request_headers.insert("X-Env".to_owned(), "prod".to_owned());
        route.spec.set_response_headers.insert("X-Origin".to_owned(), "hidden".to_owned());
    })
    .await;
    assert_eq!(fixture.get("/api/../api/%7Ea?q=%2e").await.header("x-origin"), Some("hidden"));
    let head = a.last_head();
    assert!(head.starts_with("GET /v1/~a?q=%2e HTTP/1.1\r\n") && head.contains("X-Env: prod\r\n"), "{head}");
    let reply = fixture.get("/other").await;
    assert!(reply.status == 404 && reply.body.contains("\"code\":\"no_route\""), "{reply:?}");
}

#[tokio::test]
async fn only_the_primary_gets_requests_with_its_epoch() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fixture = Fixture::with(&[&a, &b], |upstream, _| {
        upstream.config.active_standby = Some(Default::default());
        upstream.primary = Some(ringmaster_common::traffic::upstream::Primary {
            endpoint: Some("b".to_owned()),
            epoch: 12,
            since: Default::default(),
            fails_over_at: None,
        });
    })
    .await;
    for _ in 0..5 {
        assert_eq!(fixture.get("/x").await.header("x-origin"), Some("b"));
    }
    assert!(b.last_head().contains("ringmaster-epoch: 12\r\n"));
}

#[tokio::test]
async fn plain_tcp_is_passed_on_with_the_address_of_the_client() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    let named = free_addr();
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |upstream, route| {
        upstream.config.protocol = Protocol::Tcp;
        upstream.config.send_proxy_protocol = true;
        upstream.config.endpoints[0].addr = endpoint.to_string();
        route.spec.listener = Some(named.to_string());
    })
    .await;
    let _ = &fixture;
    let accepted = tokio::spawn(async move {
        // The first connection may be the one that tests whether the listener is open.
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 28];
            stream.read_exact(&mut head).await.unwrap();
            let mut asked = [0; 4];
            if stream.read_exact(&mut asked).await.is_ok() {
                stream.write_all(b"pong").await.unwrap();
                return (head, asked);
            }
        }
    });
    until("the listener is there", || std::net::TcpStream::connect(named).is_ok()).await;
    let mut client = Client::to(named).await;
    client.send("ping").await;
    assert!(client.more().await && client.left == b"pong");
    let (head, asked) = accepted.await.unwrap();
    let here = client.stream.local_addr().unwrap();
    assert_eq!((&head[..], &asked), (&proxy_protocol::header(here, named)[..], b"ping"));
}

#[tokio::test]
async fn the_routing_table_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let a = Origin::start("a").await;
    let mut upstream = upstream("u", &[("a", 1)]);
    upstream.config.endpoints[0].addr = a.addr.to_string();
    upstream.config.policy = Policy::LeastConnections;
    let listen = free_addr();
    let settings = Settings {
        node: NodeId(1),
        listen: Some(listen),
        data_dir: Some(dir.path().to_owned()),
        workers: Some(1),
        connections: 100,
    };
    let proxy = Proxy::start(settings.clone(), &Supervisor::new()).unwrap();
    proxy.set_table([&upstream].into_iter(), [&route("r", "/", "u")].into_iter());
    until("it is on disk", || PersistedTable::read(dir.path()).is_some()).await;
    proxy.shutdown(Duration::ZERO).await;
    let proxy = Proxy::start(settings, &Supervisor::new()).unwrap();
    until("the proxy listens", || std::net::TcpStream::connect(listen).is_ok()).await;
    assert_eq!(Client::to(listen).await.get("/x").await.status, 200);
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_proxy_that_stops_completes_requests_in_flight() {
    let a = Origin::start("a").await;
    let fixture = Fixture::new(&[&a]).await;
    let (mut idle, mut busy) = (fixture.connect().await, fixture.connect().await);
    assert_eq!(idle.get("/x").await.status, 200);
    let busy = tokio::spawn(async move { busy.get("/slow/500").await });
    until("it is busy", || a.requests() == 2).await;
    fixture.proxy.shutdown(PATIENCE).await;
    let reply = busy.await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert!(idle.is_closed().await);
    assert!(TcpStream::connect(fixture.addr).await.is_err());
}

#[tokio::test]
async fn the_request_of_a_client_that_disconnects_is_cancelled() {
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |upstream, _| {
        upstream.config.outlier_ejection.consecutive_failures = 1;
    })
    .await;
    for request in [
        "GET /slow/60000 HTTP/1.1\r\nHost: t\r\n\r\n",
        "POST /slow/60000 HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let mut client = fixture.connect().await;
        client.send(request).await;
        let in_flight =
            || fixture.proxy.0.table.load().upstream("u").unwrap().slots[0].endpoint.in_flight.load(Relaxed);
        let before = a.requests();
        until("it is in flight", || a.requests() > before).await;
        assert_eq!(in_flight(), 1);
        drop(client);
        until("it is cancelled", || in_flight() == 0).await;
    }
    let table = fixture.proxy.0.table.load();
    let upstream = table.upstream("u").unwrap();
    until("both are counted", || upstream.stats.client_disconnects.load(Relaxed) == 2).await;
    let endpoint = &upstream.slots[0].endpoint;
    assert_eq!((endpoint.requests(), endpoint.failures()), (0, 0));
    assert_eq!(fixture.get("/x").await.status, 200);
}

#[tokio::test]
async fn a_load_balancer_in_front_sends_the_address_of_the_client() {
    let a = Origin::start("a").await;
    let listener = free_addr();
    let fixture = Fixture::with(&[&a], |_, route| {
        route.spec.listener = Some(listener.to_string());
        route.spec.accept_proxy_protocol = true;
    })
    .await;
    until("the listener is there", || std::net::TcpStream::connect(listener).is_ok()).await;
    let mut client = Client::to(listener).await;
    client.send("PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\r\nGET /x HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    assert!(a.last_head().contains("x-forwarded-for: 192.0.2.7\r\n"), "{}", a.last_head());
    assert_eq!(client.get("/y").await.status, 200, "the header is sent once for the whole connection");
    let mut client = Client::to(listener).await;
    client.send(proxy_protocol::header("[2001:db8::7]:1".parse().unwrap(), listener)).await;
    assert_eq!(client.get("/x").await.status, 200);
    assert!(a.last_head().contains("x-forwarded-for: 2001:db8::7\r\n"), "{}", a.last_head());
    // A connection without the header is closed.
    let mut client = Client::to(listener).await;
    client.send("GET /x HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert!(client.is_closed().await);
    assert_eq!(a.requests(), 3);
    drop(fixture);
}
