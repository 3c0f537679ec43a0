//! What a node's proxy measures: telemetry, never agreed on.

use super::health::Verdict;
use crate::id::NodeId;
use serde::{Deserialize, Serialize};

/// What one node's proxy did for one upstream lately.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpstreamMetrics {
    pub upstream: String,
    pub node: NodeId,
    /// In the time since the figures before.
    pub requests_per_s: f64,
    /// Answers of 500 and above, and requests that got none.
    pub failures_per_s: f64,
    pub retries_per_s: f64,
    /// Over the last ten seconds; null where there was no request.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    /// Requests under way; of plain TCP, connections.
    pub in_flight: u32,
    /// Whether its endpoints have a health check.
    #[cfg(not(target_family = "wasm"))]
    #[serde(default)]
    pub checked: bool,
    pub endpoints: Vec<EndpointMetrics>,
}

impl UpstreamMetrics {
    /// Whether there is anything to tell.
    #[cfg(not(target_family = "wasm"))]
    pub fn is_busy(&self) -> bool {
        let busy =
            |endpoint: &EndpointMetrics| endpoint.ejected_for_ms.is_some() || endpoint.recent_requests > 0;
        let endpoints = self.endpoints.iter().any(busy);
        self.requests_per_s > 0.0 || self.in_flight > 0 || self.p50_us.is_some() || endpoints
    }
}

/// The same for one endpoint, with what this node thinks of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointMetrics {
    pub endpoint: String,
    pub requests_per_s: f64,
    pub failures_per_s: f64,
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    pub in_flight: u32,
    /// What this node's own checks say.
    pub verdict: Verdict,
    pub detail: String,
    /// How much longer this node leaves it out.
    pub ejected_for_ms: Option<u64>,
    /// What came to an end in the last ten seconds.
    #[cfg(not(target_family = "wasm"))]
    #[serde(default)]
    pub recent_requests: u64,
    /// Of these, answers of 500 and above, and requests that got none.
    #[cfg(not(target_family = "wasm"))]
    #[serde(default)]
    pub recent_failures: u64,
}

/// Why a request went where it went: one of few that are kept, as they come.
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
    /// How often it was sent again before this.
    pub retries: u32,
    pub status: u16,
    pub took_us: u64,
}

/// An endpoint that could have been chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Candidate {
    pub endpoint: String,
    /// Why it was left out; null where it could have been taken.
    pub why_ineligible: Option<String>,
    /// What the policy compared, such as `12 under way`.
    pub weighed: String,
}
