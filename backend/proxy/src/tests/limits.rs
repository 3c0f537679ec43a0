//! What is refused, and what takes too long.

use super::*;

async fn answer_to(fixture: &Fixture, text: &str) -> (Reply, bool) {
    let mut client = fixture.connect().await;
    client.send(text).await;
    let reply = client.reply().await;
    let closed = client.is_closed().await;
    (reply, closed)
}

#[tokio::test]
async fn nothing_is_smuggled() {
    let a = Origin::start("a").await;
    let fixture = Fixture::new(&[&a]).await;
    let smuggled = "GET /admin HTTP/1.1\r\nHost: t\r\n\r\n";
    for text in [
        format!(
            "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nContent-Length: 33\r\n\r\n{smuggled}"),
        format!("POST / HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("GET / HTTP/1.1\r\nHost: t\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n{smuggled}"),
        format!("GET /a/..%2f..%2fadmin HTTP/1.1\r\nHost: t\r\n\r\n{smuggled}"),
        format!("GET /?a\u{7f}b HTTP/1.1\r\nHost: t\r\n\r\n{smuggled}"),
        format!("GET ftp://x/ HTTP/1.1\r\nHost: t\r\n\r\n{smuggled}"),
    ] {
        let mut client = fixture.connect().await;
        client.send(&text).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (400, Some("close")), "{text:?}");
        assert!(reply.body.contains("\"code\":\"invalid_request\""));
        assert!(client.is_closed().await, "what comes behind it is no request: {text:?}");
    }
    assert_eq!(a.requests(), 0);
    // A malformed chunk comes to light halfway.
    let text =
        format!("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n{smuggled}");
    let (reply, closed) = answer_to(&fixture, &text).await;
    assert!(reply.status == 400 && closed, "{reply:?}");
    assert_eq!(a.requests(), 0, "the endpoint has not seen the end of it");
}

#[tokio::test]
async fn heads_have_a_bound() {
    let a = Origin::start("a").await;
    let fixture = Fixture::new(&[&a]).await;
    let long = format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nHost: t\r\n{}\r\n", "X: y\r\n".repeat(200));
    for text in [long, many] {
        let (reply, _) = answer_to(&fixture, &text).await;
        assert_eq!(reply.status, 431);
    }
    assert_eq!(
        answer_to(&fixture, "CONNECT t:1 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await.0.status,
        405
    );
    assert_eq!(a.requests(), 0);
}

#[tokio::test]
async fn bodies_have_the_bound_of_their_route() {
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |_, route| route.spec.max_body_bytes = 10).await;
    let (reply, closed) =
        answer_to(&fixture, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 11\r\n\r\n").await;
    assert!(reply.status == 413 && closed, "{reply:?}");
    assert_eq!(a.requests(), 0);
    let chunked =
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n\r\n";
    assert_eq!(answer_to(&fixture, chunked).await.0.status, 413);
    let mut client = fixture.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n1234567890").await;
    assert_eq!(client.reply().await.body, "1234567890");
}

#[tokio::test]
async fn the_rate_limit_of_a_route_holds() {
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |_, route| route.spec.rate_limit_per_s = Some(20)).await;
    let mut client = fixture.connect().await;
    let mut statuses = Vec::new();
    for _ in 0..40 {
        let reply = client.get("/x").await;
        statuses.push(reply.status);
        assert!(reply.status == 200 || reply.body.contains("\"code\":\"rate_limited\""), "{reply:?}");
    }
    assert!(statuses[..20] == [200; 20] && statuses.contains(&429), "{statuses:?}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.get("/x").await.status, 200);
}

#[tokio::test]
async fn the_response_timeout_of_an_endpoint_holds() {
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |upstream, _| upstream.config.timeouts.response_ms = 500).await;
    let mut client = fixture.connect().await;
    let reply = client.get("/slow/5000").await;
    assert_eq!(reply.status, 504);
    assert!(reply.body.contains("\"code\":\"gateway_timeout\""), "{reply:?}");
    assert_eq!(a.requests(), 1, "it is not asked again: it may still be at it");
    assert_eq!(client.get("/x").await.status, 200);
}

#[tokio::test]
async fn a_body_that_stalls_times_out() {
    let a = Origin::start("a").await;
    let fixture = Fixture::with(&[&a], |upstream, _| upstream.config.timeouts.idle_ms = 100).await;
    let (reply, closed) =
        answer_to(&fixture, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nab").await;
    assert!(reply.status == 408 && closed, "{reply:?}");
}

#[tokio::test]
async fn an_unreachable_endpoint_is_named() {
    let a = Origin::start("a").await;
    let gone = free_addr();
    let fixture =
        Fixture::with(&[&a], |upstream, _| upstream.config.endpoints[0].addr = gone.to_string()).await;
    let reply = fixture.get("/x").await;
    assert_eq!(reply.status, 502);
    assert!(reply.body.contains("endpoint a: no connection"), "{reply:?}");
    let metadata = Fixture::with(&[&a], |upstream, _| {
        upstream.config.endpoints[0].addr = "169.254.169.254:80".to_owned()
    })
    .await;
    let reply = metadata.get("/x").await;
    assert!(reply.status == 502 && reply.body.contains("link-local"), "{reply:?}");
}
