//! Measures a node and its links.

use crate::store::Telemetry;
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{
    cluster::Liveness,
    duration::{micros, millis},
    id::NodeId,
    setting::{DOWN_AFTER, SUSPECT_AFTER},
    telemetry::{Link, NodeReport, OneWayFault},
};
use ringmaster_net::clock;
use ringmaster_peer::{LinkState, Peers};
use std::time::Duration;

/// How unlikely a silence must be before its peer is suspected, and before it is called dead, however long it is: once
/// in a thousand times by chance, and once in a hundred million.
const SUSPECT_PHI: f64 = 3.0;
const DEAD_PHI: f64 = 8.0;

/// Judges all links of this node.
pub fn links(telemetry: &Telemetry, group: &ClusterGroup, peers: &Peers) -> Vec<Link> {
    let state = group.state();
    let suspect_after = Duration::from_millis(state.settings.number(&SUSPECT_AFTER));
    let down_after = Duration::from_millis(state.settings.number(&DOWN_AFTER));
    let uptime = telemetry.uptime();
    let links = peers.links();
    let silence = |link: &LinkState| match link.silent_for {
        Some(silent) => (silent, link.phi),
        // A peer that was never heard from has been silent since this node started, and is at least suspect.
        None => (uptime.max(suspect_after), f64::INFINITY),
    };
    // A node that hears none of its peers is more likely cut off than all of them are dead.
    let is_isolated = links.len() > 1 && links.iter().all(|link| silence(link).0 >= suspect_after);
    links
        .iter()
        .map(|state| {
            let mut link = Link {
                peer: state.peer,
                sees: match silence(state) {
                    (silent, phi) if !is_isolated && silent >= down_after && phi >= DEAD_PHI => {
                        Liveness::Dead
                    }
                    (silent, phi) if silent >= suspect_after && phi >= SUSPECT_PHI => Liveness::Suspect,
                    _ => Liveness::Alive,
                },
                rtt_us: state.rtt.map(micros),
                silent_ms: state.silent_for.map(millis),
                trouble: None,
                reachability: state.reachability,
                feature_level: state.feature_level,
            };
            link.trouble = trouble(telemetry.me(), &link, state, is_isolated);
            link
        })
        .collect()
}

/// The trouble with a link, as half a sentence.
pub fn trouble(me: NodeId, link: &Link, state: &LinkState, is_isolated: bool) -> Option<String> {
    let peer = link.peer;
    if link.is_one_way() {
        return Some(OneWayFault { from: me, to: peer }.to_string());
    }
    if is_isolated {
        return Some(format!("node {me} hears from no other node, so it is probably cut off itself"));
    }
    let why = state.trouble.as_ref().filter(|_| !state.connected)?;
    Some(match link.sees {
        Liveness::Alive => format!("node {me} hears from node {peer}, but cannot connect to it: {why}"),
        Liveness::Suspect | Liveness::Dead => format!("node {me} cannot connect to node {peer}: {why}"),
    })
}

pub fn report(telemetry: &Telemetry, group: &ClusterGroup, fsyncs: u64, links: Vec<Link>) -> NodeReport {
    let status = group.status();
    let latencies = group.latencies().summary(clock::now());
    NodeReport {
        node: telemetry.me(),
        role: status.role,
        term: status.term,
        leader: status.leader,
        last_log_index: status.last_log_index,
        committed_index: status.committed_index,
        applied_index: status.applied_index,
        snapshot_index: status.snapshot_index,
        lost_through: group.lost_through(),
        joint_voters: group.joint_voters(),
        uptime_ms: millis(telemetry.uptime()),
        rss_bytes: resident_bytes(),
        streams: telemetry.streams(),
        proposals_per_s: latencies.per_second,
        commit_p50_us: latencies.p50.map(micros),
        commit_p99_us: latencies.p99.map(micros),
        fsyncs,
        links,
        replication: status.replication,
    }
}

/// Resident memory, as the kernel counts it; 0 where that cannot be read.
pub fn resident_bytes() -> u64 {
    const PAGE: u64 = 4096;
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |pages| pages * PAGE)
}
