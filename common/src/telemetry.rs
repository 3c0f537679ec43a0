//! Telemetry: measurements. Never in Raft, always with their source and age.

use crate::{
    Timestamp,
    id::NodeId,
    node::{Liveness, Role},
    plan::Warning,
    string_enum::string_enum,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// A report older than this says nothing about now. Nodes report twice a second.
pub const FRESH_MS: u64 = 2_500;

/// The latest report of each node, as the sending node has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sample {
    /// The node that sends it.
    pub from: NodeId,
    pub at: Timestamp,
    pub nodes: Vec<AgedReport>,
    /// Warnings from the nodes' proxies.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// A node's report, and how old it is at the node that passes it on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgedReport {
    pub age_ms: u64,
    #[serde(flatten)]
    pub report: NodeReport,
}

/// The measurements of one node: of itself and of its links.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeReport {
    pub node: NodeId,
    pub role: Role,
    pub term: u64,
    /// The leader, as far as the node knows.
    pub leader: Option<NodeId>,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    /// The index through which the node had acknowledged entries that it has lost since; null where it has lost none,
    /// or has them again. Until then it does not lead, and does not count as a voter.
    #[serde(default)]
    pub lost_through: Option<u64>,
    /// While a change of voters is under way: the voters before it, then those after it. Empty at all other times.
    #[serde(default)]
    pub joint_voters: Vec<BTreeSet<NodeId>>,
    /// How long the process has run.
    pub uptime_ms: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Browsers that stream from it.
    pub streams: u32,
    /// Commands that it proposed as leader, in the time since its last report.
    pub proposals_per_s: f64,
    /// From proposing to applied, over the last ten seconds; null where there was none.
    pub commit_p50_us: Option<u64>,
    pub commit_p99_us: Option<u64>,
    /// The number of fsyncs since the process started.
    #[serde(default)]
    pub fsyncs: u64,
    pub links: Vec<Link>,
    /// For a leader: how far each other member has come.
    pub replication: Vec<Replication>,
}

/// The measurements of a link to a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    pub peer: NodeId,
    pub sees: Liveness,
    /// The latest round-trip time, in microseconds.
    pub rtt_us: Option<u64>,
    /// The time since the last message from the peer.
    pub silent_ms: Option<u64>,
    /// The fault of the link, as half a sentence that names both nodes; null for a link that works.
    #[serde(default)]
    pub trouble: Option<String>,
    /// The directions in which packets pass between the two, by probes beside the connections.
    #[serde(default)]
    pub reachability: Reachability,
    /// The feature level that the peer's process supports, as it last reported.
    #[serde(default)]
    pub feature_level: Option<u32>,
}

/// How far a follower or learner has come, by the leader's count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replication {
    pub node: NodeId,
    pub matched_index: u64,
    /// Entries of the leader's log that it lacks.
    pub lag: u64,
}

/// The directions in which packets pass between a node and its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum Reachability {
    /// Nothing arrives from the peer, which may have many reasons.
    #[default]
    Unknown,
    BothWays,
    /// Packets from the peer arrive, and report that packets from this node do not.
    InOnly,
}

string_enum!(Reachability: Unknown BothWays InOnly);

impl Reachability {
    pub fn as_str(self) -> &'static str {
        match self {
            Reachability::Unknown => "unknown",
            Reachability::BothWays => "both_ways",
            Reachability::InOnly => "in_only",
        }
    }
}

impl Link {
    /// Whether the node that has this link can call the peer.
    pub fn works(&self) -> bool {
        self.sees == Liveness::Alive && self.trouble.is_none()
    }

    /// Whether packets from this node are lost and packets from the peer arrive. An open connection passes both
    /// ways, whatever the probes report.
    pub fn is_one_way(&self) -> bool {
        self.sees != Liveness::Alive && self.reachability == Reachability::InOnly
    }
}

/// The faults of these links, each once.
pub fn troubles(links: &[Link]) -> Vec<&str> {
    let mut troubles: Vec<&str> = links.iter().filter_map(|link| link.trouble.as_deref()).collect();
    troubles.dedup();
    troubles
}

/// Whether `node` lacks entries that it had acknowledged, by its last report.
pub fn has_losses(reports: &[AgedReport], node: NodeId) -> bool {
    fresh(reports, node).is_some_and(|aged| aged.report.lost_through.is_some())
}

/// A warning for each node that lacks entries which it had acknowledged.
pub fn losses<'a>(reports: impl Iterator<Item = &'a NodeReport>) -> impl Iterator<Item = Warning> {
    reports.filter_map(|report| {
        let (node, through) = (report.node, report.lost_through?);
        Some(Warning {
            code: "entries_lost".to_owned(),
            detail: format!(
                "node {node} has lost log entries that it had acknowledged (through index {through}, and it has them \
                 through {}): its data directory is an older copy, or a part of it is gone; until it has them again it \
                 does not count as a voter",
                report.last_log_index
            ),
            subject: format!("node/{node}"),
        })
    })
}

/// The report of `node`, if it is fresh.
pub fn fresh(reports: &[AgedReport], node: NodeId) -> Option<&AgedReport> {
    reports.iter().find(|aged| aged.report.node == node && aged.age_ms <= FRESH_MS)
}

/// A link that carries one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneWayFault {
    /// The node whose packets are lost.
    pub from: NodeId,
    /// The node that does not receive them; its own packets arrive.
    pub to: NodeId,
}

/// Every link that carries one way only, by fresh reports.
pub fn one_way_faults(reports: &[AgedReport]) -> Vec<OneWayFault> {
    let fresh = reports.iter().filter(|aged| aged.age_ms <= FRESH_MS);
    fresh.flat_map(|aged| aged.report.one_way_faults()).collect()
}

impl NodeReport {
    fn one_way_faults(&self) -> impl Iterator<Item = OneWayFault> {
        let faults = self.links.iter().filter(|link| link.is_one_way());
        faults.map(|link| OneWayFault { from: self.node, to: link.peer })
    }
}

impl fmt::Display for OneWayFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OneWayFault { from, to } = self;
        write!(f, "packets from node {from} do not reach node {to}; packets from node {to} reach node {from}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The report of `observer`, with these links.
    fn report(observer: u64, links: Vec<Link>) -> AgedReport {
        AgedReport {
            age_ms: 100,
            report: NodeReport { node: NodeId(observer), links, ..NodeReport::default() },
        }
    }

    fn link(peer: u64, sees: Liveness, reachability: Reachability) -> Link {
        Link { peer: NodeId(peer), sees, reachability, ..Link::default() }
    }

    #[test]
    fn only_one_way_is_a_one_way_fault() {
        let faults = |sees, reachability, age_ms| {
            let aged = AgedReport { age_ms, ..report(2, vec![link(1, sees, reachability)]) };
            one_way_faults(&[aged]).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let named = ["packets from node 2 do not reach node 1; packets from node 1 reach node 2"];
        assert_eq!(faults(Liveness::Dead, Reachability::InOnly, 0), named);
        assert!(faults(Liveness::Dead, Reachability::Unknown, 0).is_empty());
        assert!(faults(Liveness::Dead, Reachability::BothWays, 0).is_empty());
        assert!(faults(Liveness::Alive, Reachability::InOnly, 0).is_empty(), "only the probes are blocked");
        assert!(faults(Liveness::Dead, Reachability::InOnly, FRESH_MS + 1).is_empty());
    }

    #[test]
    fn an_older_report_can_be_read() {
        let mut value =
            serde_json::to_value(report(2, vec![link(1, Liveness::Alive, Reachability::BothWays)])).unwrap();
        value["links"][0].as_object_mut().unwrap().remove("reachability");
        let aged: AgedReport = serde_json::from_value(value).unwrap();
        assert_eq!(aged.report.links[0].reachability, Reachability::Unknown);
    }
}
