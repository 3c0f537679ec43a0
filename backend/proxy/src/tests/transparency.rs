//! What reaches an endpoint as the client sent it, and what reaches a client that does not read yet.

use super::{
    http2::{Client2, before, request, whole},
    http2_origin::Http2Origin,
    *,
};
use hyper::{Request, StatusCode};
use std::future::poll_fn;

/// As clients send them.
const PATHS: [&str; 12] = [
    "/fetch/https://example.org//a",
    "/p1//p2",
    "//a",
    "/a//",
    "/%7Euser/x%2Dy",
    "/a%2fb?u=http://x//y",
    "/a/./b",
    "/a/../b",
    "/a/%2E%2e/b",
    "/a|b^{c}\\d",
    "/\u{fc}ber?gr\u{f6}\u{df}e=1",
    "/?",
];

#[tokio::test]
async fn a_path_reaches_the_endpoint_as_it_was_sent() {
    let (one, two) = (Origin::start("a").await, Http2Origin::start().await);
    let (http1, http2) = (Fixture::new(&[&one]).await, before(&[&two], |_, _| {}).await);
    for path in PATHS {
        assert_eq!(http1.get(path).await.status, 200, "{path}");
        assert!(one.last_head().starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{}", one.last_head());
        assert_eq!(Client2::to(http1.addr).await.get(path).await.unwrap().status, 200, "{path}");
        assert!(one.last_head().starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{}", one.last_head());
        assert_eq!(http2.get(path).await.status, 200, "{path}");
        assert!(two.last_head().starts_with(&format!("GET http://test{path}\n")), "{}", two.last_head());
        assert_eq!(Client2::to(http2.addr).await.get(path).await.unwrap().status, 200, "{path}");
        assert!(two.last_head().starts_with(&format!("GET http://test{path}\n")), "{}", two.last_head());
    }
}

#[tokio::test]
async fn a_request_without_a_host_has_one_at_the_endpoint() {
    let (one, two) = (Origin::start("a").await, Http2Origin::start().await);
    let (http1, http2) = (Fixture::new(&[&one]).await, before(&[&two], |_, _| {}).await);
    for request in ["GET /x HTTP/1.0\r\n\r\n", "GET /x HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"] {
        let mut client = http1.connect().await;
        client.send(request).await;
        assert_eq!(client.reply().await.status, 200);
        let begin = format!("GET /x HTTP/1.1\r\nhost: {}\r\n", one.addr);
        let head = one.last_head();
        assert!(head.starts_with(&begin) && !head.contains("x-forwarded-host"), "{head}");
        let mut client = http2.connect().await;
        client.send(request).await;
        assert_eq!(client.reply().await.status, 200);
        let begin = format!("GET http://{}/x\n", two.addr);
        assert!(two.last_head().starts_with(&begin), "{}", two.last_head());
    }
}

#[tokio::test]
async fn crumbs_of_cookies_are_one_header() {
    let origin = Origin::start("a").await;
    let fixture = Fixture::new(&[&origin]).await;
    let client = Client2::to(fixture.addr).await;
    let crumbs: Vec<_> = (0..300).map(|n| format!("c{n}=v{n}")).collect();
    let get = |others: usize| {
        let mut get = request("GET", "/x");
        for crumb in &crumbs {
            get.headers_mut().append("cookie", crumb.parse().unwrap());
        }
        for n in 0..others {
            get.headers_mut().append("x-other", n.into());
        }
        get
    };
    let (answer, _) = client.begin(get(99), true).await.unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let line = format!("cookie: {}\r\n", crumbs.join("; "));
    assert!(origin.last_head().contains(&line), "{}", origin.last_head());
    let (answer, _) = client.begin(get(100), true).await.unwrap();
    assert_eq!(answer.await.unwrap().status(), 431, "100 headers, and no more");
}

#[tokio::test]
async fn a_client_of_http2_that_expects_100_continue_is_answered() {
    let (one, two) = (Origin::start("a").await, Http2Origin::start().await);
    let (http1, http2) = (Fixture::new(&[&one]).await, before(&[&two], |_, _| {}).await);
    for fixture in [&http1, &http2] {
        let client = Client2::to(fixture.addr).await;
        for length in [Some("2"), None] {
            let mut post = request("POST", "/echo");
            post.headers_mut().insert("expect", "100-continue".parse().unwrap());
            if let Some(length) = length {
                post.headers_mut().insert("content-length", length.parse().unwrap());
            }
            let (mut answer, mut stream) = client.begin(post, false).await.unwrap();
            let interim = timeout(PATIENCE, poll_fn(|context| answer.poll_informational(context))).await;
            assert_eq!(interim.unwrap().unwrap().unwrap().status(), StatusCode::CONTINUE);
            stream.send_data("ok".into(), true).unwrap();
            let reply = whole(answer.await.unwrap()).await.unwrap();
            assert_eq!(reply.status, 200);
            assert!(String::from_utf8(reply.body).unwrap().contains("ok"));
        }
    }
    assert!(!one.last_head().contains("expect"), "{}", one.last_head());
    // A request that is refused is not asked for its body.
    let mut post: Request<()> = request("POST", "/a%00");
    post.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut answer, _stream) = Client2::to(http1.addr).await.begin(post, false).await.unwrap();
    assert!(poll_fn(|context| answer.poll_informational(context)).await.is_none());
    assert_eq!(answer.await.unwrap().status(), 400);
}

#[tokio::test]
async fn an_answer_of_the_proxy_says_whether_the_connection_is_kept() {
    let origin = Origin::start("a").await;
    let fixture = Fixture::with(&[&origin], |_, route| route.spec.path_prefix = "/x".to_owned()).await;
    // As `ab -k` does.
    let mut client = fixture.connect().await;
    for (path, status) in [("/none", 404), ("/x", 200), ("/none", 404)] {
        client.send(format!("GET {path} HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: t\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (status, Some("keep-alive")), "{reply:?}");
    }
    client.send("GET /none HTTP/1.0\r\nHost: t\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (404, Some("close")));
    assert!(client.is_closed().await);
    let mut client = fixture.connect().await;
    for _ in 0..2 {
        let reply = client.get("/none").await;
        assert_eq!((reply.status, reply.header("connection")), (404, None), "HTTP/1.1 need not say it");
    }
    origin.kill();
    for _ in 0..2 {
        client.send("GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: t\r\n\r\n").await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (502, Some("keep-alive")), "{reply:?}");
    }
}

/// Sends a body as a client does that looks for a response only at the end. Returns the response.
async fn send_all(addr: SocketAddr, pieces: usize, pause: Duration) -> Reply {
    let mut client = Client::to(addr).await;
    let piece = vec![b'x'; 64 << 10];
    let length = pieces * piece.len();
    client.send(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n")).await;
    for _ in 0..pieces {
        client.stream.write_all(&piece).await.expect("the proxy takes all of the body");
        tokio::time::sleep(pause).await;
    }
    client.reply().await
}

#[tokio::test]
async fn a_refused_client_may_send_its_whole_body_before_it_reads() {
    let origin = Origin::start("a").await;
    let fixture = Fixture::with(&[&origin], |_, route| route.spec.max_body_bytes = 1 << 20).await;
    let fast = send_all(fixture.addr, 640, Duration::ZERO).await;
    assert_eq!((fast.status, fast.header("connection")), (413, Some("close")));
    // For longer than a client has that only has to close its connection.
    let slow = send_all(fixture.addr, 30, Duration::from_millis(50)).await;
    assert_eq!(slow.status, 413);
}

#[tokio::test]
async fn an_early_answer_of_the_endpoint_is_read_after_the_body() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let endpoint = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
            let _ = stream.write_all(answer).await;
            // Not at once, so that the answer is not lost with what was not read.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let origin = Origin::start("a").await;
    let fixture =
        Fixture::with(&[&origin], |upstream, _| upstream.config.endpoints[0].addr = addr.to_string()).await;
    let reply = send_all(fixture.addr, 320, Duration::ZERO).await;
    assert_eq!((reply.status, reply.body.as_str(), reply.header("connection")), (401, "no", Some("close")));
    endpoint.abort();
}

/// As nginx does, and many servers that refuse: over HTTP/2 an endpoint may answer before it has any of the body.
#[tokio::test]
async fn an_early_answer_of_an_http2_endpoint_says_that_the_connection_is_closed() {
    let origin = Http2Origin::start().await;
    let fixture = before(&[&origin], |_, _| ()).await;
    let post = "POST /early HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n";
    let mut client = fixture.connect().await;
    for _ in 0..2 {
        client.send(format!("{post}body")).await;
        let reply = client.reply().await;
        assert_eq!((reply.body.as_str(), reply.header("connection")), ("early", None), "all of it was sent");
    }
    client.send(post).await;
    let reply = client.reply().await;
    assert_eq!((reply.body.as_str(), reply.header("connection")), ("early", Some("close")));
    client.send("body").await;
    assert!(client.is_closed().await);
}
