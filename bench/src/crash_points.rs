//! Every fsync of a node, as a place to be killed at.

use crate::report::Report;
use ringmaster_tests::{
    cluster::Program,
    crash_points::{Work, check_strace, crash},
};
use serde_json::json;

/// No work has so many fsyncs; a run that does not end before has failed.
const MOST_POINTS: u32 = 500;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only the first so many points of each kind of work
    #[arg(long)]
    points: Option<u32>,
}

pub async fn run(program: &Program, arguments: &Arguments) -> Result<Report, String> {
    check_strace()?;
    let mut report = Report::new("A node is killed at each of its fsyncs in turn");
    let mut lost = 0;
    for work in Work::ALL {
        let (mut kills, mut acknowledged, mut losses) = (0, 0, Vec::new());
        let mut passed = false;
        for nth in 1..=arguments.points.unwrap_or(MOST_POINTS) {
            let crash = crash(program.clone(), work, nth).await;
            acknowledged += crash.acknowledged;
            losses.extend(crash.losses.into_iter().map(|loss| format!("{work:?}, fsync {nth}: {loss}")));
            passed = !crash.killed;
            if passed {
                break;
            }
            kills += 1;
        }
        eprintln!("{work:?}: {kills} kills");
        if !passed && arguments.points.is_none() {
            return Err(format!("{work:?} has not ended after {MOST_POINTS} fsyncs"));
        }
        report.row(vec![
            ("work", json!(format!("{work:?}").to_lowercase())),
            ("kills", json!(kills)),
            ("every fsync", json!(if passed { "yes" } else { "no" })),
            ("acknowledged", json!(acknowledged)),
            ("lost", json!(losses.len())),
        ]);
        lost += losses.len();
        losses.into_iter().for_each(|loss| report.note(loss));
    }
    report.check("acknowledged writes that a replica has lost", lost as f64, 0.0);
    Ok(report)
}
