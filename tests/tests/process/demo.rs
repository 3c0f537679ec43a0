//! The demo: real processes, real signals, and nothing left behind.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Method, StatusCode};
use ringmaster_common::{
    cluster::NodeStatus,
    demo::{DemoNode, ProcessState},
    lock::Lock,
    page::Page,
};
use ringmaster_tests::{
    SOON,
    cluster::{parse, problem},
    demo::{Demo, processes_of, processes_running},
    eventually,
    traffic::get,
};
use std::{collections::BTreeSet, time::Duration};

async fn chaos(demo: &Demo, through: u16, node: u64, what: &str) -> DemoNode {
    let url = format!("{}/v1/demo/nodes/{node}/{what}", demo.node_url(through));
    parse(demo.http.post(url).send().await.expect("the node answers")).await.expect("the supervisor does it")
}

async fn wait_status(demo: &Demo, through: u16, node: usize, status: NodeStatus) {
    eventually(&format!("node {node} to be {status:?}"), SOON, async || {
        let now = demo.cluster(through).await?.nodes.get(node - 1).map(|info| info.node.status);
        if now == Some(status) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_starts_soon_takes_chaos_and_leaves_nothing_behind() {
    let mut demo = Demo::start(&[]).await;
    println!("the URL was printed after {:?}", demo.url_after);
    assert_eq!(demo.url, demo.node_url(1));
    demo.wait_complete().await;
    let cluster = demo.cluster(2).await.expect("every node answers");
    assert!(cluster.demo && cluster.nodes.iter().filter(|info| info.node.voter).count() == 3);

    // Something is going on without anybody's doing.
    eventually("the gentle load to take locks, and to wait for them", SOON, async || {
        let url = format!("{}/v1/locks?prefix=demo/", demo.node_url(1));
        let response = demo.http.get(url).send().await.map_err(|error| error.to_string())?;
        let locks: Page<Lock> = response.json().await.map_err(|error| error.to_string())?;
        let contended = locks.items.iter().any(|lock| lock.held_by > 0 && lock.waited_by > 0);
        if contended { Ok(()) } else { Err(format!("{locks:?}")) }
    })
    .await;

    assert_eq!(chaos(&demo, 1, 3, "pause").await.state, ProcessState::Paused);
    wait_status(&demo, 1, 3, NodeStatus::Down).await;
    assert_eq!(chaos(&demo, 1, 3, "resume").await.state, ProcessState::Running);
    wait_status(&demo, 1, 3, NodeStatus::Up).await;
    assert_eq!(chaos(&demo, 2, 3, "kill").await.state, ProcessState::Exited);
    wait_status(&demo, 2, 3, NodeStatus::Down).await;
    assert_eq!(chaos(&demo, 2, 3, "restart").await.state, ProcessState::Running);
    wait_status(&demo, 2, 3, NodeStatus::Up).await;

    let added =
        demo.http.post(format!("{}/v1/demo/nodes", demo.node_url(1))).send().await.expect("an answer");
    assert_eq!(added.status(), StatusCode::CREATED);
    wait_status(&demo, 1, 4, NodeStatus::Up).await;
    let unknown = format!("{}/v1/demo/nodes/9/kill", demo.node_url(1));
    let refused = problem(demo.http.request(Method::POST, unknown).send().await.expect("an answer")).await;
    assert_eq!(refused.code, "unknown_node", "{refused:?}");

    let supervisor = demo.process.pid().as_raw();
    assert_eq!(processes_running(supervisor, "serve").len(), 4);
    assert_eq!(processes_running(supervisor, "sample-endpoint").len(), 5);
    chaos(&demo, 1, 2, "pause").await;
    demo.process.signal(Signal::SIGINT);
    let status = tokio::task::block_in_place(|| demo.process.wait(SOON));
    assert!(status.success(), "{status}: {}", demo.process.output());
    assert_eq!(processes_of(supervisor), Vec::<i32>::new(), "a process outlived the demo");
}

#[tokio::test(flavor = "multi_thread")]
async fn sample_services_are_served_by_every_proxy_and_die_and_come_back() {
    let mut demo = Demo::start(&[]).await;
    demo.wait_complete().await;
    let printed = eventually("the demo to say where its services are", SOON, async || {
        let output = demo.process.output();
        let line = output.lines().find(|line| line.starts_with("Sample services: ")).map(str::to_owned);
        line.ok_or(output)
    })
    .await;
    for node in 1..=3 {
        assert!(printed.contains(&demo.proxy_url(node)), "{printed}");
    }
    for node in 1..=3 {
        eventually("all endpoints of web to answer, and the primary of payments", SOON, async || {
            let mut who = BTreeSet::new();
            for _ in 0..20 {
                who.insert(get(&demo.http, &demo.proxy_url(node), "/").await?);
            }
            let web = (1..=3).all(|nth| who.contains(&format!("Hello from web-{nth}\n")));
            let primary = get(&demo.http, &demo.proxy_url(node), "/payments").await?;
            let payments = primary.starts_with("Hello from payments-1, primary in epoch ");
            if web && payments { Ok(()) } else { Err(format!("{who:?}, {primary:?}")) }
        })
        .await;
    }

    // An endpoint that is killed is not missed, and is restarted.
    let supervisor = demo.process.pid().as_raw();
    let victim = *processes_running(supervisor, "sample-endpoint").iter().min().expect("they run");
    kill(Pid::from_raw(victim), Signal::SIGKILL).expect("it is a process of ours");
    for nth in 0..100 {
        let answer = get(&demo.http, &demo.proxy_url(nth % 3 + 1), "/").await;
        assert!(answer.is_ok(), "request {nth} after the kill: {answer:?}");
    }
    eventually("the endpoint to be back", SOON, async || {
        let count = processes_running(supervisor, "sample-endpoint").len();
        let noticed = demo.process.output().contains("ended (signal: 9");
        if count == 5 && noticed { Ok(()) } else { Err(format!("{count} run, noticed: {noticed}")) }
    })
    .await;

    // Ended by force, the demo leaves no endpoint behind either.
    demo.process.kill();
    eventually("all to die with the demo", SOON, async || {
        let left = processes_of(supervisor);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_die_with_a_supervisor_that_is_killed() {
    let mut demo = Demo::start(&["--no-load"]).await;
    demo.wait_complete().await;
    chaos(&demo, 1, 2, "pause").await;
    let supervisor = demo.process.pid().as_raw();
    assert_eq!(processes_of(supervisor).len(), 3, "and no sample services");
    demo.process.kill();
    eventually("the nodes to die too, the paused one as well", Duration::from_secs(10), async || {
        let left = processes_of(supervisor);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
