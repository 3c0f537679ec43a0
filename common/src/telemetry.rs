//! Telemetry: what is measured, not agreed. Never in Raft, always with its source and age.

use crate::{
    Timestamp,
    cluster::{Liveness, Role},
    id::NodeId,
    plan::Warning,
    string_enum::string_enum,
};
use serde::{Deserialize, Serialize};
use std::fmt;

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
    /// What somebody should look at, of what the nodes' proxies have met.
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

/// What one node measured of itself and of its links.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeReport {
    pub node: NodeId,
    pub role: Role,
    pub term: u64,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
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
    /// How often it has waited for its disk since it started.
    #[serde(default)]
    pub fsyncs: u64,
    pub links: Vec<Link>,
    /// For a leader: how far each other member has come.
    pub replication: Vec<Replication>,
}

/// What a node measures of a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    pub peer: NodeId,
    pub sees: Liveness,
    /// The latest round-trip time, in microseconds.
    pub rtt_us: Option<u64>,
    /// Since anything was heard of it.
    pub silent_ms: Option<u64>,
    /// What is wrong with the link, as half a sentence that names both nodes; null where nothing is.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Which ways packets pass between the two, by beats beside the connections.
    #[serde(default)]
    pub reachability: Reachability,
    /// What the peer's process could do if all could, as it last said.
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

/// Which ways packets pass between a node and its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum Reachability {
    /// Nothing arrives from the peer, which may have many reasons.
    #[default]
    Unknown,
    BothWays,
    /// What the peer sends arrives, and says that what this node sends does not.
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

    /// Whether what this node sends is lost, and what the peer sends is not. Where a connection of
    /// either stands, both ways pass, whatever became of beats.
    pub fn is_one_way(&self) -> bool {
        self.sees != Liveness::Alive && self.reachability == Reachability::InOnly
    }
}

/// What is wrong with these links, each thing once.
pub fn troubles(links: &[Link]) -> Vec<&str> {
    let mut troubles: Vec<&str> = links.iter().filter_map(|link| link.trouble.as_deref()).collect();
    troubles.dedup();
    troubles
}

/// The report of `node`, if it is fresh.
pub fn fresh(reports: &[AgedReport], node: NodeId) -> Option<&AgedReport> {
    reports.iter().find(|aged| aged.report.node == node && aged.age_ms <= FRESH_MS)
}

/// A link that carries one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneWayFault {
    /// Whose packets are lost.
    pub from: NodeId,
    /// Who does not hear them, and is heard.
    pub to: NodeId,
}

/// Every link that carries one way only, as fresh reports tell.
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
        write!(f, "what node {from} sends does not reach node {to}; what node {to} sends reaches node {from}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `observer` reports, whose links are these.
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
        let named = ["what node 2 sends does not reach node 1; what node 1 sends reaches node 2"];
        assert_eq!(faults(Liveness::Dead, Reachability::InOnly, 0), named);
        assert!(faults(Liveness::Dead, Reachability::Unknown, 0).is_empty());
        assert!(faults(Liveness::Dead, Reachability::BothWays, 0).is_empty());
        assert!(
            faults(Liveness::Alive, Reachability::InOnly, 0).is_empty(),
            "beats are blocked, and nothing else is"
        );
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
