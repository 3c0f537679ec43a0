//! Contention for locks, for as long as it takes: holders that are paused past their TTL, leaders that
//! are killed and paused, wall clocks that jump. Afterwards it is checked whether what all of them saw can have been.

use crate::report::Report;
use ringmaster_tests::{cluster::Program, contention::Contention};
use serde_json::json;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How often a holder is paused for three times its TTL
    #[arg(long, default_value_t = 1000)]
    pauses: u32,
    /// How many contend
    #[arg(long, default_value_t = 16)]
    contenders: usize,
    /// How many locks they contend for
    #[arg(long, default_value_t = 2)]
    locks: usize,
    #[arg(long, default_value_t = 150, value_name = "MS")]
    ttl_ms: u64,
    /// After how many pauses the leader is killed or paused in turn, its clock having jumped by two hours
    #[arg(long, default_value_t = 25)]
    strike_every: u32,
}

pub async fn run(program: &Program, arguments: &Arguments) -> Result<Report, String> {
    let contention = Contention {
        contenders: arguments.contenders,
        locks: arguments.locks,
        ttl: Duration::from_millis(arguments.ttl_ms),
        pauses: arguments.pauses,
        strike_every: Some(arguments.strike_every),
        clock_jumps: true,
        unchecked_resource: false,
        fast_clocks: false,
    };
    let outcome = contention.run(program.clone()).await;
    let findings = outcome.findings;
    let mut report = Report::new(format!(
        "{} clients contend for {} locks with a TTL of {} ms; holders are paused, leaders killed and paused, clocks jump",
        arguments.contenders, arguments.locks, arguments.ttl_ms
    ));
    report.row(vec![
        ("pauses", json!(outcome.pauses)),
        ("kills", json!(outcome.kills)),
        ("leader pauses", json!(outcome.leader_pauses)),
        ("jumps", json!(outcome.jumps)),
        ("grants", json!(outcome.grants)),
        ("unknown", json!(outcome.unknown)),
        ("writes", json!(outcome.writes)),
        ("refused as stale", json!(outcome.refused_writes)),
    ]);
    let kinds = [
        ("holders that overlap", &findings.overlaps),
        ("tokens out of order", &findings.disorder),
        ("refusals without ground", &findings.groundless),
        ("stale writes that were taken", &findings.stale_writes),
    ];
    for (what, found) in kinds {
        report.check(what, found.len() as f64, 0.0);
        for finding in found {
            report.note(finding);
        }
    }
    Ok(report)
}
