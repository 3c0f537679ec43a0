//! Measurements of a node's proxy: telemetry, never replicated.

use super::health::Verdict;
use crate::id::NodeId;
use serde::{Deserialize, Serialize};

/// The metrics of one upstream at one node's proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpstreamMetrics {
    pub upstream: String,
    pub node: NodeId,
    /// In the time since the previous metrics.
    pub requests_per_s: f64,
    /// Responses of 500 and above, and requests without a response.
    pub failures_per_s: f64,
    pub retries_per_s: f64,
    /// Over the last ten seconds; null where there was no request.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    /// Requests under way; of plain TCP, connections.
    pub in_flight: u32,
    /// Whether its endpoints have a health check.
    #[serde(default)]
    pub checked: bool,
    pub endpoints: Vec<EndpointMetrics>,
}

impl UpstreamMetrics {
    /// Whether there is anything to report.
    pub fn is_busy(&self) -> bool {
        let busy =
            |endpoint: &EndpointMetrics| endpoint.ejected_for_ms.is_some() || endpoint.recent_requests > 0;
        let endpoints = self.endpoints.iter().any(busy);
        self.requests_per_s > 0.0 || self.in_flight > 0 || self.p50_us.is_some() || endpoints
    }
}

/// The same for one endpoint, with this node's opinion of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointMetrics {
    pub endpoint: String,
    pub requests_per_s: f64,
    pub failures_per_s: f64,
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    pub in_flight: u32,
    /// The result of this node's own checks.
    pub verdict: Verdict,
    pub detail: String,
    /// The remaining time of its ejection at this node.
    pub ejected_for_ms: Option<u64>,
    /// Requests that ended in the last ten seconds.
    #[serde(default)]
    pub recent_requests: u64,
    /// Of these, failures of the endpoint: responses of 500 and above, and requests that it left without a complete and valid
    /// response. Time-outs of quiet requests and responses, and heads beyond the proxy's bounds, do not count.
    #[serde(default)]
    pub recent_failures: u64,
}

/// An endpoint that receives no new requests (it was removed, is drained, in maintenance or stands by) and still has
/// requests in flight at one node's proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainingEndpoint {
    pub upstream: String,
    pub endpoint: String,
    pub addr: String,
    /// Requests in flight; of plain TCP, connections.
    pub in_flight: u32,
}

/// What still drains of an upstream, over all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Draining {
    pub upstream: String,
    /// How long requests in flight may take from the time when their endpoint receives no new ones.
    pub drain_ms: u64,
    /// The endpoints that receive no new requests and still have requests in flight, removed ones included.
    pub endpoints: Vec<InFlight>,
    /// Nodes that are up and have not reported since the upstream last changed: they may still send requests to endpoints
    /// that receive none any more, and have requests in flight there.
    pub unconfirmed: Vec<NodeId>,
}

/// The requests in flight at an endpoint, over all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InFlight {
    pub endpoint: String,
    pub addr: String,
    /// Of plain TCP, connections.
    pub in_flight: u32,
}

impl Draining {
    /// The requests in flight at one endpoint.
    pub fn in_flight(&self, endpoint: &str, addr: &str) -> u32 {
        let found = self.endpoints.iter().filter(|one| one.endpoint == endpoint && one.addr == addr);
        found.map(|one| one.in_flight).sum()
    }
}

/// The reason why a request was sent to an endpoint: a sample of the latest requests is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Decision {
    pub at: crate::Timestamp,
    pub node: NodeId,
    pub route: String,
    pub upstream: String,
    /// Method and path, without the query.
    pub request: String,
    pub considered: Vec<Candidate>,
    pub chosen: Option<String>,
    /// Why this one, as a sentence.
    pub why: String,
    /// The number of retries before this.
    pub retries: u32,
    pub status: u16,
    pub took_us: u64,
}

/// An endpoint that could have been chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Candidate {
    pub endpoint: String,
    /// Why it was not eligible; null where it was.
    pub why_ineligible: Option<String>,
    /// The value that the policy compared, such as `12 in flight`.
    pub weighed: String,
}
