//! The doors of a node stay open: to probes that name any host, to operators while others hold every connection, and never
//! for ever to those that say nothing.

use ringmaster_common::error::Problem;
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Host, Program},
    eventually,
};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.expect("it listens")
}

/// The answer to a request that is sent as it stands here, until the connection is closed.
async fn answer_to(port: u16, request: &str) -> String {
    let mut stream = connect(port).await;
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .expect("the connection is closed")
        .expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_under_any_host_and_all_else_under_its_own() {
    let cluster = Cluster::start(1).await;
    let port = cluster.node(1).api_port;
    let status = async |path: &str, head: &str| {
        let answer = answer_to(port, &format!("GET {path} HTTP/1.0\r\n{head}\r\n")).await;
        answer.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    let anyones = ["", "Host:\r\n", "Host: node1:9\r\n", "Host: ringmaster\r\n", "Host: EVIL.example:80\r\n"];
    for path in ["/livez", "/readyz", "/metrics"] {
        for head in anyones {
            assert_eq!(status(path, head).await, "200", "{path} {head:?}");
        }
    }
    let own = [
        String::new(),
        "Host:\r\n".to_owned(),
        format!("Host: LOCALHOST:{port}\r\n"),
        format!("Host: localhost.:{port}\r\n"),
        format!("Host: 127.0.0.1:{port}\r\n"),
        format!("Host: [::1]:{port}\r\n"),
        format!("Host: LocalHost:{port}\r\nOrigin: http://localhost:{port}\r\n"),
    ];
    for head in &own {
        assert_eq!(status("/v1/cluster", head).await, "200", "{head:?}");
    }
    let foreign = [
        "Host: evil.example\r\n".to_owned(),
        "Host: localhost\r\n".to_owned(),
        "Origin: http://evil.example\r\n".to_owned(),
        format!("Host: evil.example:{port}\r\nOrigin: http://evil.example:{port}\r\n"),
        format!("Host: localhost:{port}\r\nOrigin: http://evil.example\r\n"),
    ];
    for head in &foreign {
        assert_eq!(status("/v1/cluster", head).await, "403", "{head:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_few_connections_waiters_and_silence_leave_some_for_operators() {
    let mut cluster = Cluster::empty(Program::default());
    let node = cluster.add_on(&Host::default());
    node.enter = ["prlimit", "--nofile=1024:1024"].map(str::to_owned).to_vec();
    node.start();
    cluster.wait_formed(1).await;
    let (port, url) = (cluster.node(1).api_port, cluster.node(1).url.clone());
    let acquire = |owner: u64, wait_ms: u64| {
        let body =
            json!({ "name": "held", "owner": format!("w{owner}"), "ttl_ms": 60_000, "wait_ms": wait_ms });
        cluster.http.post(format!("{url}/v1/locks/acquire")).json(&body)
    };
    assert_eq!(acquire(0, 0).send().await.expect("an answer").status(), 200);

    // More waiters than there are connections: some wait, the others are refused at once.
    let mut waiting = Vec::new();
    for owner in 1..=250 {
        let request = acquire(owner, 600_000).timeout(Duration::from_secs(120));
        waiting.push(tokio::spawn(async move { request.send().await }));
    }
    let refused = eventually("the others to be refused", SOON, async || {
        let refused = waiting.iter().filter(|waiting| waiting.is_finished()).count();
        if refused >= 250 - 192 { Ok(refused) } else { Err(format!("{refused} are refused")) }
    })
    .await;
    assert!(refused < 250, "some wait");
    // All other connections are taken, and say nothing.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(connect(port).await);
    }
    for path in ["/livez", "/readyz", "/metrics", "/v1/cluster"] {
        let began = Instant::now();
        let answer = answer_to(port, &format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(began.elapsed() < Duration::from_secs(20), "{path} took {:?}", began.elapsed());
    }
    for waiting in waiting.into_iter().filter(tokio::task::JoinHandle::is_finished) {
        let refused = waiting.await.expect("it ends").expect("an answer");
        let problem: Problem = refused.json().await.expect("a problem");
        assert_eq!((problem.status, problem.code.as_str()), (429, "overloaded"), "{}", problem.detail);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_for_a_lock_is_short_and_arrives_in_time() {
    let cluster = Cluster::start(1).await;
    let port = cluster.node(1).api_port;
    let head = |path: &str, length: usize, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\
             content-type: application/json\r\n{more}content-length: {length}\r\n\r\n"
        )
    };
    for path in ["/v1/locks/acquire", "/v1/locks/renew", "/v1/locks/release", "/v1/locks/verify"] {
        for more in ["", "idempotency-key: K\r\n"] {
            let request = head(path, 20_000, more) + &"x".repeat(20_000);
            let answer = answer_to(port, &request).await;
            assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("16384"), "{path}: {answer}");
        }
    }
    // All at once: a body that is announced and never sent, to be read or to be thrown away.
    let began = Instant::now();
    let mut silent = Vec::new();
    for path in ["/v1/locks/acquire", "/v1/locks/renew", "/v1/settings/x", "/v1/traffic/import", "/livez"] {
        for (length, more) in [(100, ""), (2 << 20, ""), (100, "idempotency-key: K\r\n")] {
            let request = head(path, length, more);
            silent.push(tokio::spawn(async move { (request.clone(), answer_to(port, &request).await) }));
        }
    }
    for silent in silent {
        let (request, answer) = silent.await.expect("it ends");
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        assert!(["405", "408", "413"].contains(&status), "{request}: {answer}");
    }
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
}
