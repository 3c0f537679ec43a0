//! Data directories that are put back to an older copy: a disk image that was restored, a snapshot of a virtual machine.

use ringmaster_common::{
    action::Action,
    cluster::NodeStatus,
    id::{GroupId, NodeId},
};
use ringmaster_tests::{
    SOON, cluster::Cluster, copies::Copies, eventually, stream::agreement, writers::Writers,
};
use serde_json::{Value, json};
use std::time::Duration;

async fn put_some(cluster: &Cluster, node: u64, prefix: &str, count: u64) {
    for number in 0..count {
        let key = format!("{prefix}-{number}");
        eventually("a write", SOON, async || cluster.put_setting(node, &key, json!(number)).await.map(drop))
            .await;
    }
}

async fn transfer(cluster: &Cluster, from: u64, to: u64) {
    let action = Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(to) };
    eventually("leadership to be transferred", SOON, async || {
        if cluster.leader().await == to {
            return Ok(());
        }
        let plan = cluster.plan(from, &action).await?;
        let operation = cluster.apply(from, &plan).await?;
        cluster.outcome(to, &operation).await;
        Err("not yet".to_owned())
    })
    .await;
}

/// A follower is put back, again and again, while clients write and nodes are killed. Once the leader is the one that it
/// had acknowledged the entries to, and once it is another.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_put_back_says_so_and_catches_up() {
    let mut cluster = Cluster::start(3).await;
    let copies = Copies::default();
    let first = cluster.leader().await;
    if first != 1 {
        transfer(&cluster, first, 1).await;
    }
    cluster.node_mut(3).terminate();
    copies.take(&cluster, 3);
    cluster.node_mut(3).start();
    cluster.wait_status(1, 3, NodeStatus::Up).await;
    put_some(&cluster, 1, "early", 60).await;
    let writers = Writers::start(&cluster, 4);
    for round in 0..4u64 {
        let leader = 1 + round % 2;
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.node_mut(3).terminate();
        if cluster.leader().await != leader {
            transfer(&cluster, 3 - leader, leader).await;
        }
        copies.put_back(&cluster, 3);
        cluster.node_mut(3).start();
        eventually("the node to be ready", SOON, async || {
            let ready = cluster.send(3, reqwest::Method::GET, "/readyz", None).await;
            if ready.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                Ok(())
            } else {
                Err(format!("{ready:?}"))
            }
        })
        .await;
        // Another leader may have sent it all before a peer said how far it had been.
        if round == 0 {
            let log = cluster.node(3).log();
            assert_eq!(
                log.matches("this node has lost log entries that it had acknowledged").count(),
                1,
                "{log}"
            );
            assert_eq!(log.matches("has caught up with the entries that it had lost").count(), 1, "{log}");
        }
        // The leader that it had acknowledged all to goes; its own log has to be enough.
        cluster.node_mut(leader).kill();
        put_some(&cluster, 3, &format!("round-{round}"), 3).await;
        cluster.node_mut(leader).start();
        cluster.wait_status(3, leader, NodeStatus::Up).await;
    }
    let record = writers.stop().await;
    assert!(record.acknowledgements > 50, "the writers wrote next to nothing: {record:?}");
    // Every node must have everything on its own disk.
    cluster.power_cycle().await;
    for id in 1..=3 {
        record.check(&cluster, id).await;
    }
    agreement(&cluster).await;
}

/// Two of three nodes forget, so the cluster goes on without what they had acknowledged. The third has it, and must not
/// answer beside them.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_history_than_the_majority_stops() {
    let mut cluster = Cluster::start(3).await;
    let copies = Copies::default();
    let first = cluster.leader().await;
    if first != 1 {
        transfer(&cluster, first, 1).await;
    }
    cluster.node_mut(3).terminate();
    copies.take(&cluster, 3);
    cluster.node_mut(3).start();
    cluster.wait_status(1, 3, NodeStatus::Up).await;
    cluster.node_mut(2).terminate();
    put_some(&cluster, 1, "forgotten", 20).await;
    cluster.node_mut(3).terminate();
    cluster.node_mut(1).terminate();
    copies.put_back(&cluster, 3);
    for node in [2, 3] {
        cluster.node_mut(node).start();
    }
    put_some(&cluster, 2, "later", 5).await;
    cluster.node_mut(1).start();
    let status = tokio::task::block_in_place(|| cluster.node_mut(1).process().wait(SOON));
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(1).log();
    assert!(log.contains("a majority of the voters was put back to an older state"), "{log}");
    assert!(log.contains("remove the node, and let it join with an empty data directory"), "{log}");
    for node in [2, 3] {
        let setting: Result<Value, _> = cluster.get(node, "/v1/settings/later-4").await;
        assert_eq!(setting.expect("the majority goes on")["value"], json!(4));
    }
}
