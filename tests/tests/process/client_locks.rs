//! Locks through the Rust client, while nodes die, pause and come back.

use ringmaster_client::{Client, LockError, LockGuard, LockLoss};
use ringmaster_common::{action::Action, error::Code, id::Token, lock::LockDetail};
use ringmaster_tests::{SOON, cluster::Cluster, eventually};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// A client that knows one node, and finds the others automatically.
fn client(cluster: &Cluster, node: u64) -> Client {
    Client::new([cluster.node(node).url.parse().expect("an address")])
}

async fn acquire(
    client: &Client,
    owner: &str,
    ttl: Duration,
    wait: Duration,
) -> Result<LockGuard, LockError> {
    client.lock("jobs/nightly").owner(owner).ttl(ttl).wait(wait).acquire().await
}

/// Waits until so many queue for the lock.
async fn until_waiting(cluster: &Cluster, node: u64, count: u64) {
    eventually("the queue", SOON, async || {
        let lock: LockDetail = cluster.get(node, "/v1/locks/jobs%2Fnightly").await?;
        if lock.lock.waited_by == count { Ok(()) } else { Err(format!("{lock:?}")) }
    })
    .await;
}

/// Takes the lock away from its holder, as an operator does.
async fn take_away(cluster: &Cluster, node: u64) {
    let action = Action::ReleaseLock { name: "jobs/nightly".to_owned(), token: None };
    let plan = cluster.plan(node, &action).await.expect("the lock is held");
    let operation = cluster.apply(node, &plan).await.expect("nothing has changed");
    cluster.outcome(node, &operation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_holds_for_much_longer_than_its_ttl() {
    const TTL: Duration = Duration::from_secs(1);
    let cluster = Cluster::start(3).await;
    let (one, two) = (client(&cluster, 1), client(&cluster, 2));
    let guard = acquire(&one, "one", TTL, Duration::ZERO).await.expect("it is free");
    let until = Instant::now() + 4 * TTL;
    while Instant::now() < until {
        let error = acquire(&two, "two", TTL, Duration::ZERO).await.expect_err("it is held");
        assert!(error.is(Code::LockHeld) && error.to_string().contains("one"), "{error}");
        assert!(guard.is_valid() && guard.valid_for() <= TTL);
        sleep(TTL / 4).await;
    }
    let first = guard.token();
    guard.release().await.expect("it is held");
    let guard = acquire(&two, "two", TTL, Duration::ZERO).await.expect("it is free");
    assert!(guard.token() > first);
    drop(guard);
    drop(acquire(&one, "one", TTL, TTL / 2).await.expect("a guard that is dropped gives back"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_whose_node_is_killed_keeps_its_place() {
    const TTL: Duration = Duration::from_secs(10);
    const WAIT: Duration = Duration::from_secs(60);
    let mut cluster = Cluster::start(3).await;
    for kills_leader in [false, true] {
        let leader = cluster.leader().await;
        let victim = if kills_leader { leader } else { leader % 3 + 1 };
        let [survivor, other] =
            [1, 2, 3].into_iter().filter(|id| *id != victim).collect::<Vec<_>>().try_into().expect("two");
        let holder = client(&cluster, survivor);
        let guard = acquire(&holder, "holder", TTL, WAIT).await.expect("it is free");

        let (first, second) = (client(&cluster, victim), client(&cluster, other));
        let first = tokio::spawn(async move { acquire(&first, "first", TTL, WAIT).await });
        until_waiting(&cluster, survivor, 1).await;
        let second = tokio::spawn(async move { acquire(&second, "second", TTL, WAIT).await });
        until_waiting(&cluster, survivor, 2).await;

        cluster.node_mut(victim).kill();
        eventually("the waiter to come back by another node", SOON, async || {
            let lock: LockDetail = cluster.get(survivor, "/v1/locks/jobs%2Fnightly").await?;
            let owners: Vec<_> = lock.lock.waiters.iter().map(|waiter| waiter.owner.as_str()).collect();
            assert_eq!(owners, ["first", "second"], "no waiter loses its place");
            let at = lock.lock.waiters[0].node;
            if at.is_some_and(|node| node.0 != victim) { Ok(()) } else { Err(format!("it is at {at:?}")) }
        })
        .await;
        guard.release().await.expect("it is held");
        let first = timeout(SOON, first).await.expect("soon").expect("no panic").expect("it is next");
        let token = first.token();
        assert!(!second.is_finished(), "two hold it at once");
        first.release().await.expect("it is held");
        let second = timeout(SOON, second).await.expect("soon").expect("no panic").expect("it is next");
        assert!(second.token() > token);
        second.release().await.expect("it is held");
        cluster.node_mut(victim).start();
        cluster.wait_healthy().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_costs_no_holder_its_lock() {
    const TTL: Duration = Duration::from_secs(6);
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let client = client(&cluster, leader);
    let guard = acquire(&client, "holder", TTL, Duration::ZERO).await.expect("it is free");
    cluster.node_mut(leader).pause();
    let until = Instant::now() + 2 * TTL;
    while Instant::now() < until {
        assert!(guard.is_valid(), "it was lost: {}", guard.lost().await);
        sleep(Duration::from_millis(50)).await;
    }
    cluster.node_mut(leader).resume();
    guard.release().await.expect("it is held");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_a_lock_is_lost_in_time_and_for_good() {
    const TTL: Duration = Duration::from_secs(2);
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (other, left) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let guard = acquire(&client(&cluster, left), "holder", TTL, Duration::ZERO).await.expect("it is free");
    let token: Token = guard.token();
    for node in [leader, other] {
        cluster.node_mut(node).pause();
    }
    let paused = Instant::now();
    let loss = timeout(2 * TTL, guard.lost()).await.expect("it cannot be renewed");
    assert!(matches!(loss, LockLoss::Expired(_)), "{loss}");
    assert!(!guard.is_valid());
    // The latest renewal was sent before the pause.
    assert!(paused.elapsed() < TTL + Duration::from_millis(500), "lost after {:?}", paused.elapsed());
    for node in [leader, other] {
        cluster.node_mut(node).resume();
    }
    let next = acquire(&client(&cluster, left), "next", TTL, SOON).await.expect("the lease has run out");
    assert!(next.token() > token, "the lost holder has the lower token");
    assert!(!guard.is_valid(), "a lost lock does not come back");
    assert!(matches!(guard.release().await, Err(LockError::Lost(_))));
    assert!(next.is_valid(), "the release of a lost lock must not touch the next holder's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_an_operator_takes_away_is_lost() {
    const TTL: Duration = Duration::from_secs(3);
    let cluster = Cluster::start(1).await;
    let client = client(&cluster, 1);
    let guard = acquire(&client, "holder", TTL, Duration::ZERO).await.expect("it is free");
    take_away(&cluster, 1).await;
    let loss = timeout(TTL, guard.lost()).await.expect("the next renewal is refused");
    assert!(matches!(&loss, LockLoss::Revoked(why) if why.contains("forced")), "{loss}");
    let next = acquire(&client, "next", TTL, Duration::ZERO).await.expect("it is free");
    assert!(next.token() > guard.token());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_semaphore_admits_as_many_as_it_says() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster, 1);
    let slot = |owner: String| client.lock("uploads").owner(owner).limit(2);
    let one = slot("one".to_owned()).acquire().await.expect("there is room");
    let two = slot("two".to_owned()).acquire().await.expect("there is room");
    let error = slot("three".to_owned()).acquire().await.expect_err("it is full");
    assert!(error.is(Code::LockHeld), "{error}");
    one.release().await.expect("it is held");
    let three = slot("three".to_owned()).acquire().await.expect("there is room");
    let error = client.lock("uploads").owner("four").limit(5).acquire().await.expect_err("another limit");
    assert!(error.is(Code::LockLimitDiffers), "{error}");
    drop((two, three));
    let sharers = client.lock("schema").owner("a").shared().acquire().await.expect("it is free");
    drop(client.lock("schema").owner("b").shared().acquire().await.expect("they share it"));
    assert!(sharers.is_valid());
}

/// Whoever drops the future waits no more, and what it was granted goes to the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_disconnects_leaves_the_queue() {
    const TTL: Duration = Duration::from_secs(10);
    let cluster = Cluster::start(1).await;
    let client = client(&cluster, 1);
    let guard = acquire(&client, "holder", TTL, Duration::ZERO).await.expect("it is free");
    let impatient = timeout(Duration::from_millis(300), acquire(&client, "impatient", TTL, SOON)).await;
    assert!(impatient.is_err(), "it is held");
    until_waiting(&cluster, 1, 0).await;
    guard.release().await.expect("it is held");
    drop(acquire(&client, "next", TTL, Duration::ZERO).await.expect("it is free"));
}
