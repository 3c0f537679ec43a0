//! Self-registration: an endpoint registers itself for a TTL.
//!
//! Registration and removal are in the log; renewals are not. A registration that is not renewed within its TTL ends.

use super::{upstream::EndpointSpec, within};
use serde::{Deserialize, Serialize};

/// The shortest and the longest time that a registration holds.
pub const TTL_MS: std::ops::RangeInclusive<u64> = 500..=86_400_000;

/// The body of `POST /v1/upstreams/{upstream}/register`. The same again is a renewal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Register {
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub id: String,
    /// `host:port`, as the nodes reach it.
    pub addr: String,
    #[serde(default = "one")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub weight: u32,
    /// The registration ends if it is not renewed within this time.
    #[cfg_attr(feature = "openapi", schema(minimum = 500, maximum = 86400000))]
    pub ttl_ms: u64,
}

fn one() -> u32 {
    1
}

impl Register {
    /// Checks the request; the error says which value is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.endpoint().check()?;
        within("ttl_ms", self.ttl_ms, *TTL_MS.start(), *TTL_MS.end())
    }

    pub fn endpoint(&self) -> EndpointSpec {
        EndpointSpec { id: self.id.clone(), addr: self.addr.clone(), weight: self.weight }
    }
}

/// The body of `POST /v1/upstreams/{upstream}/deregister`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Deregister {
    pub id: String,
}

/// The response to a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Registered {
    pub upstream: String,
    pub id: String,
    pub ttl_ms: u64,
    /// The recommended time until the renewal: short enough for lost requests to do no harm.
    pub renew_after_ms: u64,
}

/// The serving endpoints of an upstream, by the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthyEndpoints {
    pub upstream: String,
    /// The revision that last changed anything about the upstream.
    pub revision: crate::id::Revision,
    pub endpoints: Vec<EndpointSpec>,
}
