//! Locks from the outside: grants, their order, and clients that disconnect.

use futures::future::join_all;
use reqwest::Method;
use ringmaster_common::{
    action::Action,
    error::Problem,
    lock::{LockDetail, LockFact, LockGrant, LockVerdict},
    operation::OperationStatus,
    page::Page,
};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Program, parse, problem},
    contention::Contention,
    eventually,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A request of a client that turns to the next node when one fails, under one key.
async fn ask(urls: &[String], what: &str, key: &str, body: &Value) -> Result<LockGrant, Box<Problem>> {
    let http = reqwest::Client::builder().timeout(SOON * 4).build().expect("the client needs nothing");
    let deadline = Instant::now() + SOON * 4;
    for url in urls.iter().cycle() {
        assert!(Instant::now() < deadline, "no node answered {what}");
        let request = http.post(format!("{url}/v1/locks/{what}")).header("idempotency-key", key).json(body);
        match request.send().await {
            Ok(response) if response.status().is_success() => {
                return Ok(response.json().await.expect("a grant"));
            }
            Ok(response) if response.status().is_client_error() => {
                return Err(Box::new(response.json().await.expect("a problem")));
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    unreachable!("the nodes are asked for ever")
}

async fn post(cluster: &Cluster, node: u64, what: &str, body: Value) -> reqwest::Response {
    cluster.send(node, Method::POST, &format!("/v1/locks/{what}"), Some(body)).await.expect("an answer")
}

async fn acquire(cluster: &Cluster, node: u64, body: Value) -> LockGrant {
    parse(post(cluster, node, "acquire", body).await).await.expect("it is granted")
}

async fn detail(cluster: &Cluster, node: u64, name: &str) -> LockDetail {
    cluster.get(node, &format!("/v1/locks/{name}")).await.expect("the lock")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_held_waited_for_and_passed_on() {
    let cluster = Cluster::start(3).await;
    let ada = acquire(&cluster, 1, json!({ "name": "jobs/a b☂", "owner": "ada", "ttl_ms": 30_000 })).await;
    let name = "jobs%2Fa%20b%E2%98%82";
    let held = problem(
        post(&cluster, 2, "acquire", json!({ "name": "jobs/a b☂", "owner": "bob", "ttl_ms": 30_000 })).await,
    )
    .await;
    assert_eq!(held.code, "lock_held");
    assert_eq!(held.holder.expect("its holder").token, ada.token);

    let waiting = acquire(
        &cluster,
        3,
        json!({ "name": "jobs/a b☂", "owner": "bob", "ttl_ms": 30_000, "wait_ms": 30_000, "meta": { "why": "a test" } }),
    );
    let passing = async {
        eventually("bob to wait", SOON, async || {
            let lock = detail(&cluster, 2, name).await.lock;
            let waiter = lock.waiters.first().ok_or("no client waits")?;
            assert_eq!((waiter.owner.as_str(), waiter.meta["why"].as_str()), ("bob", "a test"));
            assert_eq!(waiter.node.expect("his node").0, 3);
            Ok(())
        })
        .await;
        let release = json!({ "name": "jobs/a b☂", "owner": "ada", "token": ada.token });
        assert_eq!(post(&cluster, 2, "release", release.clone()).await.status(), 204);
        // Said again, it is no error: it may be that the first answer was lost.
        assert_eq!(post(&cluster, 1, "release", release).await.status(), 204);
        Instant::now()
    };
    let (bob, released) = tokio::join!(waiting, passing);
    println!("from the release to the next holder's answer: {:?}", released.elapsed());
    assert!(bob.token > ada.token);
    let verify = async |token: u64| -> LockVerdict {
        parse(post(&cluster, 2, "verify", json!({ "name": "jobs/a b☂", "token": token })).await)
            .await
            .expect("a verdict")
    };
    assert!(!verify(ada.token.0).await.valid);
    let verdict = verify(bob.token.0).await;
    assert_eq!((verdict.valid, verdict.fence), (true, bob.token));
    let history: Vec<_> = detail(&cluster, 1, name)
        .await
        .history
        .iter()
        .map(|record| (record.what, record.owner.clone()))
        .collect();
    let expected = [
        (LockFact::Granted, "ada"),
        (LockFact::Queued, "bob"),
        (LockFact::Released, "ada"),
        (LockFact::Granted, "bob"),
    ];
    assert_eq!(history, expected.map(|(what, owner)| (what, owner.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_change_nothing() {
    let cluster = Cluster::start(1).await;
    let base = json!({ "name": "l", "owner": "ada", "ttl_ms": 1000 });
    let with = |field: &str, value: Value| {
        let mut body = base.clone();
        body[field] = value;
        body
    };
    let week = 7 * 24 * 60 * 60 * 1000_u64;
    let cases = [
        ("acquire", with("ttl_ms", json!(0)), "invalid_request"),
        ("acquire", with("ttl_ms", json!(52 * week)), "invalid_request"),
        ("acquire", with("ttl_ms", json!(-1)), "invalid_request"),
        ("acquire", with("wait_ms", json!(week)), "invalid_request"),
        ("acquire", with("name", json!("")), "invalid_request"),
        ("acquire", with("name", json!("n".repeat(1 << 12))), "invalid_request"),
        ("acquire", with("name", json!("n".repeat(1 << 20))), "body_too_large"),
        ("acquire", with("name", json!("a\u{0}b")), "invalid_request"),
        ("acquire", with("owner", json!("")), "invalid_request"),
        ("acquire", with("limit", json!(0)), "invalid_request"),
        ("acquire", with("mode", json!("sideways")), "invalid_request"),
        ("acquire", with("meta", json!({ "why": "y".repeat(2000) })), "invalid_request"),
        ("acquire", with("colour", json!("red")), "invalid_request"),
        ("renew", json!({ "name": "l", "owner": "ada", "token": 1, "ttl_ms": 1000 }), "lock_lost"),
        ("release", json!({ "name": "l", "owner": "ada", "token": 1 }), "lock_lost"),
        ("verify", json!({ "name": "", "token": 1 }), "invalid_request"),
    ];
    for (what, body, code) in cases {
        let answer = problem(post(&cluster, 1, what, body).await).await;
        assert_eq!(answer.code, code, "{what}: {}", answer.detail);
    }
    let locks: Page<Value> = cluster.get(1, "/v1/locks").await.expect("the locks");
    assert_eq!(locks.items, Vec::<Value>::new());
    let unknown = cluster.send(1, Method::GET, "/v1/locks/l", None).await.expect("an answer");
    assert_eq!(problem(unknown).await.code, "unknown_lock");

    // A name may be in any script, and another's token is no use.
    let grant = acquire(&cluster, 1, with("name", json!("🎪/ring"))).await;
    let foreign = json!({ "name": "🎪/ring", "owner": "bob", "token": grant.token });
    let answer = problem(post(&cluster, 1, "release", foreign).await).await;
    assert_eq!(answer.code, "lock_lost");
    assert!(answer.detail.contains("belongs to ada"), "{}", answer.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_delays_no_other() {
    let cluster = Cluster::start(3).await;
    let ada = acquire(&cluster, 1, json!({ "name": "l", "owner": "ada", "ttl_ms": 60_000 })).await;
    let gone = tokio::time::timeout(
        Duration::from_millis(500),
        acquire(&cluster, 2, json!({ "name": "l", "owner": "gone", "ttl_ms": 60_000, "wait_ms": 60_000 })),
    );
    assert!(gone.await.is_err(), "no node grants it");
    eventually("the queue to be empty", SOON, async || match detail(&cluster, 3, "l").await.lock.waited_by {
        0 => Ok(()),
        waiting => Err(format!("{waiting} wait")),
    })
    .await;
    // A wait that passes says who holds it.
    let body = json!({ "name": "l", "owner": "bob", "ttl_ms": 60_000, "wait_ms": 300 });
    let passed = problem(post(&cluster, 2, "acquire", body).await).await;
    assert_eq!((passed.code.as_str(), passed.holder.expect("its holder").token), ("lock_held", ada.token));
}

/// A hundred wait, and the leader is killed: each gets it, in the order of the queue.
#[tokio::test(flavor = "multi_thread")]
async fn the_queue_outlives_the_leader_and_a_node_with_clients() {
    const WAITING: usize = 100;
    let mut cluster = Cluster::start(3).await;
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url.clone()).collect();
    let first = acquire(&cluster, 1, json!({ "name": "l", "owner": "first", "ttl_ms": 120_000 })).await;
    let mut waiters = Vec::new();
    for number in 0..WAITING {
        let mine: Vec<String> = urls.iter().cycle().skip(number % 3).take(3).cloned().collect();
        waiters.push(tokio::spawn(async move {
            let owner = format!("w{number}");
            let body = json!({ "name": "l", "owner": owner, "ttl_ms": 60_000, "wait_ms": 100_000 });
            let grant = ask(&mine, "acquire", &format!("key-{number}"), &body).await.expect("it is granted");
            let at = Instant::now();
            let release = json!({ "name": "l", "owner": owner, "token": grant.token });
            let client = reqwest::Client::new();
            for url in mine.iter().cycle().take(60) {
                let sent = client.post(format!("{url}/v1/locks/release")).json(&release).send().await;
                if sent.is_ok_and(|response| response.status().is_success()) {
                    return (number, grant.token, at);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("{owner} could not release");
        }));
        // The order of the queue is the order of this loop.
        let mut queued = 0;
        eventually("the waiter to be in the queue", SOON, async || {
            queued = detail(&cluster, 1, "l").await.lock.waited_by;
            if queued == number as u64 + 1 { Ok(()) } else { Err(format!("{queued} wait")) }
        })
        .await;
    }
    let leader = cluster.leader().await;
    cluster.node_mut(leader).kill();
    let survivor = cluster.living();
    cluster.leader_of(survivor).await;
    let release = json!({ "name": "l", "owner": "first", "token": first.token });
    ask_released(&cluster, survivor, release).await;

    let mut granted: Vec<_> =
        join_all(waiters).await.into_iter().map(|done| done.expect("it was granted")).collect();
    granted.sort_by_key(|(_, token, _)| *token);
    let order: Vec<usize> = granted.iter().map(|(number, ..)| *number).collect();
    assert_eq!(order, (0..WAITING).collect::<Vec<_>>(), "in the order of the queue");
    let mut tokens: Vec<_> = granted.iter().map(|(_, token, _)| *token).collect();
    tokens.dedup();
    assert_eq!(tokens.len(), WAITING, "no lock was granted twice");
    println!("{WAITING} grants in {:?}", granted[WAITING - 1].2 - granted[0].2);
    assert_eq!(detail(&cluster, survivor, "l").await.lock.held_by, 0);
}

async fn ask_released(cluster: &Cluster, node: u64, body: Value) {
    eventually("the release to be taken", SOON, async || {
        let status = post(cluster, node, "release", body.clone()).await.status();
        if status.is_success() { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_release_is_a_plan_like_any_other() {
    let cluster = Cluster::start(3).await;
    let ada = acquire(&cluster, 1, json!({ "name": "deploy", "owner": "ada", "ttl_ms": 60_000 })).await;
    let waiting = async {
        acquire(&cluster, 2, json!({ "name": "deploy", "owner": "bob", "ttl_ms": 60_000, "wait_ms": 60_000 }))
            .await
    };
    let forcing = async {
        eventually("bob to wait", SOON, async || match detail(&cluster, 3, "deploy").await.lock.waited_by {
            1 => Ok(()),
            waiting => Err(format!("{waiting} wait")),
        })
        .await;
        let action = Action::ReleaseLock { name: "deploy".to_owned(), token: None };
        let plan = cluster.plan(3, &action).await.expect("a plan");
        let impact = plan.impact.lock.clone().expect("what becomes of the lock");
        assert_eq!(impact.holders[0].owner, "ada");
        assert_eq!(impact.promoted[0].owner, "bob");
        assert!(impact.next_token > ada.token);
        let operation = cluster.apply(3, &plan).await.expect("an operation");
        assert_eq!(cluster.outcome(3, &operation).await.status, OperationStatus::Succeeded);
        // Its plan is stale once another client holds it.
        let again = cluster.plan(3, &action).await.expect("a plan");
        let holder = detail(&cluster, 1, "deploy").await.lock.holders[0].clone();
        ask_released(&cluster, 1, json!({ "name": "deploy", "owner": "bob", "token": holder.token })).await;
        let refused = cluster.apply(3, &again).await.expect_err("it is stale");
        assert!(refused.contains("plan_stale") && refused.contains("lock/deploy"), "{refused}");
    };
    let (bob, ()) = tokio::join!(waiting, forcing);
    assert!(bob.token > ada.token);
    let renew = json!({ "name": "deploy", "owner": "ada", "token": ada.token, "ttl_ms": 1000 });
    let lost = problem(post(&cluster, 2, "renew", renew).await).await;
    assert_eq!(lost.code, "lock_lost");
    assert!(lost.detail.contains("forced"), "{}", lost.detail);
}

fn contention() -> Contention {
    Contention {
        contenders: 16,
        locks: 4,
        ttl: Duration::from_millis(250),
        pauses: 60,
        strike_every: Some(12),
        clock_jumps: true,
        unchecked_resource: false,
        fast_clocks: false,
    }
}

/// The short form of `ringmaster-bench locks`.
#[tokio::test(flavor = "multi_thread")]
async fn no_lock_has_two_holders_and_stale_writes_are_refused() {
    let outcome = contention().run(Program::default()).await;
    println!("{outcome:#?}");
    assert!(outcome.findings.is_clean(), "{:#?}", outcome.findings);
    assert!(
        outcome.pauses >= 60 && outcome.kills >= 2 && outcome.leader_pauses >= 1 && outcome.jumps >= 3,
        "{outcome:?}"
    );
    assert!(
        outcome.grants > 100 && outcome.refused_writes > 0,
        "the holders that were paused wrote late: {outcome:?}"
    );
}

/// The same, with a resource that looks at no token: the check is what finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_checks_nothing_is_found_out() {
    let planted =
        Contention { unchecked_resource: true, strike_every: None, clock_jumps: false, ..contention() };
    let outcome = planted.run(Program::default()).await;
    assert!(!outcome.findings.stale_writes.is_empty(), "{outcome:?}");
    assert_eq!(outcome.findings.overlaps, Vec::<String>::new());
}

/// The same, with leases that end a fifth too early.
#[tokio::test(flavor = "multi_thread")]
async fn leases_that_end_early_are_found_out() {
    // Long enough for a fifth of it to be more than a few answers take.
    let ttl = Duration::from_secs(1);
    let planted = Contention {
        fast_clocks: true,
        ttl,
        pauses: 16,
        strike_every: None,
        clock_jumps: false,
        ..contention()
    };
    let outcome = planted.run(Program::default()).await;
    assert!(!outcome.findings.overlaps.is_empty(), "{outcome:?}");
}
