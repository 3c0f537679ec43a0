//! Each class of requests has its bound, and none keeps an operator from failing over.

use reqwest::{Method, StatusCode};
use ringmaster_common::{
    action::Action,
    error::Problem,
    id::{GroupId, NodeId},
    operation::OperationStatus,
};
use ringmaster_tests::{SOON, cluster::Cluster, cluster::problem, eventually};
use serde_json::json;
use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The bound of the class `settings`.
const SETTINGS_BOUND: usize = 256;
const READS_BOUND: usize = 256;
/// How many writers flood a node: more than it takes at a time.
const FLOOD: usize = 400;
/// How long an operator may have to wait for an answer during a flood.
const PATIENCE: Duration = Duration::from_secs(10);

fn check_overloaded(problem: &Problem) {
    assert_eq!((problem.status, problem.code.as_str()), (429, "overloaded"));
    assert_eq!((problem.class.as_deref(), problem.bound), (Some("settings"), Some(SETTINGS_BOUND as u64)));
    assert!(problem.detail.contains("256"), "{}", problem.detail);
}

async fn refused(cluster: &Cluster, node: u64, class: &str) -> u64 {
    let response = cluster.send(node, Method::GET, "/metrics", None).await.expect("metrics");
    let text = response.text().await.expect("a text");
    let begin = format!("ringmaster_admission_refused_total{{class=\"{class}\"}}");
    let line = text.lines().find(|line| line.starts_with(&begin));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_class_is_refused_at_once_and_others_are_served() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    // Without a quorum, writes wait for one.
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.node_mut(node).pause();
    }
    let over = 44;
    let url = format!("{}/v1/settings/held", cluster.node(leader).url);
    let writes: Vec<_> = (0..SETTINGS_BOUND + over)
        .map(|number| {
            let request = cluster.http.put(&url).json(&json!({ "value": number }));
            tokio::spawn(async move { request.send().await.expect("an answer") })
        })
        .collect();
    eventually("the class to be full", SOON, async || match refused(&cluster, leader, "settings").await {
        count if count == over as u64 => Ok(()),
        count => Err(format!("{count} of {over} are refused")),
    })
    .await;
    // Others are not touched by it. A read waits for a quorum like a write, and takes no place of control's.
    let reads: Vec<_> =
        (0..READS_BOUND + over).map(|_| tokio::spawn(cluster.http.get(&url).send())).collect();
    eventually("reads to be refused", SOON, async || match refused(&cluster, leader, "reads").await {
        0 => Err("none is".to_owned()),
        _ => Ok(()),
    })
    .await;
    cluster.cluster(leader).await.expect("the state is read");
    let stale = cluster.send(leader, Method::GET, "/v1/operations?consistency=stale", None).await;
    assert_eq!(stale.expect("an answer").status(), 200);

    for read in reads {
        read.await.expect("it ends").expect("an answer");
    }

    let mut overloaded = 0;
    for write in writes {
        let response = write.await.expect("it ends");
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(response.headers()["retry-after"], "1");
            assert_eq!(response.headers()["connection"], "close");
            check_overloaded(&problem(response).await);
            overloaded += 1;
        } else {
            assert_eq!(response.status(), 503, "no quorum, no write");
        }
    }
    assert_eq!(overloaded, over);
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.node_mut(node).resume();
    }
    eventually("writes to be taken again", SOON, async || {
        cluster.put_setting(leader, "held", json!("after")).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_settings_does_not_keep_an_operator_from_failing_over() {
    let cluster = Cluster::start(3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (taken, turned_away) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let leader = cluster.leader().await;
    let flood: Vec<_> = (0..FLOOD)
        .map(|writer| {
            let (stop, taken, turned_away) = (stop.clone(), taken.clone(), turned_away.clone());
            let url = format!("{}/v1/settings/flood-{}", cluster.node(leader).url, writer % 16);
            let http = cluster.http.clone();
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match http.put(&url).json(&json!({ "value": "x".repeat(512) })).send().await {
                        Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                            turned_away.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(_) => drop(taken.fetch_add(1, Ordering::Relaxed)),
                        // A connection that was let go; there is another.
                        Err(_) => {}
                    }
                }
            })
        })
        .collect();
    eventually("the flood to reach the bound", SOON, async || {
        match refused(&cluster, leader, "settings").await {
            0 => Err(format!("{} writes were taken", taken.load(Ordering::Relaxed))),
            _ => Ok(()),
        }
    })
    .await;

    // Over the node that is flooded, twice: there and back.
    let longest = Cell::new(Duration::ZERO);
    for _ in 0..2 {
        // A plan that observed a lag may be refused as it starts, and a busy leader may have lost an
        // election meanwhile; an operator looks again, and plans again.
        eventually("leadership to be handed over", SOON, async || {
            let leads = cluster.cluster(leader).await?.leader.ok_or("there is no leader")?.0;
            let action = Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(leads % 3 + 1) };
            let started = Instant::now();
            let plan = cluster.plan(leader, &action).await?;
            let operation = cluster.apply(leader, &plan).await?;
            longest.set(longest.get().max(started.elapsed()));
            let ended = cluster.outcome(leader, &operation).await;
            if ended.status == OperationStatus::Succeeded {
                Ok(())
            } else {
                Err(format!("{:?}", ended.error))
            }
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in flood {
        writer.await.expect("it ends");
    }
    let (taken, turned_away) = (taken.load(Ordering::Relaxed), turned_away.load(Ordering::Relaxed));
    let longest = longest.get();
    println!("{taken} writes were answered, {turned_away} refused; planning and applying took {longest:?}");
    assert!(turned_away > 0 && taken > 0, "{taken} taken, {turned_away} refused");
    assert!(longest < PATIENCE, "planning and applying took {longest:?}");
}
