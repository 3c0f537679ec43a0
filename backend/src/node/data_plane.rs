//! Connects the proxy with telemetry; neither knows the other.

use ringmaster_common::traffic::{
    health::{EndpointOpinion, ReceivedHeartbeat},
    live::{DrainingEndpoint, UpstreamMetrics},
    warnings::{FailedListener, UnresolvableName},
};
use ringmaster_proxy::Proxy;
use ringmaster_telemetry::DataPlane;
use std::sync::Arc;

/// The proxy, as telemetry reads it.
pub struct ProxyDataPlane {
    pub proxy: Proxy,
    pub serves_dns: bool,
}

impl DataPlane for ProxyDataPlane {
    fn opinions(&self) -> Arc<[EndpointOpinion]> {
        self.proxy.opinions().borrow().clone()
    }

    fn heartbeats(&self) -> Vec<ReceivedHeartbeat> {
        self.proxy.received_heartbeats()
    }

    fn metrics(&self) -> Arc<[UpstreamMetrics]> {
        self.proxy.metrics().borrow().clone()
    }

    fn draining(&self) -> Vec<DrainingEndpoint> {
        self.proxy.draining()
    }

    fn failed_listeners(&self) -> Vec<FailedListener> {
        self.proxy.failed_listeners()
    }

    fn unresolvable_names(&self) -> Vec<UnresolvableName> {
        if self.serves_dns { self.proxy.unresolvable_names() } else { Vec::new() }
    }
}
