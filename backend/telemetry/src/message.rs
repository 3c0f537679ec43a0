//! A report on its way to another node.

use crate::checkpoint::Checkpoint;
use bytes::Bytes;
use ringmaster_common::{
    id::{NodeId, Revision},
    telemetry::NodeReport,
    traffic::{
        health::{EndpointOpinion, ReceivedHeartbeat},
        live::{DrainingEndpoint, UpstreamMetrics},
        warnings::{FailedListener, UnresolvableName},
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// How many opinions of endpoints a report carries at the most. The other nodes lack those beyond.
const MAX_OPINIONS: usize = 4096;
/// For how many endpoints a report carries metrics at the most. Those beyond are not shown elsewhere.
const MAX_ENDPOINT_METRICS: usize = 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    /// How old the report was when it was sent: a relayed one has an age.
    #[serde(default)]
    pub(crate) age_ms: u64,
    #[serde(flatten)]
    pub(crate) report: NodeReport,
    /// Opinions are for the leader; browsers see its verdict in the log.
    #[serde(default)]
    pub(crate) opinions: Arc<[EndpointOpinion]>,
    /// The heartbeats that the node has received itself. They are for the proxies of all nodes.
    #[serde(default)]
    pub(crate) heartbeats: Arc<[ReceivedHeartbeat]>,
    #[serde(default)]
    pub(crate) traffic: Arc<[UpstreamMetrics]>,
    /// The revision of the routing table that its proxy has applied.
    #[serde(default)]
    pub(crate) applied_table_revision: Revision,
    /// The endpoints that receive no new requests and still have requests in flight at its proxy. Never older than that
    /// routing table.
    #[serde(default)]
    pub(crate) draining: Arc<[DrainingEndpoint]>,
    #[serde(default)]
    pub(crate) failed_listeners: Arc<[FailedListener]>,
    #[serde(default)]
    pub(crate) unresolvable_names: Arc<[UnresolvableName]>,
    /// How far the node has applied the log.
    #[serde(default)]
    pub(crate) applied: Position,
    /// Digests of its state.
    #[serde(default)]
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// How far each other node had applied it by all of its reports to this one.
    #[serde(default)]
    pub(crate) remembered: BTreeMap<NodeId, Position>,
}

/// An entry of the log; a later term stands above a higher index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) term: u64,
    pub(crate) index: Revision,
}

impl Message {
    pub(crate) fn encode(&self) -> Bytes {
        Bytes::from(rmp_serde::to_vec_named(self).expect("plain data encodes"))
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Message, rmp_serde::decode::Error> {
        rmp_serde::from_slice(body)
    }
}

/// As many opinions as a report carries.
pub(crate) fn bounded(opinions: Arc<[EndpointOpinion]>) -> Arc<[EndpointOpinion]> {
    if opinions.len() <= MAX_OPINIONS { opinions } else { opinions[..MAX_OPINIONS].into() }
}

/// The metrics of busy upstreams, as many as a report carries.
pub(crate) fn busy(metrics: &[UpstreamMetrics]) -> Arc<[UpstreamMetrics]> {
    let mut reported = 0;
    let fits = |upstream: &&UpstreamMetrics| {
        let fits = reported + upstream.endpoints.len() <= MAX_ENDPOINT_METRICS;
        reported += if fits { upstream.endpoints.len() } else { 0 };
        fits
    };
    metrics.iter().filter(|upstream| upstream.is_busy()).filter(fits).cloned().collect()
}
