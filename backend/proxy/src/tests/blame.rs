//! What is held against an endpoint and what is not; and requests that are lost with a connection, which cost nothing.

use super::{
    http2::Client2,
    raw_http2_origin::{Farewell, RawHttp2Origin},
    *,
};
use bytes::Bytes;
use h2::Reason;
use hyper::Request;
use outcome::ErrorKind;
use ringmaster_common::traffic::upstream::Protocol;
use std::sync::atomic::AtomicUsize;

/// An endpoint that does with each connection what `serve` says. `serve` gets the number of the connection, from 0 on.
async fn scripted<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, number));
            number += 1;
        }
    });
    addr
}

/// Reads one head; none at the end.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A proxy in front of one endpoint.
async fn before(addr: SocketAddr, change: impl FnOnce(&mut Upstream)) -> Fixture {
    Fixture::with(&[], |upstream, _| {
        *upstream = super::upstream("u", &[("a", 1)]);
        upstream.config.endpoints[0].addr = addr.to_string();
        change(upstream);
    })
    .await
}

/// A proxy in front of two endpoints.
async fn before_both(addrs: [SocketAddr; 2], change: impl FnOnce(&mut Upstream)) -> Fixture {
    Fixture::with(&[], |upstream, _| {
        *upstream = super::upstream("u", &[("a", 1), ("b", 1)]);
        for (endpoint, addr) in upstream.config.endpoints.iter_mut().zip(addrs) {
            endpoint.addr = addr.to_string();
        }
        change(upstream);
    })
    .await
}

impl Fixture {
    /// At all endpoints together.
    fn errors(&self, kind: ErrorKind) -> u64 {
        let table = self.proxy.0.table.load();
        table.upstream("u").unwrap().slots.iter().map(|slot| slot.endpoint.errors(kind)).sum()
    }

    /// Asserts that no endpoint is ejected or has failed, and that no retry was needed.
    fn assert_no_blame(&self) {
        let table = self.proxy.0.table.load();
        let upstream = table.upstream("u").unwrap();
        for endpoint in upstream.slots.iter().map(|slot| &slot.endpoint) {
            assert_eq!(endpoint.ejected_for(CoarseInstant::now()), None, "{}", endpoint.id);
            assert_eq!((endpoint.faults(), endpoint.consecutive_failures.load(Relaxed)), (0, 0));
        }
        assert_eq!(upstream.stats.retries.load(Relaxed), 0);
    }

    fn resends(&self) -> u64 {
        let (_, endpoints) = self.proxy.counters();
        endpoints.iter().map(|endpoint| endpoint.resends).sum()
    }
}

#[tokio::test]
async fn time_is_not_held_against_an_endpoint() {
    let serve = |mut stream: TcpStream, _| async move {
        while let Some(head) = read_head(&mut stream).await {
            if head.starts_with("GET /events") {
                let event = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nevent\r\n";
                stream.write_all(event).await.unwrap();
            }
        }
    };
    let addrs = [scripted(serve).await, scripted(serve).await];
    let fixture = before_both(addrs, |upstream| {
        // Long enough for the heads of the events on a busy machine.
        upstream.config.timeouts.idle_ms = 1_500;
        upstream.config.timeouts.response_ms = 1_500;
        upstream.config.outlier_ejection.consecutive_failures = 2;
    })
    .await;
    let http2 = Client2::to(fixture.addr).await;
    let asking = (0..8).map(|_| async {
        let (mut events, mut poll) = (fixture.connect().await, fixture.connect().await);
        events.send("GET /events HTTP/1.1\r\nHost: t\r\n\r\n").await;
        assert!(events.head().await.unwrap().starts_with("HTTP/1.1 200"));
        let given_up = async {
            while events.more().await {}
            assert_eq!(events.left, b"5\r\nevent\r\n", "it is given up, without an end");
        };
        let (polled, polled2, events2, ()) =
            tokio::join!(poll.get("/poll"), http2.get("/poll"), http2.get("/events"), given_up);
        assert_eq!((polled.status, polled2.unwrap().status), (504, 504));
        let Err(error) = events2 else { panic!("the stream has no end") };
        assert_eq!((error.is_reset(), error.reason()), (true, Some(Reason::CANCEL)), "{error}");
    });
    futures::future::join_all(asking).await;
    fixture.assert_no_blame();
    assert_eq!((fixture.errors(ErrorKind::Timeout), fixture.errors(ErrorKind::IdleTimeout)), (16, 16));
    let metrics = fixture.measured(|metrics| metrics.endpoints[0].recent_requests > 0).await;
    assert_eq!(metrics.endpoints.iter().map(|endpoint| endpoint.recent_failures).sum::<u64>(), 0);
}

#[tokio::test]
async fn a_head_beyond_the_bounds_is_not_held_against_an_endpoint() {
    let serve = |mut stream: TcpStream, _| async move {
        while let Some(head) = read_head(&mut stream).await {
            let fields = match head.starts_with("GET /many") {
                true => "x: y\r\n".repeat(100),
                false => format!("x: {}\r\n", "y".repeat(70_000)),
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{fields}\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
        }
    };
    let addrs = [scripted(serve).await, scripted(serve).await];
    let fixture =
        before_both(addrs, |upstream| upstream.config.outlier_ejection.consecutive_failures = 1).await;
    let http2 = Client2::to(fixture.addr).await;
    for path in ["/many", "/long"] {
        let reply = fixture.get(path).await;
        assert_eq!(reply.status, 502);
        assert!(reply.body.contains("65536 bytes or 100 headers"), "{reply:?}");
        assert_eq!(http2.get(path).await.unwrap().status, 502);
    }
    fixture.assert_no_blame();
    assert_eq!(fixture.errors(ErrorKind::HeadTooLarge), 4);
    assert_eq!(fixture.errors(ErrorKind::InvalidResponse), 0);
}

#[tokio::test]
async fn a_head_of_http2_beyond_the_bounds_is_named() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let size: usize = request.uri().path()[1..].parse().unwrap();
                    let long = hyper::Response::builder().header("x", "y".repeat(size)).body(()).unwrap();
                    let _: Result<h2::SendStream<Bytes>, _> = respond.send_response(long, true);
                }
            });
        }
    });
    let fixture = before(addr, |upstream| upstream.config.protocol = Protocol::Http2).await;
    let mut client = fixture.connect().await;
    assert_eq!(client.get("/60000").await.status, 200);
    let reply = client.get("/70000").await;
    assert!(reply.status == 502 && reply.body.contains("65536 bytes"), "{reply:?}");
    assert_eq!(client.get("/1").await.status, 200, "the connection is none the worse");
    fixture.assert_no_blame();
}

/// An endpoint that serves one request on each connection, and closes it `delay` after the next one arrives: for the
/// proxy, as if it had closed the idle connection and that had become known late.
async fn forgetful(delay: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let lost = Arc::<AtomicUsize>::default();
    let count = lost.clone();
    let serve = move |mut stream: TcpStream, _| {
        let lost = count.clone();
        async move {
            if read_head(&mut stream).await.is_some() {
                stream.write_all(OK).await.unwrap();
            }
            if read_head(&mut stream).await.is_some() {
                lost.fetch_add(1, Relaxed);
                tokio::time::sleep(delay).await;
            }
        }
    };
    (scripted(serve).await, lost)
}

#[tokio::test]
async fn a_request_that_meets_a_closed_connection_goes_to_the_same_endpoint_again() {
    for delay in [Duration::ZERO, Duration::from_millis(700)] {
        let (addr, lost) = forgetful(delay).await;
        let fixture = before(addr, |upstream| upstream.config.retries.budget_percent = 0).await;
        let mut client = fixture.connect().await;
        for _ in 0..4 {
            assert_eq!(client.get("/x").await.body, "ok");
        }
        let http2 = Client2::to(fixture.addr).await;
        for _ in 0..4 {
            assert_eq!(http2.get("/x").await.unwrap().body, b"ok");
        }
        let lost = lost.load(Relaxed) as u64;
        assert!(lost >= 4, "{lost}");
        assert_eq!(fixture.resends(), lost);
        fixture.assert_no_blame();
    }
    // A request that may have been processed is not sent again, and its loss is a failure.
    let (addr, _) = forgetful(Duration::ZERO).await;
    let fixture = before(addr, |_| {}).await;
    let mut client = fixture.connect().await;
    assert_eq!(client.get("/x").await.status, 200);
    client.send("POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 502);
    assert_eq!((fixture.errors(ErrorKind::NoResponse), fixture.resends()), (1, 0));
}

#[tokio::test]
async fn bytes_that_nothing_asked_for_cost_no_later_request() {
    // The body of a response to HEAD, and the 408 of a server that is tired of waiting.
    for unasked in ["body", "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"]
    {
        for wait in [0, 30] {
            let serve = move |mut stream: TcpStream, _| async move {
                let Some(head) = read_head(&mut stream).await else { return };
                if !head.starts_with("HEAD") {
                    return stream.write_all(OK).await.unwrap();
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await;
                tokio::time::sleep(Duration::from_millis(3)).await;
                let _ = stream.write_all(unasked.as_bytes()).await;
                let _ = read_head(&mut stream).await;
            };
            let fixture = before(scripted(serve).await, |_| {}).await;
            let (mut http1, http2) = (fixture.connect().await, Client2::to(fixture.addr).await);
            for _ in 0..5 {
                http1.send("HEAD /x HTTP/1.1\r\nHost: t\r\n\r\n").await;
                http1.head().await.unwrap();
                tokio::time::sleep(Duration::from_millis(wait)).await;
                assert_eq!(http1.get("/x").await.body, "ok", "{unasked} {wait}");
                http1.send("HEAD /x HTTP/1.1\r\nHost: t\r\n\r\n").await;
                http1.head().await.unwrap();
                tokio::time::sleep(Duration::from_millis(wait)).await;
                assert_eq!(http2.get("/x").await.unwrap().body, b"ok", "{unasked} {wait}");
            }
            fixture.assert_no_blame();
        }
    }
}

#[tokio::test]
async fn what_a_goaway_leaves_unprocessed_goes_to_the_same_endpoint_again() {
    const REQUESTS: usize = 300;
    let origin = RawHttp2Origin::start(7, Farewell::GoAway).await;
    let fixture = before(origin.addr, |upstream| {
        upstream.config.protocol = Protocol::Http2;
        upstream.config.retries.attempts = 0;
    })
    .await;
    let clients = (0..10).map(|n| {
        let (http2, fixture) = (Client2::to(fixture.addr), &fixture);
        async move {
            let (http2, mut http1) = (http2.await, fixture.connect().await);
            for m in 0..REQUESTS / 20 {
                let reply =
                    if (n + m) % 2 == 0 { http2.get("/x").await } else { http2.post("/x", b"body").await };
                assert_eq!(reply.unwrap().status, 200);
                http1.send("POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody").await;
                assert_eq!(http1.reply().await.status, 200);
            }
        }
    });
    futures::future::join_all(clients).await;
    assert_eq!(origin.served.load(Relaxed), REQUESTS, "each was processed once");
    assert!(fixture.resends() > 0);
    fixture.assert_no_blame();
}

#[tokio::test]
async fn a_connection_of_http2_that_ends_costs_no_idempotent_request() {
    let origin = RawHttp2Origin::start(3, Farewell::None).await;
    let fixture = before(origin.addr, |upstream| {
        upstream.config.protocol = Protocol::Http2;
        upstream.config.retries.attempts = 0;
    })
    .await;
    let (http2, mut http1) = (Client2::to(fixture.addr).await, fixture.connect().await);
    for _ in 0..20 {
        assert_eq!(http2.get("/x").await.unwrap().status, 200);
        assert_eq!(http1.get("/x").await.status, 200);
    }
    assert!(fixture.resends() > 0);
    fixture.assert_no_blame();
}

#[tokio::test]
async fn an_endpoint_that_never_processes_anything_is_to_blame() {
    let origin = RawHttp2Origin::start(0, Farewell::GoAway).await;
    let fixture = before(origin.addr, |upstream| upstream.config.protocol = Protocol::Http2).await;
    assert_eq!(fixture.get("/x").await.status, 502);
    assert_eq!(origin.connections.load(Relaxed), 3, "it was asked a bounded number of times");
    assert_eq!((fixture.errors(ErrorKind::NoResponse), fixture.resends()), (1, 2));
}

#[tokio::test]
async fn a_client_is_asked_for_its_body_once() {
    let origin = RawHttp2Origin::start(1, Farewell::GoAway).await;
    let fixture = before(origin.addr, |upstream| upstream.config.protocol = Protocol::Http2).await;
    let mut client = fixture.connect().await;
    for _ in 0..4 {
        client.send("POST /x HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("ok").await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert!(fixture.resends() > 0);
}

#[tokio::test]
async fn a_get_that_turns_out_to_be_empty_is_repeated() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let closes = scripted(|mut stream, _| async move {
        let _ = read_head(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    })
    .await;
    let fixture =
        Fixture::with(&[&a, &b], |upstream, _| upstream.config.endpoints[0].addr = closes.to_string()).await;
    let http2 = Client2::to(fixture.addr).await;
    for end_after in [0, 5, 50] {
        for _ in 0..2 {
            let request = Request::get("http://test/x").body(()).unwrap();
            let (answer, mut stream) = http2.begin(request, false).await.unwrap();
            tokio::time::sleep(Duration::from_millis(end_after)).await;
            stream.send_data(Bytes::new(), true).unwrap();
            let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["x-origin"]),
                (200, &"b".parse().unwrap())
            );
        }
    }
    assert!(fixture.errors(ErrorKind::NoResponse) >= 3);
}

#[tokio::test]
async fn a_request_without_a_body_says_so_where_one_is_expected() {
    let a = Origin::start("a").await;
    let fixture = Fixture::new(&[&a]).await;
    let (http2, mut http1) = (Client2::to(fixture.addr).await, fixture.connect().await);
    for (method, lengths) in [("POST", 1), ("PUT", 1), ("PATCH", 1), ("GET", 0), ("DELETE", 0)] {
        let request = Request::builder().method(method).uri("http://test/x").body(()).unwrap();
        let (answer, _) = http2.begin(request, true).await.unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        assert_eq!(a.last_head().matches("content-length: 0\r\n").count(), lengths, "{}", a.last_head());
        http1.send(format!("{method} /x HTTP/1.1\r\nHost: t\r\n\r\n")).await;
        assert_eq!(http1.reply().await.status, 200);
        assert_eq!(a.last_head().matches("content-length: 0\r\n").count(), lengths, "{}", a.last_head());
    }
    http1.send("POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(http1.reply().await.status, 200);
    assert_eq!(a.last_head().to_ascii_lowercase().matches("content-length").count(), 1, "{}", a.last_head());
}

#[tokio::test]
async fn connections_have_a_maximum_age() {
    let (http1, http2) = (Origin::start("a").await, http2_origin::Http2Origin::start().await);
    for (addr, seen, protocol) in
        [(http1.addr, &http1.seen, Protocol::Http1), (http2.addr, &http2.seen, Protocol::Http2)]
    {
        for (max_age_ms, is_reused) in [(600_000, true), (150, false)] {
            let fixture = before(addr, |upstream| {
                upstream.config.protocol = protocol;
                upstream.config.connections.max_age_ms = max_age_ms;
            })
            .await;
            seen.connections.store(0, Relaxed);
            let mut client = fixture.connect().await;
            let start = CoarseInstant::now();
            // In use all the time.
            while CoarseInstant::now().since(start) < Duration::from_millis(200) {
                assert_eq!(client.get("/x").await.status, 200);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(client.get("/x").await.status, 200);
            let connections = seen.connections.load(Relaxed);
            assert_eq!(connections == 1, is_reused, "{connections} of {}", protocol.as_str());
        }
    }
}

#[tokio::test]
async fn requests_that_clients_cancel_are_spread_over_connections() {
    let origin = http2_origin::Http2Origin::start().await;
    let fixture = before(origin.addr, |upstream| upstream.config.protocol = Protocol::Http2).await;
    let client = Client2::to(fixture.addr).await;
    for n in 0..120 {
        let (_, mut stream) =
            client.begin(Request::get("http://test/wait").body(()).unwrap(), true).await.unwrap();
        until("it is there", || origin.requests() == n + 1).await;
        stream.send_reset(Reason::CANCEL);
        until("it is cancelled", || origin.waiting.load(Relaxed) == 0).await;
    }
    assert_eq!(
        origin.seen.connections.load(Relaxed),
        3,
        "a server may end a connection with too many resets"
    );
    fixture.assert_no_blame();
}
