//! How long writes fail when the leader is lost. The bounds are loose: `ringmaster-bench elections`
//! measures, with more faults and nothing else on the machine.

use ringmaster_tests::{SOON, cluster::Cluster, writers::Writers};
use std::time::{Duration, Instant};
use tokio::{task::block_in_place, time::sleep};

/// How long the writer waits for a node before it turns to the next.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longer than the rule by which a restarted node does not vote yet.
const PAUSE: Duration = Duration::from_millis(600);

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_taken_soon_after_the_leader_was_killed() {
    const KILLS: usize = 5;
    let mut cluster = Cluster::start(3).await;
    let writers = Writers::start_patient(&cluster, 1, PATIENCE);
    let mut outages = Vec::new();
    for _ in 0..KILLS {
        let leader = cluster.wait_healthy().await;
        sleep(PAUSE).await;
        let start = Instant::now();
        block_in_place(|| cluster.node_mut(leader).kill());
        let ack = writers.first_after(Instant::now(), SOON).await.expect("a node takes a write");
        outages.push(ack.came - start);
        cluster.node_mut(leader).start();
    }
    cluster.wait_healthy().await;
    let record = writers.stop().await;
    cluster.power_cycle().await;
    for node in 1..=3 {
        record.check(&cluster, node).await;
    }
    outages.sort();
    println!("{KILLS} kills: {outages:?}; {} writes acknowledged", record.acknowledgements);
    assert!(outages[KILLS / 2] < Duration::from_secs(1), "outages were {outages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_hardly_pause_when_the_leader_is_stopped() {
    const STOPS: usize = 3;
    let mut cluster = Cluster::start(3).await;
    let writers = Writers::start_patient(&cluster, 1, PATIENCE);
    let mut gaps = Vec::new();
    for _ in 0..STOPS {
        let leader = cluster.wait_healthy().await;
        sleep(PAUSE).await;
        let start = Instant::now();
        block_in_place(|| cluster.node_mut(leader).terminate());
        writers.first_after(Instant::now(), SOON).await.expect("a node takes a write");
        gaps.push(writers.longest_gap_since(start));
        cluster.node_mut(leader).start();
    }
    gaps.sort();
    println!("{STOPS} stops: the longest gaps were {gaps:?}");
    // Of an election, it would be more than the lease, each time.
    assert!(gaps[STOPS / 2] < Duration::from_millis(230), "gaps were {gaps:?}");
}
