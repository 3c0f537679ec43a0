//! HTTP/2 on either side, or both.

use super::{http2_origin::Http2Origin, *};
use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use hyper::{HeaderMap, Request, Response};
use ringmaster_common::traffic::{health::HealthCheck, upstream::Protocol};
use std::{collections::BTreeMap, future::poll_fn};

pub async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        if stream.capacity() == 0 && poll_fn(|context| stream.poll_capacity(context)).await.is_none() {
            return;
        }
        let room = stream.capacity().min(data.len());
        if stream.send_data(data.split_to(room), false).is_err() {
            return;
        }
    }
}

/// A client's connection.
#[derive(Clone)]
pub struct Client2(SendRequest<Bytes>);

#[derive(Debug)]
pub struct Reply2 {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Client2 {
    pub async fn to(addr: SocketAddr) -> Client2 {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Client2(requests)
    }

    pub async fn begin(
        &self,
        request: Request<()>,
        bare: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut requests = self.0.clone().ready().await?;
        requests.send_request(request, bare)
    }

    pub async fn get(&self, path: &str) -> Result<Reply2, h2::Error> {
        let (answer, _) = self.begin(request("GET", path), true).await?;
        whole(timeout(PATIENCE, answer).await.expect("an answer comes")?).await
    }

    pub async fn post(&self, path: &str, body: &[u8]) -> Result<Reply2, h2::Error> {
        let (answer, mut stream) = self.begin(request("POST", path), false).await?;
        let body = Bytes::copy_from_slice(body);
        let sending = async {
            send(&mut stream, body).await;
            let _ = stream.send_data(Bytes::new(), true);
        };
        let telling = async { whole(answer.await?).await };
        timeout(PATIENCE, async { tokio::join!(sending, telling).1 }).await.expect("an answer comes")
    }
}

pub fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://test{path}")).body(()).unwrap()
}

pub async fn whole(answer: Response<RecvStream>) -> Result<Reply2, h2::Error> {
    let (parts, mut stream) = answer.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        body.extend_from_slice(&data);
        stream.flow_control().release_capacity(data.len())?;
    }
    let trailers = stream.trailers().await?;
    Ok(Reply2 { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

/// A proxy before endpoints that speak HTTP/2.
pub async fn before(origins: &[&Http2Origin], change: impl FnOnce(&mut Upstream, &mut Route)) -> Fixture {
    Fixture::with(&[], |upstream, route| {
        let ids: Vec<_> = (0..origins.len()).map(|n| format!("e{n}")).collect();
        let ids: Vec<_> = ids.iter().map(|id| (id.as_str(), 1)).collect();
        *upstream = super::upstream("u", &ids);
        upstream.config.protocol = Protocol::Http2;
        for (endpoint, origin) in upstream.config.endpoints.iter_mut().zip(origins) {
            endpoint.addr = origin.addr.to_string();
        }
        change(upstream, route);
    })
    .await
}

#[tokio::test]
async fn a_client_of_http2_goes_the_way_of_every_other() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fixture = Fixture::with(&[&a, &b], |upstream, route| {
        upstream.config.sticky_cookie = Some("slot".to_owned());
        route.spec.path_prefix = "/api".to_owned();
        route.spec.rewrite_prefix = Some("/v2".to_owned());
        route.spec.max_body_bytes = 10_000_000;
    })
    .await;
    let client = Client2::to(fixture.addr).await;
    let reply = client.get("/api/x?q=1").await.unwrap();
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    let cookie = reply.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let first = if a.requests() == 1 { &a } else { &b };
    let head = first.last_head();
    assert!(head.starts_with("GET /v2/x?q=1 HTTP/1.1\r\nhost: test\r\n"), "{head}");
    assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n") && !head.contains("transfer-encoding"), "{head}");
    // Crumbs of cookies are put together, and the one that counts is found.
    for _ in 0..5 {
        let mut again = request("GET", "/api/y");
        again.headers_mut().append("cookie", "other=1".parse().unwrap());
        again.headers_mut().append("cookie", cookie.parse().unwrap());
        let (answer, _) = client.begin(again, true).await.unwrap();
        assert!(!answer.await.unwrap().headers().contains_key("set-cookie"));
    }
    assert_eq!(first.requests(), 6);
    assert!(first.last_head().contains(&format!("cookie: other=1; {cookie}\r\n")), "{}", first.last_head());
    // Bodies with and without a length.
    let big = vec![b'y'; 200_000];
    let mut sized = request("POST", "/api/echo");
    sized.headers_mut().insert("content-length", "2".parse().unwrap());
    let (answer, mut stream) = client.begin(sized, false).await.unwrap();
    stream.send_data("ok".into(), true).unwrap();
    assert_eq!(whole(answer.await.unwrap()).await.unwrap().body, b"ok");
    let echoed = client.post("/api/echo", &big).await.unwrap().body;
    assert_eq!(echoed.iter().filter(|byte| **byte == b'y').count(), big.len(), "in chunks, as it went");
    assert_eq!(client.get("/api/../api/big").await.unwrap().status, 200);
    // What is refused is refused in the same words.
    for (path, status) in [("/elsewhere", 404), ("/api/..%2f..%2fx", 400)] {
        let reply = client.get(path).await.unwrap();
        assert_eq!(reply.status, status);
        assert_eq!(reply.headers["content-type"], "application/problem+json");
    }
    let metrics = fixture.measured(|metrics| metrics.requests_per_s > 0.0).await;
    assert_eq!(metrics.in_flight, 0);
    assert_eq!(fixture.proxy.decisions("u").unwrap()[0].request, "GET /v2/x");
}

#[tokio::test]
async fn grpc_passes_complete() {
    let a = Http2Origin::start().await;
    let fixture = before(&[&a], |_, _| {}).await;
    let client = Client2::to(fixture.addr).await;
    let mut call = request("POST", "/service/call");
    call.headers_mut().insert("te", "trailers".parse().unwrap());
    let (answer, mut stream) = client.begin(call, false).await.unwrap();
    let (parts, mut body) = timeout(PATIENCE, answer).await.unwrap().unwrap().into_parts();
    assert_eq!(parts.status, 200, "the head comes before the request has ended");
    for n in 0..10u8 {
        // Each side waits for the other: nothing is held back.
        send(&mut stream, vec![n; 1000].into()).await;
        let mut echoed = 0;
        while echoed < 1000 {
            let data = timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
            assert!(data.iter().all(|byte| *byte == n));
            echoed += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-asked", "yes".parse().unwrap());
    trailers.insert("x-forwarded-for", "1.2.3.4".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    assert!(timeout(PATIENCE, body.data()).await.unwrap().is_none());
    let trailers = body.trailers().await.unwrap().unwrap();
    assert!(trailers["grpc-status"] == "0" && trailers["x-asked"] == "yes", "{trailers:?}");
    let head = a.last_head();
    assert!(
        head.starts_with("POST http://test/service/call\n") && head.contains("te: \"trailers\""),
        "{head}"
    );
    assert!(head.contains("x-forwarded-for: \"127.0.0.1\""), "{head}");
    // A status alone comes as such: a client must not wait for a body.
    let (answer, _) = client.begin(request("POST", "/bare"), true).await.unwrap();
    let answer = answer.await.unwrap();
    assert!(answer.body().is_end_stream() && answer.headers()["grpc-status"] == "5");
    // A body of many windows.
    let big = vec![7; 5_000_000];
    let echoed = client.post("/echo", &big).await.unwrap();
    assert!(echoed.body == big && echoed.trailers.unwrap()["grpc-status"] == "0");
}

#[tokio::test]
async fn a_client_of_http1_reaches_http2() {
    let a = Http2Origin::start().await;
    let fixture = before(&[&a], |_, _| {}).await;
    let mut client = fixture.connect().await;
    client.send("POST /echo?x=1 HTTP/1.1\r\nHost: t:80\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(client.reply().await.body, "5\r\nhello\r\n0\r\n\r\n");
    assert!(a.last_head().starts_with("POST http://t:80/echo?x=1\n"), "{}", a.last_head());
    client
        .send("POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.reply().await.body, "3\r\nabc\r\n0\r\n\r\n");
    let reply = client.get("/bare").await;
    assert_eq!((reply.header("grpc-status"), reply.header("content-length")), (Some("5"), Some("0")));
    client.send("POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("ok").await;
    assert_eq!(client.reply().await.body, "2\r\nok\r\n0\r\n\r\n");
    assert_eq!(a.seen.connections.load(Relaxed), 1);
    let mut old = fixture.connect().await;
    old.send("POST /echo HTTP/1.0\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello").await;
    let reply = old.reply().await;
    assert_eq!((reply.header("transfer-encoding"), reply.body.as_str()), (None, "hello"));
    // Half an answer is not ended as if it were the whole.
    client.send("GET /half HTTP/1.1\r\nHost: t\r\n\r\n").await;
    client.head().await.unwrap();
    while client.more().await {}
    assert_eq!(client.left, b"4\r\nhalf\r\n");
}

#[tokio::test]
async fn streams_share_a_connection_and_survive_its_end() {
    let a = Http2Origin::start().await;
    let fixture = before(&[&a], |_, _| {}).await;
    let client = Client2::to(fixture.addr).await;
    let many = (0..100).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.post("/echo", b"x").await.unwrap().body })
    });
    for reply in futures::future::join_all(many).await {
        assert_eq!(reply.unwrap(), b"x");
    }
    assert_eq!(a.seen.connections.load(Relaxed), 1, "one client's streams are one worker's");
    // The endpoint says goodbye on it now and then. NoEligibleEndpoint notices, not even who must not be sent twice.
    for _ in 0..20 {
        let (last, other) = (client.get("/last"), client.post("/echo", b"y"));
        let (last, other) = tokio::join!(last, other);
        assert_eq!((last.unwrap().status, other.unwrap().body), (200, b"y".to_vec()));
    }
    let connections = a.seen.connections.load(Relaxed);
    assert!((2..=41).contains(&connections), "{connections}");
}

#[tokio::test]
async fn unprocessed_requests_are_retried() {
    let (a, b) = (Http2Origin::start().await, Http2Origin::start().await);
    let fixture = before(&[&a, &b], |_, _| {}).await;
    let client = Client2::to(fixture.addr).await;
    let (answer, _) = client.begin(request("POST", "/refuse"), true).await.unwrap();
    assert_eq!(answer.await.unwrap().status(), 502);
    assert_eq!((a.requests(), b.requests()), (3, 3), "refused unseen, it is sent again, whatever it is");
    a.seen.requests.store(0, Relaxed);
    b.seen.requests.store(0, Relaxed);
    let (answer, _) = client.begin(request("POST", "/reset"), true).await.unwrap();
    assert_eq!(answer.await.unwrap().status(), 502);
    assert_eq!(a.requests() + b.requests(), 1, "what may have been done is not done again");
    assert_eq!(client.get("/reset").await.unwrap().status, 502);
    assert_eq!(a.requests() + b.requests(), 3, "what changes nothing is");
}

#[tokio::test]
async fn killing_an_endpoint_of_http2_loses_nothing_that_can_be_sent_again() {
    let (a, b) = (Http2Origin::start().await, Http2Origin::start().await);
    let fixture = before(&[&a, &b], |_, _| {}).await;
    let clients = (0..8).map(|_| {
        let addr = fixture.addr;
        tokio::spawn(async move {
            let client = Client2::to(addr).await;
            let mut statuses = BTreeMap::<u16, usize>::new();
            for _ in 0..100 {
                *statuses.entry(client.get("/slow").await.unwrap().status).or_default() += 1;
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
async fn heads_of_http2_have_a_bound() {
    let a = Origin::start("a").await;
    let fixture = Fixture::new(&[&a]).await;
    let client = Client2::to(fixture.addr).await;
    let mut long = request("GET", "/x");
    for n in 0..10 {
        long.headers_mut().insert(
            format!("x-{n}").parse::<hyper::header::HeaderName>().unwrap(),
            "x".repeat(10_000).parse().unwrap(),
        );
    }
    let mut many = request("GET", "/x");
    (0..200).for_each(|_| {
        many.headers_mut().append("x", "y".parse().unwrap());
    });
    for request in [long, many] {
        let (answer, _) = client.begin(request, true).await.unwrap();
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 431);
    }
    assert_eq!(a.requests(), 0);
    assert_eq!(client.get("/x").await.unwrap().status, 200, "the connection is none the worse");
}

#[tokio::test]
async fn a_client_that_keeps_resetting_streams_is_disconnected() {
    let a = Http2Origin::start().await;
    let fixture = before(&[&a], |_, _| {}).await;
    let client = Client2::to(fixture.addr).await;
    // Another request of the same client.
    let (answer, mut bystander) = client.begin(request("POST", "/echo"), false).await.unwrap();
    let mut echoed = timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
    let mut error = None;
    for _ in 0..2_000 {
        let before = a.requests();
        match client.begin(request("GET", "/wait"), true).await {
            Ok((answer, mut stream)) => {
                // The proxy keeps up with it: each stream reaches the endpoint, or is refused.
                let arrives = async {
                    while a.requests() == before {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::select! {
                    () = arrives => stream.send_reset(Reason::CANCEL),
                    refused = answer => assert!(refused.is_err(), "{refused:?}"),
                    () = tokio::time::sleep(PATIENCE) => panic!("a stream is neither sent on nor refused"),
                }
            }
            Err(refused) => {
                error = Some(refused);
                break;
            }
        }
    }
    let error = error.expect("it ends");
    assert!(error.is_go_away() && error.reason() == Some(Reason::NO_ERROR), "{error}");
    assert!(a.requests() < 300, "{}", a.requests());
    until("all requests are cancelled", || a.waiting.load(Relaxed) == 0).await;
    assert_eq!(Client2::to(fixture.addr).await.get("/slow").await.unwrap().status, 200);
    // What runs may end.
    for _ in 0..3 {
        send(&mut bystander, Bytes::from_static(b"still here")).await;
        let data = timeout(PATIENCE, echoed.data()).await.unwrap().unwrap().unwrap();
        assert_eq!(data, "still here");
        echoed.flow_control().release_capacity(data.len()).unwrap();
    }
    bystander.send_data(Bytes::new(), true).unwrap();
    assert!(timeout(PATIENCE, echoed.data()).await.unwrap().is_none());
    assert!(echoed.trailers().await.unwrap().is_some());
}

#[tokio::test]
async fn the_request_of_a_client_that_resets_its_stream_is_cancelled() {
    let a = Http2Origin::start().await;
    let fixture =
        before(&[&a], |upstream, _| upstream.config.outlier_ejection.consecutive_failures = 1).await;
    let client = Client2::to(fixture.addr).await;
    let (answer, mut stream) = client.begin(request("GET", "/wait"), true).await.unwrap();
    until("it waits", || a.waiting.load(Relaxed) == 1).await;
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    until("it is cancelled", || a.waiting.load(Relaxed) == 0).await;
    // The same with the whole connection, and of HTTP/1.
    let other = Client2::to(fixture.addr).await;
    let (answer, _stream) = other.begin(request("GET", "/wait"), true).await.unwrap();
    let mut old = fixture.connect().await;
    old.send("GET /wait HTTP/1.1\r\nHost: t\r\n\r\n").await;
    until("both wait", || a.waiting.load(Relaxed) == 2).await;
    drop(old);
    until("one is cancelled", || a.waiting.load(Relaxed) == 1).await;
    drop((answer, _stream, other));
    until("the other is, too", || a.waiting.load(Relaxed) == 0).await;
    let table = fixture.proxy.0.table.load();
    let upstream = table.upstream("u").unwrap();
    until("all are counted", || upstream.stats.client_disconnects.load(Relaxed) == 3).await;
    let endpoint = &upstream.slots[0].endpoint;
    assert_eq!((endpoint.requests(), endpoint.failures(), endpoint.in_flight.load(Relaxed)), (0, 0, 0));
    assert_eq!(fixture.proxy.decisions("u").unwrap()[0].status, 499);
}

#[tokio::test]
async fn a_closing_proxy_sends_goaway() {
    let a = Origin::start("a").await;
    let fixture = Fixture::new(&[&a]).await;
    let client = Client2::to(fixture.addr).await;
    let (answer, _) = client.begin(request("GET", "/slow/700"), true).await.unwrap();
    until("it is in flight", || a.requests() == 1).await;
    let (answer, ()) = tokio::join!(answer, fixture.proxy.shutdown(Duration::from_secs(5)));
    assert_eq!(answer.unwrap().status(), 200, "requests in flight complete");
    assert!(client.get("/x").await.is_err());
}

#[tokio::test]
async fn endpoints_of_http2_are_checked_in_their_protocol() {
    let a = Http2Origin::start().await;
    let fixture = before(&[&a], |upstream, _| {
        let check = serde_json::json!({"type": "http", "path": "/health", "interval_ms": 50, "rise": 1});
        upstream.config.health_check = Some(serde_json::from_value::<HealthCheck>(check).unwrap());
    })
    .await;
    let mut opinions = fixture.proxy.opinions();
    let known = timeout(PATIENCE, opinions.wait_for(|all| !all.is_empty())).await.unwrap().unwrap();
    assert_eq!((known[0].verdict, known[0].detail.as_str()), (Verdict::Healthy, "status 200"));
}

#[tokio::test]
async fn tunnels_over_http2_are_refused() {
    let a = Origin::start("a").await;
    let fixture = Fixture::new(&[&a]).await;
    let client = Client2::to(fixture.addr).await;
    let connect = Request::builder().method("CONNECT").uri("test:80").body(()).unwrap();
    let (answer, _stream) = client.begin(connect, false).await.unwrap();
    assert_eq!(answer.await.unwrap().status(), 405);
    assert!(!client.0.is_extended_connect_protocol_enabled());
    assert_eq!(a.requests(), 0);
}
