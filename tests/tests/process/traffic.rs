//! Requests through real proxies to real endpoints that die, are drained, and are lied to.

use ringmaster_common::{
    action::Action,
    operation::OperationStatus,
    traffic::upstream::{EndpointState, Upstream},
};
use ringmaster_tests::{
    SOON,
    cluster::Program,
    eventually,
    traffic::{BRIEFLY, Load, Site, Tunnel, UPSTREAM, get},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// How often an endpoint is killed; `ringmaster-bench endpoints` does it more often.
const KILLS: usize = 10;
/// With nothing to guard them, so many kills are bound to be seen by clients.
const KILLS_UNGUARDED: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_endpoint_costs_no_request() {
    let mut site = Site::start(Program::default(), json!({})).await;
    let load = Load::start(&site.cluster, BRIEFLY);
    site.kill_endpoints(KILLS, &load).await;
    let tally = load.stop().await;
    println!(
        "{KILLS} kills, {} requests in {:?}, the slowest took {:?}",
        tally.sent, tally.took, tally.slowest
    );
    assert_eq!(tally.failures, Vec::<String>::new(), "of {}", tally.sent);

    // The same load does see a killed endpoint where nothing is sent again: it looks closely enough.
    let upstream = format!("/v1/upstreams/{UPSTREAM}");
    let mut config: Value = site.cluster.get(1, &upstream).await.expect("it is there");
    config["retries"] = json!({ "attempts": 0 });
    site.put(&upstream, config).await;
    let load = Load::start(&site.cluster, BRIEFLY);
    site.kill_endpoints(KILLS_UNGUARDED, &load).await;
    assert!(!load.stop().await.failures.is_empty());
}

/// How long requests in flight may continue at an endpoint that is drained.
const DRAIN: Duration = Duration::from_secs(3);
/// How long a proxy may take to go by what its node knows.
const TAKES_EFFECT: Duration = Duration::from_millis(500);
/// How late the end may come: a loaded machine is slow.
const LATE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_endpoint_finishes_its_requests_and_gets_no_new_ones() {
    let drain_ms = u64::try_from(DRAIN.as_millis()).expect("a few seconds");
    let site = Site::start(Program::default(), json!({ "drain_ms": drain_ms })).await;
    let cluster = &site.cluster;
    let load = Load::start(cluster, "/slow/300");
    for endpoint in &site.endpoints {
        load.wait_used(&endpoint.id).await;
    }
    // Through each node, a connection to the one that will be drained, and one to another.
    let (mut drained, mut others) = (Vec::new(), Vec::new());
    for node in &cluster.nodes {
        let (mut here, mut elsewhere) = (None, None);
        while here.is_none() || elsewhere.is_none() {
            let mut tunnel = Tunnel::open(node.proxy_port).await;
            assert!(tunnel.echoes().await);
            let place = if tunnel.endpoint == "e1" { &mut here } else { &mut elsewhere };
            *place = Some(tunnel);
        }
        drained.extend(here);
        others.extend(elsewhere);
    }

    let action = Action::SetEndpointState {
        upstream: UPSTREAM.to_owned(),
        endpoint: "e1".to_owned(),
        state: EndpointState::Drain,
    };
    let plan = cluster.plan(2, &action).await.expect("a plan");
    let begun = Instant::now();
    let operation = cluster.apply(2, &plan).await.expect("it is applied");
    assert_eq!(cluster.outcome(2, &operation).await.status, OperationStatus::Succeeded);
    for node in &cluster.nodes {
        eventually("every node to know", SOON, async || {
            let path = format!("/v1/upstreams/{UPSTREAM}?consistency=stale");
            let state = cluster.get::<Upstream>(node.id, &path).await?.config.endpoints[0].state;
            if state == EndpointState::Drain { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
    }
    sleep(TAKES_EFFECT).await;
    let seen = site.endpoints[0].seen().await;
    for tunnel in &mut drained {
        assert!(tunnel.echoes().await, "its time is not up after {:?}", begun.elapsed());
    }
    for tunnel in &mut drained {
        let left = (DRAIN + LATE).saturating_sub(begun.elapsed());
        timeout(left, tunnel.closed()).await.expect("it is cut off at the deadline");
        assert!(begun.elapsed() >= DRAIN, "not before: {:?}", begun.elapsed());
    }
    println!("tunnels were cut {:?} after the drain of {DRAIN:?} was asked for", begun.elapsed());
    for tunnel in &mut others {
        assert!(tunnel.echoes().await, "{} is not drained", tunnel.endpoint);
    }
    assert_eq!(site.endpoints[0].seen().await, seen, "nothing new reaches it");

    // Undone, it takes requests again.
    let undo = cluster.plan(1, &Action::Undo { operation: operation.id }).await.expect("a plan");
    let undone = cluster.apply(1, &undo).await.expect("it is applied");
    assert_eq!(cluster.outcome(1, &undone).await.status, OperationStatus::Succeeded);
    load.wait_used("e1").await;
    let tally = load.stop().await;
    println!("{} requests of 300 ms, the slowest took {:?}", tally.sent, tally.slowest);
    assert_eq!(tally.failures, Vec::<String>::new(), "of {}", tally.sent);
}

/// How often all of it is tried: a leak of one file each time is seen.
const ROUNDS: usize = 20;
/// Connections that a node may have more than before: of its API, its peers, and to endpoints.
const FILES_TO_SPARE: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_reach_no_endpoint_and_leave_nothing() {
    let mut site = Site::start(Program::default(), json!({})).await;
    site.put("/v1/routes/all", json!({ "upstream": UPSTREAM, "max_body_bytes": 1000 })).await;
    let port = site.cluster.node(1).proxy_port;
    let long = "x".repeat(70_000);
    let malformed = [
        ("no HTTP\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("GET /\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("GET / HTTP/9.9\r\nHost: t\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("GET / HTTP/1.1\r\nHost: t\r\nBad Header: x\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n".to_owned(), 400, "invalid_request"),
        (format!("GET / HTTP/1.1\r\nHost: t\r\nX: {long}\r\n\r\n"), 431, "head_too_large"),
        ("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1001\r\n\r\n".to_owned(), 413, "body_too_large"),
    ];
    let before = configured(&site).await;
    let pid = site.cluster.node_mut(1).process().pid();
    let files = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the node runs").count();
    let files_before = files();
    for _ in 0..ROUNDS {
        for (text, status, code) in &malformed {
            let answer = raw(port, text).await;
            let what = &text[..text.len().min(60)];
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what:?}: {answer}");
            assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{what:?}: {answer}");
        }
        // A client that sends half of a request and hangs up.
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the proxy listens");
        stream.write_all(b"GET / HTTP/1.1\r\nHos").await.expect("the proxy reads");
    }
    for endpoint in &site.endpoints {
        assert_eq!(endpoint.seen().await, 0, "{} has seen something", endpoint.id);
    }
    eventually("the node to have closed what was opened", SOON, async || {
        let now = files();
        if now <= files_before + FILES_TO_SPARE { Ok(()) } else { Err(format!("{files_before}, now {now}")) }
    })
    .await;
    assert_eq!(configured(&site).await, before);
    let client = reqwest::Client::new();
    get(&client, &site.cluster.node(1).proxy_url(), "/").await.expect("it serves as before");
}

/// The versions of the upstream and the route.
async fn configured(site: &Site) -> (Value, Value) {
    let version = async |path: &str| -> Value {
        let mut body: Value = site.cluster.get(1, path).await.expect("it is there");
        body["version"].take()
    };
    (version(&format!("/v1/upstreams/{UPSTREAM}")).await, version("/v1/routes/all").await)
}

/// The answer until the proxy closes the connection. Nothing more is sent: the proxy needs no more.
async fn raw(port: u16, text: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the proxy listens");
    // It may have been refused before all was read.
    drop(stream.write_all(text.as_bytes()).await);
    let mut answer = Vec::new();
    drop(timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the proxy closes it"));
    String::from_utf8_lossy(&answer).into_owned()
}
