//! Nodes die, pause and come back; what was acknowledged stays.

use reqwest::{Method, Response};
use ringmaster_common::{
    action::Action,
    cluster::{Liveness, NodeInfo, NodeStatus, Opinion, Quorum, Role},
    headers,
    id::{GroupId, NodeId},
    telemetry::Reachability,
};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Program},
    eventually,
    network::{self, Network},
    stream::agreement,
    writers::Writers,
};
use serde_json::json;
use std::{
    process::Command,
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kills_of_the_leader() {
    const KILLS: u32 = 6;
    let mut cluster = Cluster::start(3).await;
    let writers = Writers::start(&cluster, 4);
    let mut outages = Vec::new();
    for round in 0..KILLS {
        let leader = cluster.leader().await;
        cluster.node_mut(leader).kill();
        let killed = Instant::now();
        let survivor = cluster.living();
        eventually("a write to be taken after the leader was killed", SOON, async || {
            cluster.put_setting(survivor, "probe", json!(round)).await.map(drop)
        })
        .await;
        outages.push(killed.elapsed());
        cluster.node_mut(leader).start();
        cluster.wait_status(survivor, leader, NodeStatus::Up).await;
    }
    let record = writers.stop().await;
    assert!(record.acknowledgements > 100, "the writers wrote next to nothing: {record:?}");

    // Every node must have everything on its own disk.
    cluster.power_cycle().await;
    for id in 1..=3 {
        record.check(&cluster, id).await;
    }
    agreement(&cluster).await;
    outages.sort();
    println!(
        "{KILLS} kills; {} writes acknowledged, {} unknown; outages {outages:?}",
        record.acknowledgements, record.unknowns
    );
    assert!(outages[outages.len() / 2] < Duration::from_secs(5), "outages were {outages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_suspected_then_down_then_up_again() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let victim = leader % 3 + 1;
    cluster.node_mut(victim).pause();
    cluster.wait_status(leader, victim, NodeStatus::Down).await;
    let body = cluster.cluster(leader).await.expect("the leader answers");
    let info = &body.nodes[victim as usize - 1];
    assert_eq!(info.node.opinions.len(), 2, "both others have said what they see: {:?}", info.node.opinions);
    assert!(info.node.status_reason.contains("have not heard"), "{}", info.node.status_reason);
    assert!(!body.nodes[leader as usize - 1].can_lose.answer, "two of three voters are needed");
    assert_eq!(body.failures_tolerated, 0);
    cluster.put_setting(leader, "two", json!("are enough")).await.expect("a majority is left");

    cluster.node_mut(victim).resume();
    cluster.wait_status(leader, victim, NodeStatus::Up).await;
    let events: serde_json::Value =
        cluster.get(leader, "/v1/events?order=desc&limit=100").await.expect("events are listed");
    let text = events.to_string();
    for status in ["suspect", "down", "up"] {
        assert!(text.contains(&format!("\"to\":\"{status}\"")), "no change to {status} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_is_replaced_and_does_no_harm() {
    let mut cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    cluster.put_setting(old, "who", json!("before")).await.expect("the cluster takes writes");
    cluster.node_mut(old).pause();
    let survivor = old % 3 + 1;
    eventually("another node to take writes", SOON, async || {
        cluster.put_setting(survivor, "who", json!("after")).await.map(drop)
    })
    .await;
    cluster.node_mut(old).resume();
    // It may answer from before its pause only where a stale answer was asked for.
    let setting: ringmaster_common::setting::Setting =
        eventually("the old leader to answer", SOON, async || cluster.get(old, "/v1/settings/who").await)
            .await;
    assert_eq!(setting.value, json!("after"), "a linearizable read went back in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    // Node 1 would create a cluster of its own.
    let wiped = if leader == 3 { 2 } else { 3 };
    cluster.node_mut(wiped).kill();
    cluster.wipe(wiped);
    cluster.node_mut(wiped).start();
    let status = tokio::task::block_in_place(|| cluster.node_mut(wiped).process().wait(SOON));
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(wiped).log();
    assert!(log.contains("comes back under a new id"), "{log}");
    cluster.put_setting(leader, "still", json!("here")).await.expect("a majority is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_node_that_was_wiped_bootstraps_no_second_cluster() {
    let mut cluster = Cluster::start(3).await;
    let mut leader = cluster.leader().await;
    if leader == 1 {
        let action = Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(2) };
        let plan = cluster.plan(1, &action).await.expect("a plan");
        let operation = cluster.apply(1, &plan).await.expect("the plan is fresh");
        cluster.outcome(2, &operation).await;
        leader = cluster.leader().await;
    }
    cluster.node_mut(1).kill();
    cluster.wipe(1);
    // It takes no writes that the real cluster would never see: it ends, and says what it is. So it does if
    // it is started again as it was.
    for _ in 0..2 {
        cluster.node_mut(1).start();
        let ended = eventually("the node to end", SOON, async || {
            if let Ok(setting) = cluster.put_setting(1, "precious", json!(1)).await {
                panic!("it has taken a write of its own: {setting:?}");
            }
            cluster.node_mut(1).process().ended().ok_or_else(|| "it runs".to_owned())
        })
        .await;
        assert!(!ended.success(), "it ended as if all were well");
        cluster.node_mut(1).kill();
    }
    let log = cluster.node(1).log();
    assert!(log.contains("a node of another cluster dialled this node as one of its members"), "{log}");
    cluster.put_setting(leader, "still", json!("here")).await.expect("a majority is left");
}

/// The revision that an answer was read at, and how many milliseconds old that may be.
fn source(response: &Response) -> (u64, u64) {
    let number = |name| response.headers()[name].to_str().ok().and_then(|text| text.parse().ok());
    let number = |name| number(name).unwrap_or_else(|| panic!("{name} is no number"));
    (number(headers::REVISION), number(headers::AGE_MS))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_writes_fail_and_say_why_and_stale_reads_work() {
    let mut cluster = Cluster::start(3).await;
    let written = cluster.put_setting(1, "known", json!(1)).await.expect("the cluster takes writes");
    let fresh = cluster.send(1, Method::GET, "/v1/settings/known", None).await.expect("an answer");
    let (revision, age) = source(&fresh);
    assert!(revision >= written.version.0 && age == 0, "{revision} {age}");
    cluster.node_mut(2).kill();
    cluster.node_mut(3).kill();
    let started = Instant::now();
    let why = cluster.put_setting(1, "known", json!(2)).await.expect_err("one of three is no majority");
    assert!(why.contains("no_leader") || why.contains("outcome_unknown"), "{why}");
    assert!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
    let stale: ringmaster_common::setting::Setting =
        cluster.get(1, "/v1/settings/known?consistency=stale").await.expect("stale reads need no other node");
    assert_eq!(stale.value, json!(1));
    let stale = cluster.send(1, Method::GET, "/v1/settings/known?consistency=stale", None).await;
    let (then, age) = source(&stale.expect("an answer"));
    assert!(then >= revision && age >= 1_000, "it is {age} ms old: the others were killed before the write");
    cluster
        .get::<serde_json::Value>(1, "/v1/settings/known")
        .await
        .expect_err("a linearizable read needs a quorum");
    let ready = cluster.send(1, Method::GET, "/livez", None).await.expect("the process lives");
    assert!(ready.status().is_success());

    // It says so itself, and no cluster is said to be well that takes no writes.
    let seen = cluster.cluster(1).await.expect("it answers");
    let quorum = Quorum { has: false, voters: 3, answering: 1, needed: 2, joint: Vec::new() };
    assert_eq!(seen.quorum, quorum);
    assert_eq!((seen.leader, seen.failures_tolerated), (None, 0));
    assert!(why.contains("1 of 3 voters answer node 1"), "{why}");
    for info in &seen.nodes {
        assert_ne!(info.role, Some(Role::Leader), "node {}", info.node.id);
        assert!(!info.can_lose.answer, "node {}", info.node.id);
        assert!(info.can_lose.reason.contains("1 of 3 voters answers"), "{}", info.can_lose.reason);
    }

    // An isolated node suspects itself first: it does not call all others dead.
    let alone: NodeInfo = cluster.get(1, "/v1/nodes/1").await.expect("it knows itself");
    assert_eq!(alone.links.len(), 2);
    for link in &alone.links {
        assert_eq!(link.sees, Liveness::Suspect, "{link:?}");
        assert!(
            link.trouble.as_deref().is_some_and(|why| why.contains("hears from no other node")),
            "{link:?}"
        );
    }
}

/// More entries than a snapshot is taken after, so that the first ones are gone from every log.
const BEYOND_A_SNAPSHOT: u64 = 3_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_carries_a_restart_and_a_late_node() {
    const CLIENTS: u64 = 64;
    let mut cluster = Cluster::start_with(3, &["--snapshot-every", "1000"]).await;
    let leader = cluster.leader().await;
    let write = async |client: u64| {
        for n in 0..BEYOND_A_SNAPSHOT / CLIENTS {
            cluster.put_setting(leader, &format!("bulk/{client}"), json!(n)).await.expect("all nodes run");
        }
    };
    futures::future::join_all((0..CLIENTS).map(write)).await;
    let sample = |cluster: &Cluster, id: u64| {
        let (http, url) = (
            cluster.http.clone(),
            format!("{}/v1/settings?limit=1000&consistency=stale", cluster.node(id).url),
        );
        async move {
            http.get(url)
                .send()
                .await
                .map_err(|error| error.to_string())?
                .text()
                .await
                .map_err(|error| error.to_string())
        }
    };
    let expected = sample(&cluster, leader).await.expect("the leader answers");
    let snapshot = cluster.dir().join(format!("node-{leader}")).join("snapshots");
    eventually("a snapshot to be written", SOON, async || {
        let files = std::fs::read_dir(&snapshot).map_err(|error| error.to_string())?.count();
        if files > 0 { Ok(()) } else { Err("there is none".to_owned()) }
    })
    .await;

    cluster.node_mut(leader).kill();
    cluster.node_mut(leader).start();
    cluster.add();
    for id in [leader, 4] {
        eventually(&format!("node {id} to have everything"), SOON, async || {
            let has = sample(&cluster, id).await?;
            if has == expected { Ok(()) } else { Err(format!("{} of {} bytes", has.len(), expected.len())) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_transfers_leadership_first() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let writers = Writers::start(&cluster, 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::task::block_in_place(|| cluster.node_mut(leader).terminate());
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    assert!(cluster.node(leader).log().contains("transferring leadership"));
    writers.stop().await;
}

/// The warnings about links on this node's dashboard, and the links that carry one way only.
async fn troubles(cluster: &Cluster, observer: u64) -> Result<(Vec<String>, Vec<(u64, u64)>), String> {
    let (mut troubles, mut one_way) = (Vec::new(), Vec::new());
    for info in cluster.cluster(observer).await?.nodes {
        for link in info.links {
            if link.reachability == Reachability::InOnly {
                one_way.push((info.node.id.0, link.peer.0));
            }
            troubles.extend(link.trouble);
        }
    }
    Ok((troubles, one_way))
}

/// Waits until no node knows of any trouble, and fails if one names a link that carries one way only.
async fn all_links_are_well(cluster: &Cluster) {
    for observer in 1..=3 {
        eventually("all links to be well", SOON, async || {
            let (troubles, one_way) = troubles(cluster, observer).await?;
            assert_eq!(one_way, [], "node {observer} says {troubles:?}");
            if troubles.is_empty() { Ok(()) } else { Err(format!("{troubles:?}")) }
        })
        .await;
    }
}

#[test]
fn a_link_that_is_cut_one_way_is_named_and_the_bridge_beside_it_cannot_be_lost() {
    if network::enter_for("a_link_that_is_cut_one_way_is_named_and_the_bridge_beside_it_cannot_be_lost") {
        return;
    }
    // Threads inherit the namespace: there are none before it is entered.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let network = Network::create(3).expect("there are namespaces");
        let cluster = Cluster::start_on(Program::default(), &network.hosts()).await;
        all_links_are_well(&cluster).await;
        for id in 0..3 {
            assert!(cluster.cluster(1).await.expect("it answers").nodes[id].can_lose.answer);
        }
        let named_after = name_a_cut_of_one_way(&cluster, &network).await;
        println!("all nodes named the fault {named_after:?} after the cut");
        name_no_cut_of_both_ways(&cluster, &network).await;
    });
}

/// Returns how long it took until all nodes named it.
async fn name_a_cut_of_one_way(cluster: &Cluster, network: &Network) -> Duration {
    const WORDS: &str = "packets from node 2 do not reach node 1; packets from node 1 reach node 2";
    network.lose(2, 1).expect("it can be");
    let cut = Instant::now();
    for observer in 1..=3 {
        // To node 1, which hears nothing of node 2, node 3 passes on what node 2 says.
        eventually("the fault to be named", SOON, async || {
            let (troubles, one_way) = troubles(cluster, observer).await?;
            let bridge = &cluster.cluster(observer).await?.nodes[2].can_lose;
            let is_named = troubles.iter().any(|trouble| trouble == WORDS) && one_way == [(2, 1)];
            if is_named && !bridge.answer { Ok(()) } else { Err(format!("{troubles:?}, {bridge:?}")) }
        })
        .await;
    }
    let named_after = cut.elapsed();
    let nodes = cluster.cluster(3).await.expect("it answers").nodes;
    assert!(nodes[2].can_lose.reason.contains("node 1 does not reach node 2"), "{:?}", nodes[2].can_lose);
    assert!(nodes[0].can_lose.answer && nodes[1].can_lose.answer, "node 3 reaches either");
    eventually("both opinions to be agreed on", SOON, async || {
        let nodes = cluster.cluster(3).await?.nodes;
        let says = |subject: usize, observer: u64| {
            let is_dead =
                |opinion: &Opinion| opinion.observer == NodeId(observer) && opinion.sees == Liveness::Dead;
            nodes[subject - 1].node.opinions.iter().any(is_dead)
        };
        if says(1, 2) && says(2, 1) { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    let node = cluster.node(1);
    let output = Command::new(&node.binary).args(["nodes", "--url", &node.url]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.lines().any(|line| line == WORDS), "{text}");
    network.unmute(2).expect("it can be");
    eventually("the fault to be forgotten", SOON, async || {
        let (troubles, one_way) = troubles(cluster, 1).await?;
        if one_way.is_empty() { Ok(()) } else { Err(format!("{troubles:?}")) }
    })
    .await;
    all_links_are_well(cluster).await;
    assert!(cluster.cluster(1).await.expect("it answers").nodes[2].can_lose.answer);
    named_after
}

async fn name_no_cut_of_both_ways(cluster: &Cluster, network: &Network) {
    const LONG_ENOUGH: Duration = Duration::from_secs(4);
    network.cut_off(2).expect("it can be");
    let cut = Instant::now();
    let mut was_down = false;
    while cut.elapsed() < LONG_ENOUGH || !was_down {
        assert!(cut.elapsed() < SOON, "node 2 is not found to be down");
        for observer in [1, 3] {
            let (troubles, one_way) = troubles(cluster, observer).await.expect("it answers");
            assert_eq!(one_way, [], "{:?} after the cut, node {observer} says {troubles:?}", cut.elapsed());
            let status = cluster.cluster(observer).await.expect("it answers").nodes[1].node.status;
            was_down |= status == NodeStatus::Down;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    network.heal(2).expect("it can be");
    all_links_are_well(cluster).await;
}
