//! What this node's proxy reports. Telemetry knows no proxy; the composition of the node connects the two.

use ringmaster_common::traffic::{
    health::{EndpointOpinion, ReceivedHeartbeat},
    live::{DrainingEndpoint, UpstreamMetrics},
    warnings::{FailedListener, UnresolvableName},
};
use std::sync::Arc;

pub trait DataPlane: Send + Sync + 'static {
    /// The results of its own health checks.
    fn opinions(&self) -> Arc<[EndpointOpinion]>;
    /// The heartbeats that it has received from endpoints.
    fn heartbeats(&self) -> Vec<ReceivedHeartbeat>;
    /// Its work over the last seconds.
    fn metrics(&self) -> Arc<[UpstreamMetrics]>;
    /// The endpoints that receive no new requests and still have requests in flight, as of now.
    fn draining(&self) -> Vec<DrainingEndpoint>;
    /// The addresses that it should listen on and cannot.
    fn failed_listeners(&self) -> Vec<FailedListener>;
    /// The configured names that its DNS server cannot resolve; none if the node serves no DNS.
    fn unresolvable_names(&self) -> Vec<UnresolvableName>;
}
