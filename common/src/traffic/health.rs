//! Health: each node's opinion of an endpoint, and the cluster's verdict.
//!
//! Each node checks for itself. The cluster's verdict changes when a majority of the nodes that have
//! an opinion want it to; each opinion is kept beside it. A node's proxy avoids an endpoint if the
//! verdict or its own opinion is against it.

use super::within;
use crate::{Timestamp, id::NodeId, string_enum::string_enum};
use serde::{Deserialize, Serialize};

/// The longest name of a gRPC service, in bytes.
const MAX_SERVICE_BYTES: usize = 256;

/// How an endpoint is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum HealthCheck {
    /// A GET that is answered with the status that is expected.
    Http {
        #[serde(default = "root")]
        #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1024))]
        path: String,
        /// The `Host` header; the endpoint's address where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 253))]
        host: Option<String>,
        /// Any from 200 to 399 where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(minimum = 100, maximum = 599))]
        status: Option<u16>,
        #[serde(default = "defaults::interval_ms")]
        #[cfg_attr(feature = "openapi", schema(minimum = 50, maximum = 3600000))]
        interval_ms: u64,
        #[serde(default = "defaults::timeout_ms")]
        #[cfg_attr(feature = "openapi", schema(minimum = 10, maximum = 60000))]
        timeout_ms: u64,
        #[serde(default = "defaults::rise")]
        #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
        rise: u32,
        #[serde(default = "defaults::fall")]
        #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
        fall: u32,
        /// A flapping endpoint must pass its checks for longer each time before it is healthy, up to this; 0: for no
        /// longer than `rise` takes.
        #[serde(default = "defaults::max_hold_ms")]
        #[cfg_attr(feature = "openapi", schema(maximum = 3600000))]
        max_hold_ms: u64,
    },
    /// A connection.
    Tcp {
        #[serde(default = "defaults::interval_ms")]
        #[cfg_attr(feature = "openapi", schema(minimum = 50, maximum = 3600000))]
        interval_ms: u64,
        #[serde(default = "defaults::timeout_ms")]
        #[cfg_attr(feature = "openapi", schema(minimum = 10, maximum = 60000))]
        timeout_ms: u64,
        #[serde(default = "defaults::rise")]
        #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
        rise: u32,
        #[serde(default = "defaults::fall")]
        #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
        fall: u32,
        /// A flapping endpoint must pass its checks for longer each time before it is healthy, up to this; 0: for no
        /// longer than `rise` takes.
        #[serde(default = "defaults::max_hold_ms")]
        #[cfg_attr(feature = "openapi", schema(maximum = 3600000))]
        max_hold_ms: u64,
    },
    /// A call of `grpc.health.v1.Health/Check` that is answered with `SERVING`.
    Grpc {
        /// The service to ask about; the whole server where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// The `:authority` header; the endpoint's address where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        #[serde(default = "defaults::interval_ms")]
        interval_ms: u64,
        #[serde(default = "defaults::timeout_ms")]
        timeout_ms: u64,
        #[serde(default = "defaults::rise")]
        rise: u32,
        #[serde(default = "defaults::fall")]
        fall: u32,
        /// A flapping endpoint must pass its checks for longer each time before it is healthy, up to this; 0: for no
        /// longer than `rise` takes.
        #[serde(default = "defaults::max_hold_ms")]
        max_hold_ms: u64,
    },
    /// The endpoint sends a heartbeat to any node at least once in this time. The nodes forward it to each other.
    Heartbeat {
        #[cfg_attr(feature = "openapi", schema(minimum = 100, maximum = 86400000))]
        ttl_ms: u64,
    },
}

/// The interval, the time-out and the thresholds of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// The time between two checks, varied by a tenth so that nodes do not check at the same time.
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// The number of consecutive successes that makes an endpoint healthy. The first success is enough for a new one.
    pub rise: u32,
    /// The number of consecutive failures that makes an endpoint unhealthy.
    pub fall: u32,
    /// The longest time that a flapping endpoint must pass checks before it is healthy again.
    pub max_hold_ms: u64,
}

/// The defaults of a check.
mod defaults {
    pub(super) fn interval_ms() -> u64 {
        2_000
    }

    pub(super) fn timeout_ms() -> u64 {
        1_000
    }

    pub(super) fn rise() -> u32 {
        2
    }

    pub(super) fn fall() -> u32 {
        3
    }

    pub(super) fn max_hold_ms() -> u64 {
        30_000
    }
}

fn root() -> String {
    "/".to_owned()
}

impl HealthCheck {
    pub fn check(&self) -> Result<(), String> {
        match self {
            HealthCheck::Http { path, host, status, .. } => {
                if !path.starts_with('/')
                    || path.len() > 1024
                    || !path.bytes().all(|byte| byte.is_ascii_graphic())
                {
                    return Err(format!(
                        "health_check.path begins with / and is plain ASCII, unlike {path:?}"
                    ));
                }
                check_host(host.as_deref())?;
                if let Some(status) = status {
                    within("health_check.status", (*status).into(), 100, 599)?;
                }
            }
            HealthCheck::Grpc { service, host, .. } => {
                check_host(host.as_deref())?;
                if let Some(service) = service
                    && (service.len() > MAX_SERVICE_BYTES || service.chars().any(char::is_control))
                {
                    return Err(format!(
                        "health_check.service has up to {MAX_SERVICE_BYTES} bytes without control characters, unlike \
                         {service:?}"
                    ));
                }
            }
            HealthCheck::Heartbeat { ttl_ms } => {
                within("health_check.ttl_ms", *ttl_ms, 100, 86_400_000)?;
            }
            HealthCheck::Tcp { .. } => {}
        }
        self.rhythm().map_or(Ok(()), Rhythm::check)
    }

    /// Whether the nodes probe the endpoint. A heartbeat comes from the endpoint itself.
    pub fn is_active(&self) -> bool {
        self.rhythm().is_some()
    }

    /// `None` for checks without probes.
    pub fn rhythm(&self) -> Option<Rhythm> {
        match *self {
            HealthCheck::Http { interval_ms, timeout_ms, rise, fall, max_hold_ms, .. }
            | HealthCheck::Grpc { interval_ms, timeout_ms, rise, fall, max_hold_ms, .. }
            | HealthCheck::Tcp { interval_ms, timeout_ms, rise, fall, max_hold_ms } => {
                Some(Rhythm { interval_ms, timeout_ms, rise, fall, max_hold_ms })
            }
            HealthCheck::Heartbeat { .. } => None,
        }
    }
}

fn check_host(host: Option<&str>) -> Result<(), String> {
    match host {
        Some(host)
            if host.is_empty() || host.len() > 253 || !host.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Err(format!("health_check.host is no host: {host:?}"))
        }
        _ => Ok(()),
    }
}

impl Rhythm {
    fn check(self) -> Result<(), String> {
        within("health_check.interval_ms", self.interval_ms, 50, 3_600_000)?;
        within("health_check.timeout_ms", self.timeout_ms, 10, 60_000)?;
        within("health_check.rise", self.rise.into(), 1, 100)?;
        within("health_check.fall", self.fall.into(), 1, 100)?;
        within("health_check.max_hold_ms", self.max_hold_ms, 0, 3_600_000)
    }
}

/// The health of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum Verdict {
    /// Not known yet. The endpoint gets requests, unless it waits for its first active check.
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
}

string_enum!(Verdict: Unknown Healthy Unhealthy);

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Unknown => "unknown",
            Verdict::Healthy => "healthy",
            Verdict::Unhealthy => "unhealthy",
        }
    }
}

impl EndpointHealth {
    /// Stores an observer's opinion, in the order of observers. Returns whether it changed.
    pub fn set_opinion(&mut self, observer: NodeId, verdict: Verdict, detail: &str, at: Timestamp) -> bool {
        let place = self.opinions.binary_search_by_key(&observer, |opinion| opinion.observer);
        let before = place.map_or(Verdict::Unknown, |place| self.opinions[place].verdict);
        if before == verdict {
            return false;
        }
        let opinion = HealthOpinion { observer, verdict, detail: detail.to_owned(), since: at };
        match place {
            Ok(place) if verdict == Verdict::Unknown => {
                self.opinions.remove(place);
            }
            Ok(place) => self.opinions[place] = opinion,
            Err(place) => self.opinions.insert(place, opinion),
        }
        true
    }

    /// Drops the opinion of a former member.
    pub fn forget_observer(&mut self, gone: NodeId) {
        self.opinions.retain(|opinion| opinion.observer != gone);
    }
}

/// The cluster's verdict, and the opinions that it is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointHealth {
    pub verdict: Verdict,
    /// Null while the verdict is unknown.
    pub since: Option<Timestamp>,
    /// In the order of their ids.
    pub opinions: Vec<HealthOpinion>,
    /// The verdict is unknown, and the endpoint received requests before its check was configured: it keeps receiving
    /// them until there is a verdict.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assumed_healthy: bool,
}

impl EndpointHealth {
    /// Changes the verdict. Returns false if it is the same as before.
    pub fn set_verdict(&mut self, verdict: Verdict, at: Timestamp) -> bool {
        if self.verdict == verdict {
            return false;
        }
        (self.verdict, self.since, self.assumed_healthy) = (verdict, Some(at), false);
        true
    }
}

/// The opinion of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthOpinion {
    pub observer: NodeId,
    pub verdict: Verdict,
    /// The result of the check that changed it, such as `answered 503` or `connection refused`.
    pub detail: String,
    pub since: Timestamp,
}

/// One entry of an endpoint's health history: a changed opinion or verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthRecord {
    pub at: Timestamp,
    /// None: the cluster's verdict.
    pub observer: Option<NodeId>,
    pub verdict: Verdict,
    pub detail: String,
}

/// A heartbeat that a node has received itself, as it forwards it to the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedHeartbeat {
    pub upstream: String,
    pub endpoint: String,
    /// The address that the heartbeat is for.
    pub addr: String,
    /// The age when it was forwarded.
    pub age_ms: u64,
}

/// The result of a node's own checks of an endpoint, as it reports it to the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointOpinion {
    pub upstream: String,
    pub endpoint: String,
    /// The address that was checked. A report about another address does not count.
    pub addr: String,
    /// Never [`Verdict::Unknown`].
    pub verdict: Verdict,
    /// The result of the check that changed it.
    pub detail: String,
}
