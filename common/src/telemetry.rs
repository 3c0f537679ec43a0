//! Telemetry: what is measured, not agreed. Never in Raft, always with its source and age.

use crate::{
    Timestamp,
    cluster::{Role, Sees},
    id::NodeId,
};
use serde::{Deserialize, Serialize};

/// The latest report of each node, as the sending node has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sample {
    /// The node that sends it.
    pub from: NodeId,
    pub at: Timestamp,
    pub nodes: Vec<AgedReport>,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    pub peer: NodeId,
    pub sees: Sees,
    /// The latest round-trip time, in microseconds.
    pub rtt_us: Option<u64>,
    /// Since anything was heard of it.
    pub silent_ms: Option<u64>,
    /// Why it cannot be reached, where it cannot.
    #[serde(default)]
    pub trouble: Option<String>,
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
