//! From one version to the next, node by node, and not back.

use ringmaster_common::{cluster::NodeStatus, id::NodeId};
use ringmaster_tests::{
    SOON, cluster::Cluster, eventually, process::next_binary, stream::agreement, writers::Writers,
};

async fn feature_level(cluster: &Cluster, node: u64) -> u32 {
    cluster.cluster(node).await.expect("the node answers").feature_level
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_raises_the_feature_level_and_there_is_no_way_back() {
    let mut cluster = Cluster::start(3).await;
    let old = cluster.node(1).binary.clone();
    let load = Writers::start(&cluster, 2);
    for id in 1..=3 {
        assert_eq!(feature_level(&cluster, id).await, 2, "one node of the old version holds the level");
        cluster.node_mut(id).terminate();
        cluster.node_mut(id).binary = next_binary();
        cluster.node_mut(id).start();
        let observer = id % 3 + 1;
        eventually("the new version to be back", SOON, async || {
            let body = cluster.cluster(observer).await?;
            let revision = cluster.cluster(id).await?.revision;
            let up = body.nodes.iter().all(|info| info.node.status == NodeStatus::Up);
            if up && revision >= body.revision { Ok(()) } else { Err(format!("{body:?}")) }
        })
        .await;
    }
    eventually("the level to rise", SOON, async || match feature_level(&cluster, 2).await {
        3 => Ok(()),
        level => Err(format!("it is {level}")),
    })
    .await;
    let record = load.stop().await;
    assert!(record.acknowledgements > 20, "there was load: {record:?}");

    // Back to the old version: it says why not, and the others go on.
    cluster.node_mut(3).terminate();
    cluster.node_mut(3).binary = old.clone();
    cluster.node_mut(3).start();
    assert!(!cluster.node_mut(3).process().wait(SOON).success());
    cluster.node_mut(3).kill();
    let log = cluster.node(3).log();
    assert!(log.contains("the cluster is at feature level 3, and this version goes up to 2"), "{log}");

    // Nor does a fresh node of the old version get in.
    cluster.add();
    assert!(!cluster.node_mut(4).process().wait(SOON).success());
    cluster.node_mut(4).kill();
    assert!(cluster.node(4).log().contains("this version goes up to 2"), "{}", cluster.node(4).log());
    let members = cluster.cluster(1).await.expect("it answers").nodes;
    assert!(members.iter().all(|info| info.node.id != NodeId(4)));

    // It took no harm from trying.
    cluster.node_mut(3).binary = next_binary();
    cluster.node_mut(3).start();
    cluster.wait_status(1, 3, NodeStatus::Up).await;
    agreement(&cluster).await;
    for id in 1..=3 {
        record.check(&cluster, id).await;
    }
}
