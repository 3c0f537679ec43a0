//! Self-registration: an endpoint that says by itself that it is there, and for how long that holds.
//!
//! Being there and being gone are in the log; renewals are not. A registration that is not renewed for its TTL ends.

use super::{upstream::EndpointSpec, within};
use serde::{Deserialize, Serialize};

/// The shortest and the longest time that a registration holds.
pub const TTL_MS: std::ops::RangeInclusive<u64> = 500..=86_400_000;

/// The body of `POST /v1/upstreams/{upstream}/register`. The same again is a renewal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Register {
    pub id: String,
    /// `host:port`, as the nodes reach it.
    pub addr: String,
    #[serde(default = "one")]
    pub weight: u32,
    /// It ends if it is not renewed for so long.
    pub ttl_ms: u64,
}

fn one() -> u32 {
    1
}

impl Register {
    /// Says what is wrong with it, if anything.
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

/// What a registration is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Registered {
    pub upstream: String,
    pub id: String,
    pub ttl_ms: u64,
    /// When to register again, so that a lost request or two do no harm.
    pub renew_after_ms: u64,
}

/// Who takes requests of an upstream now, by what the cluster says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthyEndpoints {
    pub upstream: String,
    /// The revision that last changed anything about the upstream.
    pub revision: crate::id::Revision,
    pub endpoints: Vec<EndpointSpec>,
}
