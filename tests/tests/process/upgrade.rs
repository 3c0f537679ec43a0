//! From one version to the next, node by node, and not back.

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use ringmaster_common::{
    action::Action,
    cluster::NodeStatus,
    id::{GroupId, NodeId},
};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, problem},
    eventually,
    process::{binary, next_binary},
    stream::agreement,
    writers::Writers,
};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// The feature levels of the two versions.
const OLD_LEVEL: u32 = 2;
const NEW_LEVEL: u32 = 3;
/// How often one owner may take a lock at each level, and the code of the refusal after that.
const OLD_DEPTH: (u32, &str) = (64, "limit_reached");
const NEW_DEPTH: (u32, &str) = (66, "lock_depth_reached");
/// In entries: with a snapshot so often, each node takes some, and one that was away is sent one.
const SNAPSHOT_EVERY: u64 = 100;

/// How what the leader proposes begins in the log, and how a snapshot of the state begins.
fn record(format: u8) -> Vec<u8> {
    [b"\xa6format", &[format][..], b"\xa5stamp"].concat()
}

fn snapshot(format: u8) -> Vec<u8> {
    [b"\xa6format", &[format][..], b"\xa5state"].concat()
}

/// Whether a file of this part of the node's data holds `bytes`.
fn on_disk(cluster: &Cluster, node: u64, part: &str, bytes: &[u8]) -> bool {
    let files = fs::read_dir(cluster.data_dir(node).join(part)).expect("the node has been started");
    // The node runs meanwhile: a file that was there may be gone.
    let texts = files.filter_map(|file| fs::read(file.ok()?.path()).ok());
    texts.into_iter().any(|text| text.windows(bytes.len()).any(|window| window == bytes))
}

/// The format of frames that `node` agreed on when it last connected to `peer`.
fn link_format(cluster: &Cluster, node: u64, peer: u64) -> Option<u8> {
    let log = cluster.node(node).log();
    let connected = format!("connected to a peer peer={peer} ");
    let line = log.lines().rfind(|line| line.contains(&connected))?;
    line.rsplit_once("format=")?.1.trim().parse().ok()
}

async fn wait_link(cluster: &Cluster, node: u64, peer: u64, format: u8) {
    eventually(
        &format!("node {node} to speak format {format} with {peer}"),
        SOON,
        async || match link_format(cluster, node, peer) {
            Some(found) if found == format => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
}

async fn feature_level(cluster: &Cluster, node: u64) -> u32 {
    cluster.cluster(node).await.expect("the node answers").feature_level
}

/// Stops a node, starts it with another program, and waits until it is as good as before.
async fn run(cluster: &mut Cluster, id: u64, program: &Path) {
    cluster.node_mut(id).terminate();
    program.clone_into(&mut cluster.node_mut(id).binary);
    cluster.node_mut(id).start();
    wait_back(cluster, id).await;
}

async fn wait_back(cluster: &Cluster, id: u64) {
    let observer = id % 3 + 1;
    eventually(&format!("node {id} to be back"), SOON, async || {
        let body = cluster.cluster(observer).await?;
        let revision = cluster.cluster(id).await?.revision;
        let up = body.nodes.iter().all(|info| info.node.status == NodeStatus::Up);
        if up && revision >= body.revision { Ok(()) } else { Err(format!("{body:?}")) }
    })
    .await;
}

async fn make_leader(cluster: &Cluster, id: u64) {
    eventually(&format!("node {id} to lead"), SOON, async || {
        if cluster.cluster(id).await?.leader == Some(NodeId(id)) {
            return Ok(());
        }
        let action = Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(id) };
        let plan = cluster.plan(id, &action).await?;
        let operation = cluster.apply(id, &plan).await?;
        Err(format!("{:?}", cluster.outcome(id, &operation).await))
    })
    .await;
}

async fn wait_revisions(cluster: &Cluster, node: u64, count: u64) {
    let start = cluster.cluster(node).await.expect("the node answers").revision;
    eventually(&format!("{count} more revisions"), SOON * 2, async || {
        let now = cluster.cluster(node).await?.revision;
        if now.0 >= start.0 + count { Ok(()) } else { Err(format!("{now} after {start}")) }
    })
    .await;
}

/// Waits until all nodes are at one revision, and fails if their states then differ.
async fn same_state(cluster: &Cluster, step: &str) {
    eventually(&format!("all nodes at one revision, {step}"), SOON, async || {
        let digests = cluster.nodes.iter().map(|node| cluster.get::<Value>(node.id, "/v1/state/digest"));
        let digests = join_all(digests).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let first = &digests[0];
        if digests.iter().any(|other| other["revision"] != first["revision"]) {
            return Err(format!("{digests:?}"));
        }
        let same = digests.iter().all(|other| other["digest"] == first["digest"]);
        assert!(same, "{step}: versions disagree about the state at one revision: {digests:?}");
        Ok(())
    })
    .await;
}

/// Takes a lock again and again as its owner, until that is refused: a limit that the versions differ in.
async fn lock_depth(cluster: &Cluster, node: u64, name: &str) -> (u32, String) {
    let body = json!({ "name": name, "owner": "deep", "ttl_ms": 60_000, "reentrant": true });
    for depth in 0.. {
        let path = "/v1/locks/acquire";
        let answer = cluster.send(node, Method::POST, path, Some(body.clone())).await.expect("an answer");
        if answer.status() != StatusCode::OK {
            return (depth, problem(answer).await.code);
        }
    }
    unreachable!("the loop has no end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_raises_the_feature_level_and_there_is_no_way_back() {
    let (old, new) = (binary(), next_binary());
    let mut cluster = Cluster::start_with(3, &["--snapshot-every", &SNAPSHOT_EVERY.to_string()]).await;
    let load = Writers::start(&cluster, 2);

    // The first node: there, back, and there again. Nothing stands in the way of that yet.
    for program in [&new, &old, &new] {
        run(&mut cluster, 1, program).await;
        same_state(&cluster, "the first node has changed").await;
    }
    // It leads the two of the old version, which have to understand everything that it writes, and one that was
    // away has to understand its snapshot.
    make_leader(&cluster, 1).await;
    let (depth, code) = lock_depth(&cluster, 1, "old-level").await;
    assert_eq!((depth, code.as_str()), OLD_DEPTH, "the level decides, not the program of the leader");
    same_state(&cluster, "the new version leads").await;
    cluster.node_mut(3).terminate();
    wait_revisions(&cluster, 1, 3 * SNAPSHOT_EVERY).await;
    cluster.node_mut(3).start();
    wait_back(&cluster, 3).await;
    assert!(cluster.node(3).log().contains("a snapshot was given to Raft"), "{}", cluster.node(3).log());
    same_state(&cluster, "an old node has restored a snapshot of the new version").await;
    for (node, peer) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        wait_link(&cluster, node, peer, 1).await;
    }

    for id in 2..=3 {
        assert_eq!(
            feature_level(&cluster, id).await,
            OLD_LEVEL,
            "one node of the old version holds the level"
        );
        for node in 1..=3 {
            assert!(on_disk(&cluster, node, "journal", &record(1)), "node {node} has a log");
            assert!(on_disk(&cluster, node, "snapshots", &snapshot(1)), "node {node} has a snapshot");
            assert!(!on_disk(&cluster, node, "journal", &record(2)), "an old node could not read that");
            assert!(!on_disk(&cluster, node, "snapshots", &snapshot(2)), "an old node could not read that");
        }
        run(&mut cluster, id, &new).await;
        same_state(&cluster, &format!("node {id} is upgraded")).await;
    }

    // The last node of the old version is gone: the level rises, and with it all formats.
    for node in 1..=3 {
        eventually("the level to rise", SOON, async || match feature_level(&cluster, node).await {
            NEW_LEVEL => Ok(()),
            level => Err(format!("it is {level}")),
        })
        .await;
        eventually("records and snapshots of the new format", SOON * 2, async || {
            let record = on_disk(&cluster, node, "journal", &record(2));
            let snapshot = on_disk(&cluster, node, "snapshots", &snapshot(2));
            if record && snapshot { Ok(()) } else { Err(format!("{record}, {snapshot}")) }
        })
        .await;
        for peer in (1..=3).filter(|peer| *peer != node) {
            wait_link(&cluster, node, peer, 2).await;
        }
    }
    let (depth, code) = lock_depth(&cluster, 1, "new-level").await;
    assert_eq!((depth, code.as_str()), NEW_DEPTH, "the new level has new limits");
    same_state(&cluster, "the level was raised").await;
    let record = load.stop().await;
    assert!(record.acknowledgements > 20, "there was load: {record:?}");

    // Back to the old version: it says why not, and the others still run.
    cluster.node_mut(3).terminate();
    cluster.node_mut(3).binary = old;
    cluster.node_mut(3).start();
    assert!(!cluster.node_mut(3).process().wait(SOON).success());
    cluster.node_mut(3).kill();
    let log = cluster.node(3).log();
    let why =
        "the snapshot has format 2, and this version reads up to 1; run the version that the other nodes run";
    assert!(log.contains(why), "{log}");

    // Nor does a fresh node of the old version get in.
    cluster.add();
    assert!(!cluster.node_mut(4).process().wait(SOON).success());
    cluster.node_mut(4).kill();
    let why = format!("the cluster is at feature level {NEW_LEVEL}, and this version goes up to {OLD_LEVEL}");
    assert!(cluster.node(4).log().contains(&why), "{}", cluster.node(4).log());
    let members = cluster.cluster(1).await.expect("it answers").nodes;
    assert!(members.iter().all(|info| info.node.id != NodeId(4)));

    // It took no harm from trying.
    cluster.node_mut(3).binary = new;
    cluster.node_mut(3).start();
    cluster.wait_status(1, 3, NodeStatus::Up).await;
    agreement(&cluster).await;
    cluster.nodes.truncate(3);
    same_state(&cluster, "the upgrade is complete").await;
    for id in 1..=3 {
        record.check(&cluster, id).await;
    }
}
