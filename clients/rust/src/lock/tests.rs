use super::*;
use crate::{
    Address,
    fake::{problem, serve},
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use ringmaster_common::error::Code;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    time::{sleep, timeout},
};

const TTL: Duration = Duration::from_millis(600);

/// What a node was asked for, and how it answers.
#[derive(Clone, Debug, Default)]
struct Node {
    asked: Arc<Mutex<Vec<(String, String, Value)>>>,
    renewals: Arc<Mutex<Renewals>>,
    /// How long the lock is waited for.
    wait: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Renewals {
    #[default]
    Granted,
    GrantedAfter(Duration),
    Refused,
    Unanswered,
}

impl Node {
    async fn start(&self) -> Address {
        serve(
            Router::new()
                .route("/v1/cluster", get(cluster))
                .route("/livez", get(|| async { "ok" }))
                .route("/v1/locks/{what}", post(answer))
                .with_state(self.clone()),
        )
        .await
    }

    fn renewals(&self, how: Renewals) {
        *self.renewals.lock().unwrap() = how;
    }

    /// The requests of one kind: their keys and bodies.
    fn asked(&self, what: &str) -> Vec<(String, Value)> {
        let asked = self.asked.lock().unwrap();
        let of_kind = asked.iter().filter(|(path, ..)| path.ends_with(what));
        of_kind.map(|(_, key, body)| (key.clone(), body.clone())).collect()
    }

    async fn until_asked(&self, what: &str, count: usize) {
        timeout(Duration::from_secs(10), async {
            while self.asked(what).len() < count {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("waited for {count} × {what}; there were {:?}", self.asked));
    }
}

async fn cluster() -> Json<Value> {
    Json(json!({
        "name": "fake", "id": "c1", "incarnation": 1, "feature_level": 1, "revision": 1, "term": 1, "leader": 1,
        "answered_by": 1, "demo": false,
        "quorum": { "has": true, "voters": 1, "answering": 1, "needed": 1 }, "failures_tolerated": 0, "next_id": 2, "nodes": []
    }))
}

async fn answer(State(node): State<Node>, uri: Uri, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let what = uri.path().rsplit('/').next().unwrap().to_owned();
    node.asked.lock().unwrap().push((what.clone(), key, body.clone()));
    let how = *node.renewals.lock().unwrap();
    match (what.as_str(), how) {
        ("acquire", _) => sleep(node.wait).await,
        ("release", _) => return axum::http::StatusCode::NO_CONTENT.into_response(),
        (_, Renewals::Granted) => {}
        (_, Renewals::GrantedAfter(delay)) => sleep(delay).await,
        (_, Renewals::Refused) => return problem(Code::LockLost, "token 7 does not hold x"),
        (_, Renewals::Unanswered) => std::future::pending().await,
    }
    // A grant waits for its confirmation, a renewal is one.
    let expires_in_ms = body.get("confirm_within_ms").unwrap_or(&body["ttl_ms"]);
    Json(json!({
        "name": body["name"], "token": 7, "owner": body["owner"], "mode": "exclusive",
        "expires_in_ms": expires_in_ms, "depth": 1
    }))
    .into_response()
}

async fn acquired(node: &Node) -> LockGuard {
    let client = Client::new([node.start().await]);
    client.lock("x").owner("me").ttl(TTL).acquire().await.unwrap()
}

#[tokio::test]
async fn a_guard_renews_in_time_and_releases() {
    let node = Node::default();
    let guard = acquired(&node).await;
    assert_eq!((guard.token().0, guard.name(), guard.owner()), (7, "x", "me"));
    node.until_asked("renew", 3).await;
    assert!(guard.is_valid() && guard.valid_for() <= TTL);
    let renewals = node.asked("renew");
    assert_ne!(renewals[0].0, renewals[1].0, "each is a request of its own");
    assert_eq!(renewals[0].1, json!({"name": "x", "owner": "me", "token": 7, "ttl_ms": 600}));
    guard.release().await.unwrap();
    assert_eq!(node.asked("release").len(), 1);
    assert_eq!(node.asked("release")[0].1, json!({"name": "x", "owner": "me", "token": 7}));
}

#[tokio::test]
async fn a_dropped_guard_releases() {
    let node = Node::default();
    drop(acquired(&node).await);
    node.until_asked("release", 1).await;
    assert_eq!(node.asked("renew").len(), 0);
}

#[tokio::test]
async fn every_option_of_a_request_is_sent() {
    let node = Node::default();
    let client = Client::new([node.start().await]);
    let guard = client.lock("x").owner("me").limit(3).meta("why", "a test").acquire().await.unwrap();
    let shared = client.lock("x").owner("me").shared().acquire().await.unwrap();
    let bodies: Vec<_> = node.asked("acquire").into_iter().map(|(_, body)| body).collect();
    let common = json!({"name": "x", "owner": "me", "ttl_ms": 10_000, "wait_ms": 0});
    let with = |more: Value| {
        let mut body = common.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    assert_eq!(
        bodies,
        [with(json!({"limit": 3, "meta": {"why": "a test"}})), with(json!({"mode": "shared"}))]
    );
    drop((guard, shared));
}

/// The lease is counted from before the request was sent, however late the answer comes.
#[tokio::test]
async fn a_lease_is_counted_from_before_the_request() {
    let node = Node::default();
    let delay = Duration::from_millis(80);
    node.renewals(Renewals::GrantedAfter(delay));
    let guard = acquired(&node).await;
    let mut valid_for = guard.valid_for();
    // The longest that it is ever valid for is right after a renewal.
    let until = Instant::now() + 2 * TTL;
    while Instant::now() < until {
        sleep(Duration::from_millis(2)).await;
        let now = guard.valid_for();
        if now > valid_for {
            assert!(now <= TTL - delay, "valid for {now:?} after an answer that took {delay:?}");
        }
        valid_for = now;
    }
    assert!(guard.is_valid());
}

#[tokio::test]
async fn after_a_wait_the_lease_is_renewed_at_once() {
    let node = Node { wait: TTL, ..Node::default() };
    let client = Client::new([node.start().await]);
    let lock = client.lock("x").owner("me").ttl(TTL).wait(10 * TTL);
    let guard = lock.acquire().await.unwrap();
    assert_eq!(node.asked("renew").len(), 1, "counted from before the acquire, nothing is left of it");
    assert!(guard.valid_for() > TTL / 2);
}

#[tokio::test]
async fn after_a_wait_the_grant_is_confirmed_before_the_lock_is_returned() {
    let node = Node::default();
    let client = Client::new([node.start().await]);
    let lock = client.lock("x").owner("me").ttl(100 * TTL).wait(TTL);
    let guard = lock.acquire().await.unwrap();
    assert_eq!(node.asked("acquire")[0].1["confirm_within_ms"], 5_000);
    assert_eq!(node.asked("renew").len(), 1);
    assert!(guard.valid_for() > 50 * TTL);
}

#[tokio::test]
async fn a_wait_that_is_dropped_is_withdrawn() {
    let node = Node { wait: TTL, ..Node::default() };
    let client = Client::new([node.start().await]);
    let waiting = client.lock("x").owner("me").ttl(TTL).wait(10 * TTL).acquire();
    timeout(TTL / 2, waiting).await.expect_err("it waits");
    node.until_asked("acquire", 2).await;
    let asked = node.asked("acquire");
    assert_eq!(asked[0].0, asked[1].0, "the same request");
    assert_eq!(asked[1].1["wait_ms"], 0);
    node.until_asked("release", 1).await;
}

#[tokio::test]
async fn a_wait_that_ends_with_a_lost_lock_is_no_lock() {
    let node = Node { wait: TTL, ..Node::default() };
    node.renewals(Renewals::Refused);
    let client = Client::new([node.start().await]);
    let error = client.lock("x").ttl(TTL).wait(10 * TTL).acquire().await.unwrap_err();
    assert!(matches!(&error, LockError::Lost(LockLoss::Revoked(_))), "{error}");
}

#[tokio::test]
async fn a_revoked_lock_is_lost_and_stays_lost() {
    let node = Node::default();
    let guard = acquired(&node).await;
    node.renewals(Renewals::Refused);
    let loss = timeout(2 * TTL, guard.lost()).await.unwrap();
    assert!(matches!(&loss, LockLoss::Revoked(why) if why.contains("does not hold")), "{loss}");
    assert!(!guard.is_valid());
    node.renewals(Renewals::Granted);
    sleep(TTL).await;
    assert!(!guard.is_valid());
    let error = guard.release().await.unwrap_err();
    assert!(matches!(error, LockError::Lost(_)), "{error}");
    assert_eq!(node.asked("release").len(), 0, "there is nothing to release");
}

#[tokio::test]
async fn a_lease_without_renewals_expires() {
    let node = Node::default();
    let guard = acquired(&node).await;
    let began = Instant::now();
    node.renewals(Renewals::Unanswered);
    let loss = timeout(4 * TTL, guard.lost()).await.unwrap();
    assert!(matches!(&loss, LockLoss::Expired(_)), "{loss}");
    assert!(began.elapsed() <= TTL + MIN_ATTEMPT_TIMEOUT, "lost only after {:?}", began.elapsed());
    let attempts = node.asked("renew");
    assert!(attempts.len() > 1, "it was tried once alone");
    assert!(guard.release().await.is_err());
    assert_eq!(node.asked("release").len(), 1, "others need not wait for the end of the lease");
}

/// Accepts one request, and dies.
async fn mortal() -> (Address, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let request = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"}") {
            socket.read_buf(&mut text).await.unwrap();
        }
        String::from_utf8(text).unwrap()
    });
    (address, request)
}

#[tokio::test]
async fn a_wait_continues_at_the_next_node_with_the_same_key() {
    let node = Node::default();
    let (dying, request) = mortal().await;
    let client = Client::new([node.start().await]);
    client.discover().await.unwrap();
    client.prefer(&dying);
    let guard = client.lock("x").owner("me").wait(Duration::from_secs(30)).acquire().await.unwrap();
    let first = request.await.unwrap();
    let (key, body) = node.asked("acquire").remove(0);
    assert!(first.contains(&format!("idempotency-key: {key}")), "{first}");
    assert!(body["wait_ms"].as_u64().unwrap() <= 30_000, "{body}");
    assert_eq!(client.addresses().len(), 2);
    drop(guard);
}

/// A node that is paused keeps its connections, and answers nothing.
#[tokio::test]
async fn a_wait_moves_away_from_a_node_that_stops_answering() {
    let node = Node::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent: Address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let client = Client::new([node.start().await]);
    client.discover().await.unwrap();
    client.prefer(&silent);
    let waiting = client.lock("x").wait(Duration::from_secs(60)).acquire();
    let deadline = crate::PROBE_INTERVAL + crate::PROBE_TIMEOUT + Duration::from_secs(2);
    let guard = timeout(deadline, waiting).await.expect("the next node is asked").unwrap();
    assert_eq!(client.addresses().last(), Some(&silent));
    drop((guard, listener));
}

#[tokio::test]
async fn one_address_is_enough_to_know_the_others() {
    let other = Node::default();
    let url = other.start().await.to_string();
    let body = move || async move {
        let Json(mut body) = cluster().await;
        body["nodes"] = json!([{
            "id": 2, "name": "owl", "zone": "a", "weight": 1, "api_addr": "", "peer_addr": "", "public_url": url,
            "status": "up", "status_reason": "", "status_since": "2026-01-01T00:00:00Z", "status_revision": 1,
            "voter": true, "opinions": [], "role": "follower", "lag": 0, "rtt_us": null, "age_ms": 1, "links": [],
            "can_lose": { "answer": true, "reason": "" }
        }]);
        Json(body)
    };
    let poor = || async { problem(Code::NoLeader, "there is none") };
    let router = Router::new().route("/v1/cluster", get(body)).route("/v1/locks/acquire", post(poor));
    let client = Client::new([serve(router).await]);
    let guard = client.lock("x").acquire().await.unwrap();
    assert_eq!(other.asked("acquire").len(), 1);
    drop(guard);
}

#[tokio::test]
async fn an_unreachable_cluster_is_reported_at_once() {
    let client = Client::new([crate::fake::unused_address().await]);
    let waiting = client.lock("x").wait(Duration::from_secs(60)).acquire();
    let error = timeout(Duration::from_secs(3), waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, LockError::Client(crate::ClientError::Unreachable(_))), "{error}");
}
