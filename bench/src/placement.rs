//! The placement of shards beside a plain consistent-hash ring: how full the fullest node is, and how many replicas move
//! when a node joins.

use crate::report::Report;
use ringmaster_common::{
    id::NodeId,
    placement::{Balance, Place, Problem, baseline, moves},
};
use serde_json::json;
use std::{collections::BTreeSet, time::Instant};

const REPLICAS: u32 = 3;
const ZONES: u64 = 3;
const SIZES: [(u64, usize); 8] =
    [(9, 64), (15, 64), (30, 64), (49, 64), (9, 256), (15, 256), (30, 256), (49, 256)];
/// For 256 shards and 50 nodes.
const TARGET_MS: f64 = 10.0;

fn places(count: u64) -> Vec<Place> {
    let place = |node: u64| Place { node: NodeId(node), zone: format!("zone-{}", node % ZONES), weight: 1 };
    (1..=count).map(place).collect()
}

pub fn run() -> Result<Report, String> {
    let mut report = Report::new(format!("A node joins {ZONES} zones, {REPLICAS} replicas of each shard"));
    let mut slowest: f64 = 0.0;
    for (nodes, shards) in SIZES {
        let (before, after) = (places(nodes), places(nodes + 1));
        let unplaced = vec![BTreeSet::new(); shards];
        let current = Problem::new(&before, REPLICAS, &unplaced, Balance::Even).solve();
        let start = Instant::now();
        let problem = Problem::new(&after, REPLICAS, &current, Balance::Even);
        let placement = problem.solve();
        let took_ms = start.elapsed().as_secs_f64() * 1e3;
        slowest = slowest.max(took_ms);
        if let Some(cycle) = problem.negative_cycle(&placement)? {
            return Err(format!("the placement is not optimal: {cycle:?}"));
        }
        let ring = [&before, &after].map(|places| baseline::solve(places, shards as u32, REPLICAS));
        report.row(vec![
            ("nodes", json!(nodes)),
            ("shards", json!(shards)),
            ("fullest / share, ring", json!(problem.fullest(&ring[1]))),
            ("placement", json!(problem.fullest(&placement))),
            ("moves, ring", json!(moves(&ring[0], &ring[1]))),
            ("moves, placement", json!(moves(&current, &placement))),
            ("ms", json!(took_ms)),
        ]);
    }
    report.check("milliseconds for a placement, the slowest", slowest, TARGET_MS);
    Ok(report)
}
