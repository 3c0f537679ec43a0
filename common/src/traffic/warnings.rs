//! Warnings about traffic: listeners that a proxy cannot open, endpoints that fail, and names that DNS cannot have.
//!
//! Each node reports its observations; [`warnings`] combines them, the same for the command line and for every
//! browser. A health check probes an endpoint; these warnings are about real requests, so they also cover an
//! endpoint without a check, or with a check that misses the failure.

use super::{
    health::Verdict,
    live::{EndpointMetrics, UpstreamMetrics},
    route::Route,
    upstream::Upstream,
};
use crate::{id::NodeId, plan::Warning};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Over how long requests are counted.
pub const RECENT_S: usize = 10;
/// An endpoint fails where at least so many of its recent requests did ...
const MIN_PERCENT: u64 = 50;
/// ... and where there were at least so many.
const MIN_REQUESTS: u64 = 5;
/// The maximum number of warnings.
pub const MAX_WARNINGS: usize = 64;
/// The maximum number of failed listeners that a node reports.
pub const MAX_FAILED_LISTENERS: usize = 16;
/// The maximum number of unresolvable names that a node reports.
pub const MAX_UNRESOLVABLE_NAMES: usize = 16;
/// How many routes are named with a listener.
pub const MAX_NAMED_ROUTES: usize = 3;

/// An address that routes name, and that a node's proxy cannot listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedListener {
    pub listener: String,
    /// The first of the routes that name it.
    pub routes: Vec<String>,
    pub reason: String,
}

/// A configured name that DNS cannot resolve. A node reports it if it serves DNS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnresolvableName {
    pub upstream: String,
    /// None: the upstream itself.
    pub endpoint: Option<String>,
    pub reason: String,
}

impl UnresolvableName {
    fn warning(&self) -> Warning {
        let UnresolvableName { upstream, endpoint, reason } = self;
        let (what, subject) = match endpoint {
            None => (format!("upstream {upstream}"), format!("upstream/{upstream}")),
            Some(id) => (format!("endpoint {id} of {upstream}"), format!("upstream/{upstream}/{id}")),
        };
        Warning { code: "dns_name_invalid".to_owned(), detail: format!("{what}: {reason}"), subject }
    }
}

/// The observations of a node's proxy.
#[derive(Clone, Copy, Debug)]
pub struct ProxyReport<'a> {
    pub node: NodeId,
    pub failed_listeners: &'a [FailedListener],
    pub unresolvable_names: &'a [UnresolvableName],
    pub metrics: &'a [UpstreamMetrics],
}

/// The recent requests to one endpoint, over all nodes.
#[derive(Debug, Default)]
struct Recent {
    requests: u64,
    failures: u64,
    checked: bool,
}

impl Recent {
    fn fails(&self) -> bool {
        self.requests >= MIN_REQUESTS && self.failures * 100 >= self.requests * MIN_PERCENT
    }
}

/// Upstreams without a serving endpoint, by the replicated state. One without any endpoint counts if a route leads to
/// it: before that, it is not in use.
pub fn unserved<'a>(
    upstreams: impl Iterator<Item = &'a Upstream>,
    routes: impl Iterator<Item = &'a Route>,
) -> impl Iterator<Item = Warning> {
    let routed: BTreeSet<&str> = routes.map(|route| route.spec.upstream.as_str()).collect();
    let is_unserved = move |upstream: &&Upstream| {
        let endpoints = &upstream.config.endpoints;
        let is_used = !endpoints.is_empty() || routed.contains(upstream.name.as_str());
        is_used && !endpoints.iter().any(|endpoint| upstream.is_serving(endpoint))
    };
    upstreams.filter(is_unserved).take(MAX_WARNINGS).map(|upstream| {
        let soon = upstream.primary.as_ref().and_then(|primary| primary.fails_over_at);
        let soon = soon.map(|at| format!("; failover at {at}")).unwrap_or_default();
        let detail = match upstream.config.endpoints.len() {
            0 => format!("upstream {} has no endpoints, and routes lead to it", upstream.name),
            configured => {
                format!("upstream {} has no healthy endpoint ({configured} configured){soon}", upstream.name)
            }
        };
        Warning {
            code: "no_healthy_endpoints".to_owned(),
            detail,
            subject: format!("upstream/{}", upstream.name),
        }
    })
}

/// The warnings from all nodes' observations, in a fixed order.
pub fn warnings<'a>(reports: impl Iterator<Item = ProxyReport<'a>>) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut recent = BTreeMap::<(&str, &str), Recent>::new();
    // Each node that serves DNS reports the same.
    let mut unresolvable = BTreeSet::new();
    for ProxyReport { node, failed_listeners, unresolvable_names, metrics } in reports {
        unresolvable.extend(unresolvable_names);
        for FailedListener { listener, routes, reason } in failed_listeners {
            let what = if routes.len() == 1 { "route" } else { "routes" };
            found.push(Warning {
                code: "listen_failed".to_owned(),
                detail: format!(
                    "node {node} cannot listen on {listener} ({what} {}): {reason}",
                    routes.join(", ")
                ),
                subject: format!("node/{node}"),
            });
        }
        for upstream in metrics {
            // An endpoint that its check already calls unhealthy needs no warning.
            let unknown = |endpoint: &&EndpointMetrics| endpoint.verdict != Verdict::Unhealthy;
            for endpoint in upstream.endpoints.iter().filter(unknown) {
                let sum = recent.entry((&upstream.upstream, &endpoint.endpoint)).or_default();
                sum.requests += endpoint.recent_requests;
                sum.failures += endpoint.recent_failures;
                sum.checked |= upstream.checked;
            }
        }
    }
    let failing = recent.into_iter().filter(|(_, recent)| recent.fails());
    found.extend(failing.map(|((upstream, endpoint), recent)| Warning {
        code: "endpoint_failing".to_owned(),
        detail: format!(
            "endpoint {endpoint} of {upstream}: {} % of {} requests failed in the last {RECENT_S} s, and {}",
            (recent.failures * 100 / recent.requests).min(100),
            recent.requests,
            if recent.checked { "its health check finds nothing wrong" } else { "it has no health check" },
        ),
        subject: format!("upstream/{upstream}/{endpoint}"),
    }));
    found.extend(unresolvable.into_iter().map(UnresolvableName::warning));
    found.truncate(MAX_WARNINGS);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(node: u64, checked: bool, endpoints: &[(&str, u64, u64)]) -> UpstreamMetrics {
        let endpoint = |(id, requests, failures): &(&str, u64, u64)| EndpointMetrics {
            endpoint: (*id).to_owned(),
            requests_per_s: 0.0,
            failures_per_s: 0.0,
            p50_us: None,
            p99_us: None,
            in_flight: 0,
            verdict: Verdict::Unknown,
            detail: String::new(),
            ejected_for_ms: None,
            recent_requests: *requests,
            recent_failures: *failures,
        };
        UpstreamMetrics {
            upstream: "web".to_owned(),
            node: NodeId(node),
            requests_per_s: 0.0,
            failures_per_s: 0.0,
            retries_per_s: 0.0,
            p50_us: None,
            p99_us: None,
            in_flight: 0,
            checked,
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    fn details(metrics: &[UpstreamMetrics]) -> Vec<String> {
        let reports = metrics.chunks(1).map(|metrics| ProxyReport {
            node: metrics[0].node,
            failed_listeners: &[],
            unresolvable_names: &[],
            metrics,
        });
        warnings(reports).into_iter().map(|warning| warning.detail).collect()
    }

    #[test]
    fn failures_at_all_nodes_make_one_warning() {
        let first = metrics(1, false, &[("e1", 300, 300), ("e2", 300, 3)]);
        let second = metrics(2, false, &[("e1", 40, 40), ("e2", 10, 10)]);
        assert_eq!(
            details(&[first, second]),
            ["endpoint e1 of web: 100 % of 340 requests failed in the last 10 s, and it has no health check"]
        );
        assert_eq!(
            details(&[metrics(1, true, &[("e1", 8, 4)])]),
            [
                "endpoint e1 of web: 50 % of 8 requests failed in the last 10 s, and its health check finds nothing wrong"
            ]
        );
    }

    #[test]
    fn an_upstream_without_endpoints_is_found_once_a_route_leads_to_it() {
        let empty: Upstream = serde_json::from_value(serde_json::json!({
            "name": "web", "version": 1, "updated_at": "2026-01-01T00:00:00Z", "updated_by": "me",
        }))
        .expect("an upstream");
        let route: Route = serde_json::from_value(serde_json::json!({
            "name": "all", "upstream": "web", "version": 1, "updated_at": "2026-01-01T00:00:00Z",
            "updated_by": "me",
        }))
        .expect("a route");
        let found = |routes: &[Route]| {
            unserved([&empty].into_iter(), routes.iter()).map(|warning| warning.detail).collect::<Vec<_>>()
        };
        assert!(found(&[]).is_empty());
        assert_eq!(found(&[route]), ["upstream web has no endpoints, and routes lead to it"]);
    }

    #[test]
    fn a_few_failures_are_no_finding() {
        assert!(details(&[metrics(1, false, &[("e1", 4, 4), ("e2", 100, 49), ("e3", 0, 0)])]).is_empty());
    }

    #[test]
    fn a_listener_that_is_taken_is_named_with_its_node_and_route() {
        let failed = [FailedListener {
            listener: "0.0.0.0:7900".to_owned(),
            routes: vec!["all".to_owned()],
            reason: "address in use".to_owned(),
        }];
        let report =
            ProxyReport { node: NodeId(2), failed_listeners: &failed, unresolvable_names: &[], metrics: &[] };
        let found = warnings([report].into_iter());
        assert_eq!(found[0].detail, "node 2 cannot listen on 0.0.0.0:7900 (route all): address in use");
        assert_eq!((found[0].code.as_str(), found[0].subject.as_str()), ("listen_failed", "node/2"));
    }

    #[test]
    fn a_name_that_dns_cannot_have_is_reported_once() {
        let names = [None, Some("e1".to_owned())].map(|endpoint| UnresolvableName {
            upstream: "a..b".to_owned(),
            endpoint,
            reason: "a DNS label cannot be empty".to_owned(),
        });
        let report = |node| ProxyReport {
            node: NodeId(node),
            failed_listeners: &[],
            unresolvable_names: &names,
            metrics: &[],
        };
        let found = warnings([1, 2, 3].map(report).into_iter());
        let shown = found.iter().map(|one| (one.code.as_str(), one.detail.as_str(), one.subject.as_str()));
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                ("dns_name_invalid", "upstream a..b: a DNS label cannot be empty", "upstream/a..b"),
                ("dns_name_invalid", "endpoint e1 of a..b: a DNS label cannot be empty", "upstream/a..b/e1"),
            ]
        );
    }
}
