//! `/readyz` says whether a request sent here is worth sending; `/livez` whether the process answers.

use reqwest::Method;
use ringmaster_common::{
    action::Action,
    cluster::NodeStatus,
    id::{GroupId, NodeId},
};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, problem},
    eventually,
    writers::Writers,
};
use serde_json::json;

/// Ok where the node is ready, else its reasons.
async fn ready(cluster: &Cluster, node: u64) -> Result<(), Vec<String>> {
    let response = cluster.send(node, Method::GET, "/readyz", None).await.expect("a living node answers");
    if response.status() == 200 {
        return Ok(());
    }
    assert!(response.headers().contains_key("retry-after"));
    let problem = problem(response).await;
    assert_eq!((problem.status, problem.code.as_str()), (503, "not_ready"));
    assert!(!problem.reasons.is_empty(), "{problem:?}");
    Err(problem.reasons)
}

async fn wait_ready(cluster: &Cluster, node: u64) {
    let what = format!("node {node} to be ready");
    eventually(&what, SOON, async || ready(cluster, node).await.map_err(|reasons| reasons.join("; "))).await;
}

async fn wait_unready(cluster: &Cluster, node: u64, wanted: &str) {
    eventually(&format!("node {node} to be unready: {wanted}"), SOON, async || {
        match ready(cluster, node).await {
            Err(reasons) if reasons.iter().any(|reason| reason.contains(wanted)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn is_alive(cluster: &Cluster, node: u64) {
    let response = cluster.send(node, Method::GET, "/livez", None).await.expect("it answers");
    assert_eq!(response.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_no_node_is_ready_and_all_are_alive() {
    let mut cluster = Cluster::start(3).await;
    for node in 1..=3 {
        wait_ready(&cluster, node).await;
    }
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let third = follower % 3 + 1;

    // A leader without followers receives nothing, and soon steps down.
    cluster.node_mut(follower).pause();
    cluster.node_mut(third).pause();
    wait_unready(&cluster, leader, "").await;
    is_alive(&cluster, leader).await;
    cluster.node_mut(follower).resume();
    cluster.node_mut(third).resume();
    for node in 1..=3 {
        wait_ready(&cluster, node).await;
    }

    // A follower that is alone hears no leader.
    for node in [2, 3] {
        cluster.wait_status(1, node, NodeStatus::Up).await;
    }
    if cluster.leader().await == 1 {
        let action = Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(2) };
        let plan = cluster.plan(1, &action).await.expect("a plan");
        cluster.outcome(1, &cluster.apply(1, &plan).await.expect("it starts")).await;
    }
    cluster.node_mut(2).kill();
    cluster.node_mut(3).kill();
    wait_unready(&cluster, 1, "hears no leader").await;
    is_alive(&cluster, 1).await;

    cluster.node_mut(2).start();
    for node in [1, 2] {
        wait_ready(&cluster, node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_only_with_all_entries_committed_before_the_question() {
    let mut cluster = Cluster::start(3).await;
    let writers = Writers::start(&cluster, 8);
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let (mut yes, mut no) = (0, 0);
    for round in 0..6 {
        cluster.node_mut(follower).pause();
        cluster.wait_status(leader, follower, NodeStatus::Suspect).await;
        cluster.node_mut(follower).resume();
        for _ in 0..10 {
            let before = cluster.put_setting(leader, "mark", json!(round)).await.expect("a quorum is there");
            if ready(&cluster, follower).await.is_ok() {
                let revision = cluster.cluster(follower).await.expect("it answers").revision;
                assert!(revision >= before.version, "ready at {revision} without {}", before.version);
                yes += 1;
            } else {
                no += 1;
            }
        }
    }
    writers.stop().await;
    println!("ready {yes} times, not yet {no} times");
    assert!(yes > 0, "it never was ready");
}
