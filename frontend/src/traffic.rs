//! Traffic in numbers and words: the load of an upstream over all proxies, and the precedence of routes.
//!
//! Each node measures for itself. Rates and requests under way are added up; of latencies the highest of the
//! nodes is shown: no quantile of all requests is above it.

use crate::tone::Tone;
use ringmaster_common::{
    Timestamp,
    id::NodeId,
    traffic::{
        health::Verdict,
        live::{EndpointMetrics, UpstreamMetrics},
        route::RouteSpec,
        upstream::{Endpoint, EndpointState, Upstream},
    },
};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};

/// The load of an upstream or an endpoint, over all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    pub requests_per_s: f64,
    pub failures_per_s: f64,
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    pub in_flight: u64,
}

impl Load {
    fn of_upstream(metrics: &UpstreamMetrics) -> Load {
        Load {
            requests_per_s: metrics.requests_per_s,
            failures_per_s: metrics.failures_per_s,
            p50_us: metrics.p50_us,
            p99_us: metrics.p99_us,
            in_flight: metrics.in_flight.into(),
        }
    }

    fn of_endpoint(metrics: &EndpointMetrics) -> Load {
        Load {
            requests_per_s: metrics.requests_per_s,
            failures_per_s: metrics.failures_per_s,
            p50_us: metrics.p50_us,
            p99_us: metrics.p99_us,
            in_flight: metrics.in_flight.into(),
        }
    }

    fn and(self, other: Load) -> Load {
        Load {
            requests_per_s: self.requests_per_s + other.requests_per_s,
            failures_per_s: self.failures_per_s + other.failures_per_s,
            p50_us: self.p50_us.max(other.p50_us),
            p99_us: self.p99_us.max(other.p99_us),
            in_flight: self.in_flight + other.in_flight,
        }
    }

    /// How many of a hundred requests fail; none where there are no requests.
    pub fn failure_percent(self) -> Option<f64> {
        (self.requests_per_s > 0.0).then(|| (self.failures_per_s / self.requests_per_s * 100.0).min(100.0))
    }
}

/// The traffic of the last two minutes, a sample each second, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficHistory(VecDeque<(Timestamp, Vec<UpstreamMetrics>)>);

impl TrafficHistory {
    pub fn push(&mut self, at: Timestamp, metrics: Vec<UpstreamMetrics>) {
        if self.0.len() == crate::metrics::HISTORY {
            self.0.pop_front();
        }
        self.0.push_back((at, metrics));
    }

    /// The latest sample.
    pub fn latest(&self) -> &[UpstreamMetrics] {
        self.0.back().map_or(&[], |(_, metrics)| metrics)
    }

    /// The current load in a scope.
    pub fn load(&self, scope: &TrafficScope) -> Load {
        scope.load(self.latest())
    }

    /// The current load of each upstream that has any.
    pub fn by_upstream(&self) -> BTreeMap<&str, Load> {
        let mut loads = BTreeMap::<&str, Load>::new();
        for metrics in self.latest() {
            let load = loads.entry(&metrics.upstream).or_default();
            *load = load.and(Load::of_upstream(metrics));
        }
        loads
    }

    /// The time of the oldest sample.
    pub fn since(&self) -> Option<Timestamp> {
        self.0.front().map(|(at, _)| *at)
    }

    /// One metric over time.
    pub fn line(&self, scope: &TrafficScope, metric: fn(Load) -> Option<f64>) -> Vec<Option<f64>> {
        self.0.iter().map(|(_, metrics)| metric(scope.load(metrics))).collect()
    }
}

/// The scope of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrafficScope {
    All,
    Upstream(String),
    Endpoint(String, String),
}

impl TrafficScope {
    fn load(&self, metrics: &[UpstreamMetrics]) -> Load {
        let of = |metrics: &UpstreamMetrics| match self {
            TrafficScope::Endpoint(upstream, endpoint) if *upstream == metrics.upstream => {
                metrics.endpoints.iter().find(|known| known.endpoint == *endpoint).map(Load::of_endpoint)
            }
            TrafficScope::Upstream(upstream) if *upstream != metrics.upstream => None,
            TrafficScope::Endpoint(..) => None,
            TrafficScope::All | TrafficScope::Upstream(_) => Some(Load::of_upstream(metrics)),
        };
        metrics.iter().filter_map(of).fold(Load::default(), Load::and)
    }
}

/// The message that asks a node for the traffic, with the endpoints of one upstream or of none.
pub fn wanted(upstream: Option<&str>) -> String {
    json!({ "type": "follow", "topic": "traffic", "upstream": upstream }).to_string()
}

pub fn verdict_tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Unknown => Tone::Unknown,
        Verdict::Healthy => Tone::Good,
        Verdict::Unhealthy => Tone::Bad,
    }
}

/// How an upstream selects endpoints, in two words.
pub fn mode(upstream: &Upstream) -> String {
    match upstream.primary {
        Some(_) => "active standby".to_owned(),
        None => upstream.config.policy.as_str().replace('_', " "),
    }
}

/// The part of an endpoint, by the replicated state.
pub fn part(upstream: &Upstream, endpoint: &Endpoint) -> &'static str {
    let primary = upstream.primary.as_ref().map(|primary| primary.endpoint.as_ref() == Some(&endpoint.id));
    match (endpoint.state, primary) {
        (EndpointState::Drain, _) => "draining",
        (EndpointState::Maintenance, _) => "in maintenance",
        _ if endpoint.health.verdict == Verdict::Unhealthy && primary != Some(true) => "not eligible",
        _ if upstream.awaits_first_check(endpoint) && primary != Some(false) => "waiting for its first check",
        (EndpointState::Ready, Some(true)) => "primary",
        (EndpointState::Ready, Some(false)) => "standby",
        (EndpointState::Ready, None) => "serving",
    }
}

/// The opinion of `observer` about an endpoint.
pub fn seen_by(endpoint: &Endpoint, observer: NodeId) -> Verdict {
    let opinion = endpoint.health.opinions.iter().find(|opinion| opinion.observer == observer);
    opinion.map_or(Verdict::Unknown, |opinion| opinion.verdict)
}

/// Whether some requests that match `route` go by `other`, which is more specific.
pub fn gives_way(route: &RouteSpec, other: &RouteSpec) -> bool {
    let rank = |route: &RouteSpec| {
        let host = route.host.as_deref().map_or(0, |host| if host.starts_with("*.") { 1 } else { 2 });
        (host, route.path_prefix.trim_end_matches('/').len())
    };
    let hosts = match (&route.host, &other.host) {
        (None, _) | (_, None) => true,
        (Some(one), Some(two)) => {
            one == two || one.strip_prefix('*').is_some_and(|domain| two.ends_with(domain))
        }
    };
    let covers = |outer: &str, inner: &str| {
        let outer = outer.trim_end_matches('/');
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let paths =
        covers(&route.path_prefix, &other.path_prefix) || covers(&other.path_prefix, &route.path_prefix);
    route.listener == other.listener && hosts && paths && rank(other) > rank(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: Option<&str>, path_prefix: &str) -> RouteSpec {
        let text = json!({ "host": host, "path_prefix": path_prefix, "upstream": "web" }).to_string();
        serde_json::from_str(&text).unwrap()
    }

    fn metrics(node: u64, upstream: &str, requests_per_s: f64, p99_us: Option<u64>) -> UpstreamMetrics {
        let endpoint = EndpointMetrics {
            endpoint: "e1".to_owned(),
            requests_per_s: requests_per_s / 2.0,
            failures_per_s: 0.0,
            p50_us: None,
            p99_us,
            in_flight: 1,
            verdict: Verdict::Healthy,
            detail: String::new(),
            ejected_for_ms: None,
            recent_requests: 0,
            recent_failures: 0,
        };
        UpstreamMetrics {
            upstream: upstream.to_owned(),
            node: NodeId(node),
            requests_per_s,
            failures_per_s: requests_per_s / 4.0,
            retries_per_s: 0.0,
            p50_us: None,
            p99_us,
            in_flight: 2,
            checked: true,
            endpoints: vec![endpoint],
        }
    }

    #[test]
    fn rates_add_up_and_of_latencies_the_highest_counts() {
        let mut heard = TrafficHistory::default();
        heard.push(
            Timestamp::UNIX_EPOCH,
            vec![
                metrics(1, "web", 10.0, Some(900)),
                metrics(2, "web", 30.0, None),
                metrics(2, "db", 4.0, Some(5_000)),
            ],
        );
        let web = heard.load(&TrafficScope::Upstream("web".to_owned()));
        assert_eq!((web.requests_per_s, web.p99_us, web.in_flight), (40.0, Some(900), 4));
        assert_eq!(web.failure_percent(), Some(25.0));
        assert_eq!(heard.by_upstream().get("web"), Some(&web));
        assert_eq!(heard.by_upstream().get("none"), None);
        assert_eq!(heard.load(&TrafficScope::All).requests_per_s, 44.0);
        let endpoint = TrafficScope::Endpoint("web".to_owned(), "e1".to_owned());
        assert_eq!(heard.load(&endpoint).requests_per_s, 20.0);
        assert_eq!(heard.load(&TrafficScope::Upstream("none".to_owned())).failure_percent(), None);
        assert_eq!(heard.line(&TrafficScope::All, |load| Some(load.requests_per_s)), [Some(44.0)]);
    }

    #[test]
    fn the_more_specific_route_goes_first() {
        let any = route(None, "/");
        for (one, other, gives) in [
            (&any, route(Some("a.example"), "/"), true),
            (&any, route(None, "/api"), true),
            (&route(None, "/api"), route(None, "/"), false),
            (&route(None, "/api"), route(None, "/apis"), false),
            (&route(Some("*.example"), "/"), route(Some("a.example"), "/"), true),
            (&route(Some("b.example"), "/"), route(Some("a.example"), "/api"), false),
            (&any, route(None, "/"), false),
        ] {
            assert_eq!(gives_way(one, &other), gives, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_node_understands_what_is_wanted() {
        use ringmaster_common::stream::{ClientMessage, Topic};
        let ClientMessage::Follow { topic, upstream, .. } =
            serde_json::from_str(&wanted(Some("web"))).unwrap()
        else {
            panic!("it follows")
        };
        assert_eq!((topic, upstream.as_deref()), (Topic::Traffic, Some("web")));
    }
}
