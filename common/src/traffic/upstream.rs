//! Upstreams and their endpoints: configuration and state.

mod check;

use super::health::HealthCheck;
use super::health::{EndpointHealth, HealthRecord, Verdict};
use crate::{Timestamp, id::Revision, string_enum::string_enum};
pub use check::{check_addr, check_token};
use serde::{Deserialize, Serialize};

/// The greatest weight. An endpoint that should get nothing is drained, so no weight is 0.
pub const MAX_WEIGHT: u32 = 1000;

/// How an endpoint is chosen for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum Policy {
    /// One after the other, whatever they weigh.
    #[default]
    RoundRobin,
    /// In proportion to their weights, spread as evenly as can be.
    WeightedRoundRobin,
    /// Where the fewest requests are under way, in proportion to weight.
    LeastConnections,
    /// The better of two that are drawn, by latency and requests under way.
    P2cEwma,
    /// The same endpoint for the same key, unless that one has more than its share.
    ConsistentHash,
}

string_enum!(Policy: RoundRobin WeightedRoundRobin LeastConnections P2cEwma ConsistentHash);

impl Policy {
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::RoundRobin => "round_robin",
            Policy::WeightedRoundRobin => "weighted_round_robin",
            Policy::LeastConnections => "least_connections",
            Policy::P2cEwma => "p2c_ewma",
            Policy::ConsistentHash => "consistent_hash",
        }
    }
}

/// The input of the consistent hash. A request that lacks it is hashed by the client's address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum HashKey {
    #[default]
    ClientAddress,
    Path,
    Header {
        #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
        name: String,
    },
    Cookie {
        #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
        name: String,
    },
}

/// How endpoints are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS, as gRPC servers speak it. Clients may speak either version.
    Http2,
    /// Bytes, of which nothing is understood.
    Tcp,
}

string_enum!(Protocol: Http1 Http2 Tcp);

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Tcp => "tcp",
        }
    }
}

/// The body of `PUT /v1/upstreams/{name}`.
pub type UpstreamSpec = Configured<EndpointSpec>;

/// How an upstream is configured. Its endpoints are either the configuration alone (`EndpointSpec`) or the
/// configuration with the current state (`Endpoint`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Configured<E> {
    #[serde(default)]
    pub policy: Policy,
    /// The input of the policy `consistent_hash`.
    #[serde(default)]
    pub hash_key: HashKey,
    #[serde(default)]
    pub protocol: Protocol,
    /// Without one, an endpoint is taken for healthy until requests show otherwise. With an active one (`http`, `tcp`,
    /// `grpc`), a new endpoint receives requests once it has passed its first check.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
    #[serde(default)]
    pub outlier_ejection: OutlierEjection,
    #[serde(default)]
    pub retries: Retries,
    #[serde(default)]
    pub timeouts: Timeouts,
    #[serde(default)]
    pub connections: Connections,
    /// The name of a cookie that keeps a client on the same endpoint.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub sticky_cookie: Option<String>,
    /// Slow start: the share of a new endpoint grows to its full size over this time; 0: at once.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 3600000))]
    pub slow_start_ms: u64,
    /// The maximum number of requests in flight from each node to one endpoint.
    #[serde(default = "default_max_in_flight")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65536))]
    pub max_in_flight: u32,
    /// The time that requests have to end at an endpoint that is drained, before they are cut off.
    #[serde(default = "default_drain_ms")]
    #[cfg_attr(feature = "openapi", schema(maximum = 3600000))]
    pub drain_ms: u64,
    /// Sends the client's address to the endpoint, in version 2 of the PROXY protocol.
    #[serde(default)]
    pub send_proxy_protocol: bool,
    /// One endpoint alone is primary and gets all requests; the others stand by.
    #[serde(default)]
    pub active_standby: Option<ActiveStandby>,
    #[serde(default = "Vec::new")]
    #[cfg_attr(feature = "openapi", schema(max_items = 256))]
    pub endpoints: Vec<E>,
}

fn default_max_in_flight() -> u32 {
    1024
}

fn default_drain_ms() -> u64 {
    30_000
}

impl<E> Default for Configured<E> {
    fn default() -> Self {
        Configured {
            policy: Policy::default(),
            hash_key: HashKey::default(),
            protocol: Protocol::default(),
            health_check: None,
            outlier_ejection: OutlierEjection::default(),
            retries: Retries::default(),
            timeouts: Timeouts::default(),
            connections: Connections::default(),
            sticky_cookie: None,
            slow_start_ms: 0,
            max_in_flight: default_max_in_flight(),
            drain_ms: default_drain_ms(),
            send_proxy_protocol: false,
            active_standby: None,
            endpoints: Vec::new(),
        }
    }
}

impl<E> Configured<E> {
    /// The webhook that fences an old primary, if the upstream has one.
    pub fn fence_webhook(&self) -> Option<&str> {
        self.active_standby.as_ref()?.fence_webhook.as_deref()
    }

    /// The same with other endpoints.
    pub fn with_endpoints<F>(self, endpoints: Vec<F>) -> Configured<F> {
        Configured {
            policy: self.policy,
            hash_key: self.hash_key,
            protocol: self.protocol,
            health_check: self.health_check,
            outlier_ejection: self.outlier_ejection,
            retries: self.retries,
            timeouts: self.timeouts,
            connections: self.connections,
            sticky_cookie: self.sticky_cookie,
            slow_start_ms: self.slow_start_ms,
            max_in_flight: self.max_in_flight,
            drain_ms: self.drain_ms,
            send_proxy_protocol: self.send_proxy_protocol,
            active_standby: self.active_standby,
            endpoints,
        }
    }
}

/// One address of an upstream, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub id: String,
    /// `host:port`. A host name is resolved by each node for itself.
    pub addr: String,
    #[serde(default = "one")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// Outlier ejection: an endpoint whose requests keep failing receives none for a while, independently of health checks.
/// Each node ejects separately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct OutlierEjection {
    /// The number of consecutive failures (no connection, no response, an invalid or truncated one, 502, 503, 504) that ejects
    /// an endpoint; 0 is never. A time-out of a quiet request or response is not a failure of the endpoint.
    #[cfg_attr(feature = "openapi", schema(maximum = 1000))]
    pub consecutive_failures: u32,
    /// The duration of the first ejection; it doubles each time, up to `max_ms`.
    #[cfg_attr(feature = "openapi", schema(minimum = 100, maximum = 3600000))]
    pub base_ms: u64,
    #[cfg_attr(feature = "openapi", schema(minimum = 100, maximum = 86400000))]
    pub max_ms: u64,
    /// The maximum percentage of ejected endpoints; one of several may always be ejected.
    #[cfg_attr(feature = "openapi", schema(maximum = 100))]
    pub max_ejected_percent: u32,
}

impl Default for OutlierEjection {
    fn default() -> Self {
        OutlierEjection { consecutive_failures: 5, base_ms: 5_000, max_ms: 300_000, max_ejected_percent: 50 }
    }
}

/// Retries at another endpoint. Only safe requests are retried: those that never reached the endpoint, and
/// those with an idempotent method and a body that can be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// The maximum number of retries of a request.
    #[cfg_attr(feature = "openapi", schema(maximum = 10))]
    pub attempts: u32,
    /// The maximum percentage of retries among all requests, so that retries cannot overload the remaining endpoints.
    #[cfg_attr(feature = "openapi", schema(maximum = 100))]
    pub budget_percent: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Retries { attempts: 2, budget_percent: 20 }
    }
}

/// The time-outs of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// The time to connect.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 60000))]
    pub connect_ms: u64,
    /// The time from the end of the request to the head of the response.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 3600000))]
    pub response_ms: u64,
    /// The time without a byte in either direction.
    #[cfg_attr(feature = "openapi", schema(minimum = 10, maximum = 86400000))]
    pub idle_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { connect_ms: 1_000, response_ms: 30_000, idle_ms: 60_000 }
    }
}

/// The connections to endpoints that are kept for further requests. Plain TCP keeps none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// The time that a connection is kept without a request; 0: it is closed after its request. It should be shorter than the
    /// time after which the endpoints close idle connections.
    pub idle_ms: u64,
    /// The age from which a connection gets no further request; 0: no limit.
    pub max_age_ms: u64,
}

impl Default for Connections {
    fn default() -> Self {
        Connections { idle_ms: 30_000, max_age_ms: 3_600_000 }
    }
}

/// One endpoint is the primary and receives all requests. Its epoch grows with each failover and is sent with each
/// request, so that a resource can reject older epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ActiveStandby {
    /// Whether the cluster fails over automatically when the primary is down.
    pub automatic: bool,
    /// How long the primary has to be down before that.
    #[cfg_attr(feature = "openapi", schema(maximum = 3600000))]
    pub grace_ms: u64,
    /// The time after a failover in which the cluster starts no other automatically.
    #[cfg_attr(feature = "openapi", schema(maximum = 86400000))]
    pub hold_down_ms: u64,
    /// The `http://` URL that is sent a POST to fence the old primary before another endpoint is promoted.
    #[cfg_attr(feature = "openapi", schema(max_length = 1024))]
    pub fence_webhook: Option<String>,
}

impl Default for ActiveStandby {
    fn default() -> Self {
        ActiveStandby { automatic: true, grace_ms: 3_000, hold_down_ms: 60_000, fence_webhook: None }
    }
}

/// The state of an endpoint, as an operator set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum EndpointState {
    /// It receives requests if it is healthy.
    #[default]
    Ready,
    /// It receives no new requests; requests in progress may finish.
    Drain,
    /// It receives no requests and is not checked.
    Maintenance,
}

string_enum!(EndpointState: Ready Drain Maintenance);

impl EndpointState {
    pub fn as_str(self) -> &'static str {
        match self {
            EndpointState::Ready => "ready",
            EndpointState::Drain => "drain",
            EndpointState::Maintenance => "maintenance",
        }
    }
}

/// An endpoint with its state and health.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Endpoint {
    pub id: String,
    pub addr: String,
    pub weight: u32,
    pub state: EndpointState,
    pub state_since: Timestamp,
    /// The cluster's verdict, and each node's opinion.
    pub health: EndpointHealth,
    /// Present if the endpoint registered itself; it is removed when the registration ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<Registration>,
}

/// A registration ends when it is not renewed within its TTL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Registration {
    pub ttl_ms: u64,
    pub since: Timestamp,
}

/// The primary of an upstream with active and standby endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Primary {
    /// Null while there is no primary; requests are refused then.
    pub endpoint: Option<String>,
    /// Grows with each new primary of any upstream of this cluster.
    pub epoch: u64,
    pub since: Timestamp,
    /// When the cluster fails over automatically, unless the primary is healthy again before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails_over_at: Option<Timestamp>,
}

/// An upstream: its configuration and the states of its endpoints, side by side in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Upstream {
    pub name: String,
    /// Endpoints are in the order of the configuration; endpoints that registered themselves come last.
    #[serde(flatten)]
    pub config: Configured<Endpoint>,
    /// Present for an active-standby upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<Primary>,
    /// The revision that last configured it, as its ETag names it.
    pub version: Revision,
    pub updated_at: Timestamp,
    pub updated_by: String,
}

impl Endpoint {
    /// An operator has set its state. In maintenance it is not checked, so afterwards it is as good as new.
    pub fn set_state(&mut self, state: EndpointState, at: Timestamp) {
        (self.state, self.state_since) = (state, at);
        self.health.assumed_healthy &= state != EndpointState::Maintenance;
    }

    /// An endpoint in its first state.
    pub fn new(spec: &EndpointSpec, at: Timestamp) -> Endpoint {
        Endpoint {
            id: spec.id.clone(),
            addr: spec.addr.clone(),
            weight: spec.weight,
            state: EndpointState::Ready,
            state_since: at,
            health: EndpointHealth::default(),
            registered: None,
        }
    }

    pub fn spec(&self) -> EndpointSpec {
        EndpointSpec { id: self.id.clone(), addr: self.addr.clone(), weight: self.weight }
    }
}

impl Upstream {
    pub fn endpoint(&self, id: &str) -> Option<&Endpoint> {
        self.config.endpoints.iter().find(|endpoint| endpoint.id == id)
    }

    pub fn endpoint_mut(&mut self, id: &str) -> Option<&mut Endpoint> {
        self.config.endpoints.iter_mut().find(|endpoint| endpoint.id == id)
    }

    /// Replaces the endpoint with its id, or adds it after the others of its kind.
    pub fn put_endpoint(&mut self, endpoint: Endpoint) {
        if let Some(place) = self.endpoint_mut(&endpoint.id) {
            *place = endpoint;
            return;
        }
        let endpoints = &mut self.config.endpoints;
        let configured = endpoints.iter().position(|known| known.registered.is_some());
        let place = configured.filter(|_| endpoint.registered.is_none()).unwrap_or(endpoints.len());
        endpoints.insert(place, endpoint);
    }

    pub fn remove_endpoint(&mut self, id: &str) -> Option<Endpoint> {
        let endpoints = &mut self.config.endpoints;
        let place = endpoints.iter().position(|known| known.id == id)?;
        Some(endpoints.remove(place))
    }

    /// An operator has configured it.
    pub fn configured(&mut self, version: Revision, at: Timestamp, by: &str) {
        self.version = version;
        self.updated_at = at;
        by.clone_into(&mut self.updated_by);
    }

    /// The configuration as it can be put again, without endpoints that registered themselves.
    pub fn spec(&self) -> UpstreamSpec {
        let configured = self.config.endpoints.iter().filter(|endpoint| endpoint.registered.is_none());
        let endpoints = configured.map(Endpoint::spec).collect();
        self.config.clone().with_endpoints(endpoints)
    }

    /// Whether an endpoint is new, and receives no requests before it has passed its first check. An endpoint that served
    /// before the check was configured is none of these.
    pub fn awaits_first_check(&self, endpoint: &Endpoint) -> bool {
        let health = &endpoint.health;
        let is_checked = self.config.health_check.as_ref().is_some_and(HealthCheck::is_active);
        is_checked && health.verdict == Verdict::Unknown && !health.assumed_healthy
    }

    /// Whether an endpoint gets requests, by the replicated state.
    pub fn is_serving(&self, endpoint: &Endpoint) -> bool {
        let stands_by =
            self.primary.as_ref().is_some_and(|primary| primary.endpoint.as_ref() != Some(&endpoint.id));
        endpoint.state == EndpointState::Ready
            && endpoint.health.verdict != Verdict::Unhealthy
            && !self.awaits_first_check(endpoint)
            && !stands_by
    }
}

/// One endpoint, with its past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointDetail {
    pub upstream: String,
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// Whether it gets requests, by the replicated state.
    pub is_serving: bool,
    /// The latest changes of its health, oldest first.
    pub health_history: Vec<HealthRecord>,
}
