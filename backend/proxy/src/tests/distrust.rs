//! Endpoints that misbehave, and routing tables that change, while requests are in flight.

use super::{http2_origin::Http2Origin, *};
use outcome::ErrorKind;
use ringmaster_common::traffic::{
    health::HealthCheck,
    upstream::{EndpointState, Primary, Protocol},
};
use std::io::ErrorKind::ConnectionReset;

const ASKS_FOR_WEBSOCKET: &str = "Host: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn primary(endpoint: &str) -> Option<Primary> {
    let endpoint = Some(endpoint.to_owned());
    Some(Primary { endpoint, epoch: 1, since: Default::default(), fails_over_at: None })
}

/// How the client's connection ends.
async fn ends(client: &mut Client) -> io::Result<()> {
    let mut rest = Vec::new();
    timeout(PATIENCE, client.stream.read_to_end(&mut rest)).await.expect("it ends in time").map(drop)
}

#[tokio::test]
async fn interim_responses_pass_but_not_without_end() {
    let a = Origin::start("a").await;
    let fixture = Fixture::new(&[&a]).await;
    let mut client = fixture.connect().await;
    client.send("GET /hints HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let hints = client.head().await.unwrap();
    assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"), "{hints}");
    assert_eq!(client.reply().await.status, 200);
    // More than any stack has room for.
    let reply = fixture.get("/never-final").await;
    assert!(reply.status == 502 && reply.body.contains("interim"), "{reply:?}");
    let over_http2 = Fixture::new(&[&a]).await;
    let (requests, connection) =
        h2::client::handshake(TcpStream::connect(over_http2.addr).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get("http://test/never-final").body(()).unwrap();
    let answer = requests.ready().await.unwrap().send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!(answer.status(), 502);
}

#[tokio::test]
async fn a_connection_becomes_a_websocket_or_nothing() {
    let a = Origin::start("a").await;
    let fixture = Fixture::new(&[&a]).await;
    for wanted in ["H2C", "tls/1.0", "websocket\r\nUpgrade: h2c"] {
        let text = format!(
            "GET /x HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: {wanted}\r\nHTTP2-Settings: AAAA\r\n\r\n"
        );
        let mut client = fixture.connect().await;
        client.send(text).await;
        assert_eq!(client.reply().await.status, 200);
        let head = a.last_head().to_ascii_lowercase();
        assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
    }
    let mut client = fixture.connect().await;
    client.send(format!("GET /other-protocol HTTP/1.1\r\n{ASKS_FOR_WEBSOCKET}")).await;
    assert_eq!(client.reply().await.status, 502);
}

#[tokio::test]
async fn bytes_behind_a_response_without_a_body_are_no_response() {
    let origin = Http2Origin::start().await;
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |upstream, _| {
        upstream.config.protocol = Protocol::Http2;
        upstream.config.endpoints[0].addr = origin.addr.to_string();
    })
    .await;
    let mut client = fixture.connect().await;
    client.send("GET /poison HTTP/1.1\r\nHost: t\r\n\r\nGET /bare HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 204"), "{head}");
    while client.more().await {}
    assert!(client.left.is_empty(), "{}", String::from_utf8_lossy(&client.left));
}

#[tokio::test]
async fn a_body_is_sent_again_whole_or_not_at_all() {
    let origin = Http2Origin::start().await;
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |upstream, _| {
        upstream.config.protocol = Protocol::Http2;
        upstream.config.endpoints[0].addr = origin.addr.to_string();
        upstream.config.timeouts.idle_ms = 500;
    })
    .await;
    // Without chunks the client gets the body as it is.
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.0\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    for (length, asked) in [(1, 2), (60_000, 2), (70_000, 1)] {
        origin.seen.requests.store(0, Relaxed);
        let body: String = ('a'..='z').cycle().take(length).collect();
        let mut client = fixture.connect().await;
        client.send(post("/refuse-once", &body)).await;
        let reply = client.reply().await;
        assert_eq!((origin.requests(), reply.status == 200), (asked, asked == 2), "{length}");
        assert!(asked == 1 || reply.body == body, "it is the same body: {length}");
    }
    // Where the framing is wrong, it is not known where the request ended.
    for body in ["0\r\n\r\n", "5\r\n0\r\n\r\n"] {
        let mut client = fixture.connect().await;
        let text = format!("POST /refuse HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        client.send(text).await;
        let reply = client.reply().await;
        assert!([400, 502, 408].contains(&reply.status), "{reply:?}");
        assert_eq!(reply.header("connection"), Some("close"));
    }
}

#[tokio::test]
async fn a_truncated_response_without_framing_resets_the_connection() {
    let a = Origin::start("a").await;
    let fixture = Fixture::new(&[&a]).await;
    let mut client = fixture.connect().await;
    client.send("GET /half-chunked HTTP/1.0\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert!(!head.contains("chunked"), "{head}");
    let ended = ends(&mut client).await;
    assert!(ended.as_ref().is_err_and(|error| error.kind() == ConnectionReset), "{ended:?}");
}

#[tokio::test]
async fn an_endpoint_that_keeps_truncating_is_ejected() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fixture = Fixture::with(&[&a, &b], |upstream, _| {
        upstream.config.outlier_ejection.consecutive_failures = 3;
    })
    .await;
    for _ in 0..8 {
        let mut client = fixture.connect().await;
        client.send("GET /half HTTP/1.1\r\nHost: t\r\n\r\n").await;
        client.head().await.unwrap();
        while client.more().await {}
    }
    let table = fixture.proxy.0.table.load();
    let endpoints: Vec<_> = table.upstream("u").unwrap().slots.iter().map(|slot| &slot.endpoint).collect();
    let broken: u64 = endpoints.iter().map(|endpoint| endpoint.errors(ErrorKind::Truncated)).sum();
    let requests: u64 = endpoints.iter().map(|endpoint| endpoint.requests()).sum();
    assert_eq!((broken, requests), (8, 8));
    assert!(endpoints.iter().any(|endpoint| endpoint.ejected_for(CoarseInstant::now()).is_some()));
}

#[tokio::test]
async fn a_rate_limit_outlives_tables() {
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |_, route| route.spec.rate_limit_per_s = Some(10)).await;
    let mut client = fixture.connect().await;
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(client.get("/x").await.status);
        fixture.apply();
    }
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn a_request_goes_by_the_table_of_when_its_head_is_complete() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let mut fixture = Fixture::with(&[&a, &b], |upstream, _| {
        upstream.config.active_standby = Some(Default::default());
        upstream.primary = primary("a");
    })
    .await;
    let mut client = fixture.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: t\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    fixture.upstream.primary = primary("b");
    fixture.apply();
    client.send("\r\n").await;
    assert_eq!(client.reply().await.header("x-origin"), Some("b"));
    assert_eq!(a.requests(), 0);
}

#[tokio::test]
async fn a_retry_goes_by_the_newest_table() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let mut fixture = Fixture::with(&[&a, &b], |_, _| {}).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = fixture.connect().await;
        client.send("GET /slow-hang-up HTTP/1.1\r\nHost: t\r\n\r\n").await;
        clients.push(client);
    }
    until("both are asked", || a.requests() + b.requests() == 2).await;
    fixture.upstream.config.endpoints[1].state = EndpointState::Maintenance;
    fixture.apply();
    for mut client in clients {
        assert_eq!(client.reply().await.status, 502);
    }
    assert_eq!(b.requests(), 1, "it is in maintenance");
}

#[tokio::test]
async fn requests_in_flight_at_a_former_primary_are_cut_off() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let mut fixture = Fixture::with(&[&a, &b], |upstream, _| {
        upstream.config.active_standby = Some(Default::default());
        upstream.config.drain_ms = 300;
        upstream.primary = primary("a");
    })
    .await;
    let mut client = fixture.connect().await;
    client.send(format!("GET /ws HTTP/1.1\r\n{ASKS_FOR_WEBSOCKET}")).await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101"));
    fixture.upstream.primary = primary("b");
    fixture.apply();
    // How the tunnel is closed is for other tests.
    let _ = ends(&mut client).await;
    assert_eq!(fixture.get("/x").await.header("x-origin"), Some("b"));
}

#[tokio::test]
async fn a_primary_has_a_limit_of_requests() {
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |upstream, _| {
        upstream.config.active_standby = Some(Default::default());
        upstream.config.max_in_flight = 1;
        upstream.primary = primary("a");
    })
    .await;
    let mut first = fixture.connect().await;
    first.send("GET /slow/500 HTTP/1.1\r\nHost: t\r\n\r\n").await;
    until("it is in flight", || a.requests() == 1).await;
    let reply = fixture.get("/x").await;
    assert!(reply.status == 503 && reply.body.contains("at the limit"), "{reply:?}");
    assert_eq!(first.reply().await.status, 200);
}

#[tokio::test]
async fn checks_send_the_proxy_protocol_if_the_upstream_does() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if proxy_protocol::read(&mut stream).await.is_ok_and(|client| client.is_none()) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                }
            });
        }
    });
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |upstream, _| {
        upstream.config.endpoints[0].addr = addr.to_string();
        upstream.config.send_proxy_protocol = true;
        upstream.config.health_check = Some(HealthCheck::Http {
            path: "/health".to_owned(),
            host: None,
            status: None,
            interval_ms: 50,
            timeout_ms: 500,
            rise: 1,
            fall: 1,
            max_hold_ms: 0,
        });
    })
    .await;
    let mut opinions = fixture.proxy.opinions();
    let said = opinions.wait_for(|opinions| !opinions.is_empty());
    assert_eq!(timeout(PATIENCE, said).await.unwrap().unwrap()[0].verdict, Verdict::Healthy);
}
