//! How long writes fail when the leader is lost.
//!
//! One writer writes all the while, and turns to the next node when one fails. An outage lasts from
//! the fault until the first acknowledgement of a write that was begun after it. At the end all nodes
//! are killed at once and started again, and each is asked for everything that was acknowledged.

use crate::{
    NODES,
    report::{Report, Times},
};
use clap::ValueEnum;
use ringmaster_tests::{
    cluster::{Cluster, Program},
    network::Network,
    writers::Writers,
};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{task::block_in_place, time::sleep};

/// Longer than any outage that is one: after it, the run has failed.
const OUTAGE_LIMIT: Duration = Duration::from_secs(30);
/// How long the writer continues after a leader was stopped, before the gap is read off.
const SETTLE: Duration = Duration::from_secs(1);
/// How often the run says how far it is.
const SAY_EVERY: u32 = 20;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How often to take the leader away
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// How to take it away
    #[arg(long, value_enum, default_value_t = Fault::Kill)]
    fault: Fault,
    /// How long the writer waits for a node before it turns to the next
    #[arg(long, default_value_t = 100, value_name = "MS")]
    patience_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fault {
    /// kill -9
    Kill,
    /// Cut off from everybody, the writer included (needs root)
    Partition,
    /// It hears the others, and they do not hear it (needs root)
    Mute,
    /// SIGTERM: it hands over first
    Term,
}

impl Arguments {
    pub fn needs_network(&self) -> bool {
        matches!(self.fault, Fault::Partition | Fault::Mute)
    }
}

pub async fn run(program: &Program, arguments: &Arguments) -> Result<Report, String> {
    let network = arguments.needs_network().then(|| Network::create(NODES)).transpose()?;
    let mut cluster = match &network {
        Some(network) => Cluster::start_on(program.clone(), &network.hosts()).await,
        None => crate::start(program).await,
    };
    let writers = Writers::start_patient(&cluster, 1, Duration::from_millis(arguments.patience_ms));
    let first_term = term(&cluster).await?;
    let mut outages = Vec::new();
    for round in 1..=arguments.kills {
        let leader = cluster.wait_healthy().await;
        // Another phase between heartbeats and time-outs each time, and no node that may not vote yet.
        sleep(Duration::from_millis(rand::random_range(600..1_200))).await;
        let outage = match &network {
            Some(network) => partition(&cluster, network, &writers, leader, arguments.fault).await?,
            None => stop(&mut cluster, &writers, leader, arguments.fault).await?,
        };
        outages.push(outage);
        if round % SAY_EVERY == 0 {
            let so_far = Times::new(outages.clone());
            eprintln!("{round} of {}: p50 {:?}", arguments.kills, so_far.quantile(0.5));
        }
    }
    cluster.wait_healthy().await;
    let terms = term(&cluster).await? - first_term;
    let record = writers.stop().await;
    cluster.power_cycle().await;
    let mut losses = Vec::new();
    for node in &cluster.nodes {
        losses.extend(record.losses(&cluster, node.id).await);
    }

    let times = Times::new(outages);
    let seconds = |q| times.quantile(q).as_secs_f64();
    let mut report = Report::new(match arguments.fault {
        Fault::Kill => "The leader is killed: seconds until a write is acknowledged",
        Fault::Mute => "The leader can receive but not send: seconds until a write is acknowledged",
        Fault::Partition => "The leader is cut off: seconds until a write is acknowledged",
        Fault::Term => {
            "The leader is stopped by SIGTERM: the longest gap between acknowledged writes, in seconds"
        }
    });
    report.row(vec![
        ("faults", json!(arguments.kills)),
        ("p50", json!(seconds(0.5))),
        ("p90", json!(seconds(0.9))),
        ("p99", json!(seconds(0.99))),
        ("max", json!(seconds(1.0))),
        ("terms", json!(terms)),
        ("acknowledged", json!(record.acknowledgements)),
        ("unknown", json!(record.unknowns)),
        ("lost", json!(losses.len())),
    ]);
    match arguments.fault {
        Fault::Kill => {
            report.check("p50", seconds(0.5), 0.3);
            report.check("p99", seconds(0.99), 0.8);
        }
        Fault::Partition | Fault::Mute => {
            report.check("p50", seconds(0.5), 0.6);
            report.check("p99", seconds(0.99), 1.2);
        }
        Fault::Term => report.check("max", seconds(1.0), 0.05),
    }
    report.check("acknowledged writes that a replica has lost", losses.len() as f64, 0.0);
    for loss in losses {
        report.note(loss);
    }
    Ok(report)
}

async fn stop(
    cluster: &mut Cluster,
    writers: &Writers,
    leader: u64,
    fault: Fault,
) -> Result<Duration, String> {
    let start = Instant::now();
    let outage = if fault == Fault::Term {
        block_in_place(|| cluster.node_mut(leader).terminate());
        sleep(SETTLE).await;
        writers.longest_gap_since(start)
    } else {
        block_in_place(|| cluster.node_mut(leader).kill());
        outage(writers, start).await?
    };
    cluster.node_mut(leader).start();
    Ok(outage)
}

async fn partition(
    cluster: &Cluster,
    network: &Network,
    writers: &Writers,
    leader: u64,
    fault: Fault,
) -> Result<Duration, String> {
    let start = Instant::now();
    let outage = if fault == Fault::Mute {
        network.mute(leader)?;
        let outage = outage(writers, start).await?;
        network.unmute(leader)?;
        outage
    } else {
        network.cut_off(leader)?;
        let outage = outage(writers, start).await?;
        network.heal(leader)?;
        outage
    };
    // Its own view of who leads is stale until it hears of the election.
    let witness = leader % cluster.nodes.len() as u64 + 1;
    cluster.wait_status(witness, leader, ringmaster_common::cluster::NodeStatus::Up).await;
    Ok(outage)
}

/// From `start` on; to be asked when the fault is there.
async fn outage(writers: &Writers, start: Instant) -> Result<Duration, String> {
    match writers.first_after(Instant::now(), OUTAGE_LIMIT).await {
        Some(ack) => Ok(ack.came - start),
        None => Err(format!("no node took a write within {OUTAGE_LIMIT:?}")),
    }
}

async fn term(cluster: &Cluster) -> Result<u64, String> {
    let leader = cluster.leader().await;
    Ok(cluster.cluster(leader).await?.term)
}
