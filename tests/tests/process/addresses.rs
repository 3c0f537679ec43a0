//! Nodes that are started at other addresses than the cluster knows.

use ringmaster_tests::{SOON, cluster::Cluster, eventually, process::free_ports};
use serde_json::{Value, json};

/// Gives the nodes other addresses, and these options instead of `--bootstrap` and `--join`.
fn move_nodes(cluster: &mut Cluster, ids: &[u64], options: impl Fn(&Cluster) -> Vec<String>) {
    for id in ids {
        let [api, peer] = free_ports();
        cluster.node_mut(*id).move_to(api, peer);
    }
    let options = options(cluster);
    for node in &mut cluster.nodes {
        node.set_options(&options);
    }
}

fn members(cluster: &Cluster) -> Vec<String> {
    let member =
        |node: &ringmaster_tests::cluster::Node| format!("--member={}=127.0.0.1:{}", node.id, node.peer_port);
    cluster.nodes.iter().map(member).collect()
}

async fn known_addresses(cluster: &Cluster, at: u64) -> Result<Vec<(String, String, String)>, String> {
    let nodes = cluster.cluster(at).await?.nodes.into_iter();
    Ok(nodes.map(|info| (info.node.api_addr, info.node.peer_addr, info.node.public_url)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_which_all_nodes_were_moved_finds_itself_again() {
    let mut cluster = Cluster::start(3).await;
    cluster.put_setting(1, "before", json!(1)).await.expect("it is written");
    cluster.wait_level().await;
    for node in 1..=3 {
        cluster.node_mut(node).kill();
    }
    move_nodes(&mut cluster, &[1, 2, 3], |_| Vec::new());
    // Without the flag the node ends, and says what to do.
    cluster.node_mut(1).start();
    let status = cluster.node_mut(1).process().wait(SOON);
    let said = cluster.node(1).log();
    assert_eq!(status.code(), Some(1), "{said}");
    let advice = format!("pass --member 1=127.0.0.1:{} if it was moved", cluster.node(1).peer_port);
    assert!(said.contains(&advice) && said.contains("docs/recovery.md"), "{said}");
    cluster.node_mut(1).kill();

    move_nodes(&mut cluster, &[], members);
    for node in 1..=3 {
        cluster.node_mut(node).start();
    }
    cluster.wait_healthy().await;
    let of = |node: &ringmaster_tests::cluster::Node| {
        let (api, peer) = (format!("127.0.0.1:{}", node.api_port), format!("127.0.0.1:{}", node.peer_port));
        (api, peer, node.url.clone())
    };
    let wanted: Vec<_> = cluster.nodes.iter().map(of).collect();
    for node in 1..=3 {
        eventually("the cluster to know the addresses", SOON, async || {
            let known = known_addresses(&cluster, node).await?;
            if known == wanted { Ok(()) } else { Err(format!("{known:?}")) }
        })
        .await;
    }
    let setting: Value = cluster.get(2, "/v1/settings/before").await.expect("it is there");
    assert_eq!(setting["value"], 1);
    let events: Value = cluster.get(1, "/v1/events?limit=500").await.expect("the events");
    assert_eq!(events.to_string().matches("\"node_moved\"").count(), 3, "{events}");

    // The flags are needed once. Addresses need not be given at all from now on.
    for node in 1..=3 {
        cluster.node_mut(node).terminate();
    }
    for node in &mut cluster.nodes {
        node.set_options(&[]);
        node.forget_addresses();
    }
    for node in 1..=3 {
        cluster.node_mut(node).start();
    }
    cluster.wait_healthy().await;
    assert_eq!(known_addresses(&cluster, 1).await, Ok(wanted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_may_have_another_api_address() {
    let mut cluster = Cluster::start(1).await;
    cluster.node_mut(1).terminate();
    let ([api], peer) = (free_ports(), cluster.node(1).peer_port);
    cluster.node_mut(1).move_to(api, peer);
    cluster.node_mut(1).set_options(&[format!("--member=1=127.0.0.1:{peer}")]);
    cluster.node_mut(1).start();
    cluster.wait_healthy().await;
    let known = known_addresses(&cluster, 1).await.expect("it answers");
    assert_eq!(known[0].0, format!("127.0.0.1:{api}"));
    assert_eq!(known[0].2, format!("http://127.0.0.1:{api}"));
}
