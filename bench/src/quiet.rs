//! No leader is voted out of office for being busy.

use crate::{load, report::Report, writes};
use ringmaster_tests::{SOON, cluster::Program, eventually};
use serde_json::json;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// How many clients write at a time
    #[arg(long, default_value_t = 64)]
    clients: u64,
}

pub async fn run(program: &Program, arguments: &Arguments) -> Result<Report, String> {
    let cluster = crate::start(program).await;
    let leader = cluster.leader().await;
    let before = cluster.cluster(leader).await?.term;
    let duration = Duration::from_secs_f64(60.0 * arguments.minutes);
    let load = load::run(&writes::target(&cluster, leader), arguments.clients, duration).await?;
    let after = eventually("the term after the load", SOON, async || {
        cluster.cluster(leader).await.map(|body| body.term)
    })
    .await;

    let mut report = Report::new("Full load, and no node fails");
    report.row(vec![
        ("minutes", json!(arguments.minutes)),
        ("clients", json!(arguments.clients)),
        ("writes/s", json!(load.per_second())),
        ("failures", json!(load.failures)),
        ("p99 ms", json!(load.latencies.quantile(0.99).as_secs_f64() * 1e3)),
        ("max ms", json!(load.latencies.quantile(1.0).as_secs_f64() * 1e3)),
        ("elections", json!(after - before)),
    ]);
    report.check("needless elections", (after - before) as f64, 0.0);
    Ok(report)
}
