//! The cost of three idle nodes: heartbeats, pings, reports.

use crate::{report::Report, usage};
use ringmaster_tests::cluster::Program;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long after it has formed a cluster counts as idle.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

pub async fn run(program: &Program, arguments: &Arguments) -> Result<Report, String> {
    let mut cluster = crate::start(program).await;
    sleep(SETTLE).await;
    let leader = cluster.leader().await;
    let pids: Vec<_> = cluster.nodes.iter_mut().map(|node| node.process().pid()).collect();
    let each = || pids.iter().map(|pid| usage::cpu(&[*pid])).collect::<Result<Vec<_>, _>>();
    let (start, before) = (Instant::now(), each()?);
    sleep(Duration::from_secs(arguments.seconds)).await;
    let (took, after) = (start.elapsed(), each()?);

    let mut report = Report::new("Three idle nodes");
    let (mut total, mut largest) = (0.0, 0.0_f64);
    for (n, pid) in pids.iter().enumerate() {
        let percent = 100.0 * (after[n] - before[n]).as_secs_f64() / took.as_secs_f64();
        let megabytes = usage::memory(*pid)? as f64 / 1e6;
        total += percent;
        largest = largest.max(megabytes);
        let role = if n as u64 + 1 == leader { "leader" } else { "follower" };
        report.row(vec![
            ("node", json!(n + 1)),
            ("role", json!(role)),
            ("CPU %", json!(percent)),
            ("RSS MB", json!(megabytes)),
        ]);
    }
    report.check("CPU of all, in % of a core", total, 3.0);
    report.check("RSS of the largest, in MB", largest, 60.0);
    Ok(report)
}
