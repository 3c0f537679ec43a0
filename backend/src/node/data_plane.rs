//! Connects the proxy with telemetry; neither knows the other.

use ringmaster_common::traffic::{
    health::{EndpointOpinion, ReceivedHeartbeat},
    live::{DrainingEndpoint, UpstreamMetrics},
    warnings::FailedListener,
};
use ringmaster_proxy::Proxy;
use ringmaster_telemetry::DataPlane;
use std::sync::Arc;

/// The proxy, as telemetry reads it.
pub struct ProxyDataPlane(pub Proxy);

impl DataPlane for ProxyDataPlane {
    fn opinions(&self) -> Arc<[EndpointOpinion]> {
        self.0.opinions().borrow().clone()
    }

    fn heartbeats(&self) -> Vec<ReceivedHeartbeat> {
        self.0.received_heartbeats()
    }

    fn metrics(&self) -> Arc<[UpstreamMetrics]> {
        self.0.metrics().borrow().clone()
    }

    fn draining(&self) -> Vec<DrainingEndpoint> {
        self.0.draining()
    }

    fn failed_listeners(&self) -> Vec<FailedListener> {
        self.0.failed_listeners()
    }
}
