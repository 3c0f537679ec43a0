//! One id from a request to what it does, in the logs of every node.

use ringmaster_common::event::EventBatch;
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Host, Program, parse},
    eventually,
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_in_the_logs_of_all_nodes_and_in_the_history() {
    let mut cluster = Cluster::empty(Program::default());
    for _ in 0..3 {
        let node = cluster.add_on(&Host::default());
        node.enter = ["env", "RUST_LOG=ringmaster=debug"].map(str::to_owned).to_vec();
        node.start();
    }
    cluster.wait_formed(3).await;
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let id = "the-one-that-we-look-for";
    let request = cluster.http.put(format!("{}/v1/settings/team", cluster.node(follower).url));
    let request = request.header("idempotency-key", id).json(&json!({ "value": "blue" }));
    let setting: Value = parse(request.send().await.expect("an answer")).await.expect("it is set");

    let lines = |node: u64| -> Vec<String> {
        cluster.node(node).log().lines().filter(|line| line.contains(id)).map(str::to_owned).collect()
    };
    for node in 1..=3 {
        eventually("the node to have applied it", SOON, async || {
            let lines = lines(node);
            let applied = lines.iter().any(|line| line.contains("applying"));
            if applied { Ok(()) } else { Err(format!("node {node}: {lines:?}")) }
        })
        .await;
    }
    let said = |node: u64, what: &str| lines(node).iter().any(|line| line.contains(what));
    assert!(said(follower, "a request for the leader"), "{:?}", lines(follower));
    assert!(said(leader, "a request was forwarded here"), "{:?}", lines(leader));
    let before = setting["version"].as_u64().expect("a version") - 1;
    let events: Value = cluster.get(3, &format!("/v1/events?after={before}")).await.expect("the events");
    let batches: Vec<EventBatch> = serde_json::from_value(events["items"].clone()).expect("batches");
    let caused = batches.iter().find(|batch| batch.request_id == id).expect("its event");
    assert_eq!(Value::from(caused.revision.0), setting["version"]);
}
