//! Requests that arrive late: after their lock was released, or after their client has gone.

use reqwest::StatusCode;
use ringmaster_common::lock::{LockDetail, LockGrant};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, parse, problem},
    eventually,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const TTL: Duration = Duration::from_secs(60);

fn acquire(name: &str, wait: Duration) -> Value {
    json!({ "name": name, "owner": "w", "ttl_ms": TTL.as_millis() as u64, "wait_ms": wait.as_millis() as u64 })
}

async fn post(cluster: &Cluster, node: u64, path: &str, key: &str, body: &Value) -> reqwest::Response {
    let request = cluster.http.post(format!("{}{path}", cluster.node(node).url)).json(body);
    request.header("idempotency-key", key).timeout(SOON).send().await.expect("an answer")
}

async fn release(cluster: &Cluster, node: u64, key: &str, grant: &LockGrant) {
    let body = json!({ "name": grant.name, "owner": grant.owner, "token": grant.token });
    let released = post(cluster, node, "/v1/locks/release", key, &body).await;
    assert_eq!(released.status(), StatusCode::NO_CONTENT);
}

/// Sends the request to the node, and does not wait for the answer.
async fn send(cluster: &Cluster, node: u64, key: &str, body: &Value) -> TcpStream {
    let mut stream =
        TcpStream::connect(("127.0.0.1", cluster.node(node).api_port)).await.expect("it listens");
    let (body, port) = (body.to_string(), cluster.node(node).api_port);
    let request = format!(
        "POST /v1/locks/acquire HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n\
         idempotency-key: {key}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquire_is_not_granted_again_after_its_release() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let other = leader % 3 + 1;
    let body = acquire("job", Duration::ZERO);
    let grant: LockGrant =
        parse(post(&cluster, leader, "/v1/locks/acquire", "K", &body).await).await.unwrap();
    release(&cluster, leader, "R", &grant).await;
    let late = problem(post(&cluster, other, "/v1/locks/acquire", "K", &body).await).await;
    assert_eq!((late.status, late.code.as_str()), (409, "lock_lost"));
    assert!(late.detail.contains("released"), "{}", late.detail);
    release(&cluster, other, "R", &grant).await;
    release(&cluster, other, "R2", &grant).await;
    let next: LockGrant = parse(post(&cluster, other, "/v1/locks/acquire", "K2", &body).await).await.unwrap();
    assert!(next.token > grant.token);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_node_reads_late_holds_no_lock() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (frozen, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    // Two requests are also sent elsewhere, and one was given up by its client.
    let (none, wait) = (Duration::ZERO, Duration::from_secs(20));
    let cases = [("open", none), ("closed", none), ("closed-waiting", wait), ("hung-up", none)];
    cluster.node_mut(frozen).pause();
    let mut late = Vec::new();
    for (name, wait) in cases {
        late.push(send(&cluster, frozen, name, &acquire(name, wait)).await);
    }
    for (name, wait) in &cases[..3] {
        let answer = post(&cluster, other, "/v1/locks/acquire", name, &acquire(name, *wait)).await;
        let grant: LockGrant = parse(answer).await.unwrap();
        release(&cluster, other, &format!("R-{name}"), &grant).await;
    }
    let mut open = late.remove(0);
    drop(late);
    cluster.node_mut(frozen).resume();
    let mut answer = String::new();
    timeout(SOON, open.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("lock_lost"), "{answer}");
    eventually("the node to serve again", SOON, async || {
        cluster.get::<Value>(frozen, "/v1/cluster").await.map(drop)
    })
    .await;
    // Long enough for the frozen node to have read all of it, and shorter than a lease.
    let began = Instant::now();
    for (name, _) in cases {
        let body = acquire(name, TTL / 4);
        let answer = post(&cluster, other, "/v1/locks/acquire", &format!("next-{name}"), &body).await;
        assert_eq!(answer.status(), 200, "{name} after {:?}", began.elapsed());
    }
    assert!(began.elapsed() < TTL / 3, "they waited for {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_promised_to_confirm_and_is_silent_delays_the_next_for_seconds() {
    let cluster = Cluster::start(1).await;
    let grant: LockGrant =
        parse(post(&cluster, 1, "/v1/locks/acquire", "A", &acquire("q", Duration::ZERO)).await)
            .await
            .unwrap();
    let wait = Duration::from_secs(30);
    let mut silent = acquire("q", wait);
    silent["confirm_within_ms"] = json!(1_000);
    let _silent = send(&cluster, 1, "B", &silent).await;
    eventually("the queue", SOON, async || {
        match cluster.get::<LockDetail>(1, "/v1/locks/q").await?.lock.waited_by {
            1 => Ok(()),
            count => Err(format!("{count} wait")),
        }
    })
    .await;
    let began = Instant::now();
    release(&cluster, 1, "R", &grant).await;
    let answer = post(&cluster, 1, "/v1/locks/acquire", "C", &acquire("q", TTL / 3)).await;
    assert_eq!(answer.status(), 200);
    // The silent one would have kept it for its TTL.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500) && took < TTL / 3, "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_says_that_it_sends_a_request_again() {
    let cluster = Cluster::start(1).await;
    let url = format!("{}/v1/settings/team", cluster.node(1).url);
    let put = |key: Option<&str>, resent_after: &str| {
        let request = cluster.http.put(&url).json(&json!({ "value": "blue" }));
        let request = request.header("ringmaster-resent-after", resent_after);
        key.map_or(request.try_clone().unwrap(), |key| request.header("idempotency-key", key)).send()
    };
    assert_eq!(put(Some("K"), "0").await.unwrap().status(), 201, "nothing was forgotten yet");
    assert_eq!(put(Some("K"), "0").await.unwrap().status(), 201, "the first answer");
    for (key, resent_after) in [(None, "0"), (Some("L"), "soon"), (Some("L"), "-1"), (Some("L"), "")] {
        let refused = problem(put(key, resent_after).await.unwrap()).await;
        assert_eq!((refused.status, refused.code.as_str()), (400, "invalid_request"), "{resent_after:?}");
    }
}
