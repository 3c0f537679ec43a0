//! Measurements and decisions of this node's own proxy.
//!
//! None of it is replicated: the proxy of another node has seen other requests. So each answer is about the node
//! that gives it, and is the same with and without a quorum.

use crate::Services;
use ringmaster_common::{
    error::{Code, Refusal},
    traffic::live::{Decision, UpstreamMetrics},
};

/// What this node's proxy measured for an upstream.
pub fn metrics(services: &Services, upstream: &str) -> Result<UpstreamMetrics, Refusal> {
    let measured = services.proxy.metrics().borrow().clone();
    measured.iter().find(|metrics| metrics.upstream == upstream).cloned().ok_or_else(|| unknown(upstream))
}

/// The last decisions of this node's proxy about an upstream, the oldest first.
pub fn decisions(services: &Services, upstream: &str) -> Result<Vec<Decision>, Refusal> {
    services.proxy.decisions(upstream).ok_or_else(|| unknown(upstream))
}

/// Takes the heartbeat of an endpoint. The nodes pass it on to each other.
pub fn heartbeat(services: &Services, upstream: &str, endpoint: &str) -> Result<(), Refusal> {
    if services.proxy.heartbeat(upstream, endpoint) {
        return Ok(());
    }
    let detail = format!("the proxy of this node has no endpoint {endpoint:?} of an upstream {upstream:?}");
    Err(Refusal::new(Code::UnknownEndpoint, detail))
}

fn unknown(upstream: &str) -> Refusal {
    Refusal::new(Code::UnknownUpstream, format!("the proxy of this node has no upstream {upstream:?}"))
}
