//! Endpoints that are killed under load, and what clients of the proxies see of that.

use crate::report::Report;
use ringmaster_tests::{
    cluster::Program,
    traffic::{BRIEFLY, Load, Site},
};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 50)]
    kills: usize,
}

pub async fn run(program: &Program, arguments: &Arguments) -> Result<Report, String> {
    let mut site = Site::start(program.clone(), json!({})).await;
    let load = Load::start(&site.cluster, BRIEFLY);
    site.kill_endpoints(arguments.kills, &load).await;
    let tally = load.stop().await;
    let mut report = Report::new("Endpoints killed (kill -9) under load through three proxies");
    report.row(vec![
        ("kills", json!(arguments.kills)),
        ("requests", json!(tally.sent)),
        ("requests/s", json!(tally.sent as f64 / tally.took.as_secs_f64())),
        ("slowest ms", json!(tally.slowest.as_secs_f64() * 1e3)),
        ("failed", json!(tally.failures.len())),
    ]);
    report.check("idempotent requests that failed", tally.failures.len() as f64, 0.0);
    tally.failures.into_iter().for_each(|failure| report.note(failure));
    Ok(report)
}
