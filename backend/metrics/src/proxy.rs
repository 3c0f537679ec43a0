//! Counters of the proxy, by upstream and endpoint. Those beyond a bound are summed up as `other`.

use super::families::Families;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use ringmaster_proxy::{
    Proxy,
    counters::{BOUNDS_MICROS, EndpointCounters, UpstreamCounters},
};
use std::fmt;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug)]
pub struct ProxyCollector(pub Proxy);

impl Collector for ProxyCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        let (upstreams, endpoints) = self.0.counters();
        let of_upstreams = |count: fn(&UpstreamCounters) -> u64| {
            upstreams.iter().map(move |counters| ([("upstream", counters.upstream.clone())], count(counters)))
        };
        out.counters(
            "proxy_retries",
            "Requests that were retried",
            None,
            of_upstreams(|counters| counters.retries),
        )?;
        out.counters(
            "proxy_no_endpoint",
            "Requests for which no endpoint was eligible",
            None,
            of_upstreams(|counters| counters.no_endpoint),
        )?;
        out.counters(
            "proxy_refused",
            "Requests that were refused before an endpoint was chosen",
            None,
            self.0.refusals().map(|(code, count)| ([("code", code.as_str().to_owned())], count)),
        )?;
        out.counters(
            "proxy_client_disconnects",
            "Requests whose client disconnected before the response",
            None,
            of_upstreams(|counters| counters.client_disconnects),
        )?;
        let labels = |counters: &EndpointCounters| {
            [("upstream", counters.upstream.clone()), ("endpoint", counters.endpoint.clone())]
        };
        let with = |counters: &EndpointCounters, name: &'static str, value: &str| {
            let [upstream, endpoint] = labels(counters);
            [upstream, endpoint, (name, value.to_owned())]
        };
        let responses = endpoints.iter().flat_map(|counters| {
            CLASSES
                .iter()
                .zip(counters.responses)
                .map(|(class, count)| (with(counters, "status", class), count))
        });
        out.counters("proxy_responses", "Responses of endpoints", None, responses)?;
        let errors = endpoints.iter().flat_map(|counters| {
            counters.errors.iter().map(|(kind, count)| (with(counters, "reason", kind.as_str()), *count))
        });
        out.counters("proxy_errors", "Requests without a complete response of their endpoint", None, errors)?;
        out.counters(
            "proxy_resends",
            "Requests sent to the endpoint again, because the connection before was closed or the endpoint had not processed them",
            None,
            endpoints.iter().map(|counters| (labels(counters), counters.resends)),
        )?;
        let latencies = endpoints.iter().map(|counters| {
            let latency = &counters.latency;
            let buckets =
                BOUNDS_MICROS.iter().zip(latency.within).map(|(bound, count)| (seconds(*bound), count));
            let buckets: Vec<_> = buckets.chain([(f64::INFINITY, latency.longer)]).collect();
            (labels(counters), seconds(latency.sum_micros), buckets)
        });
        out.histograms(
            "proxy_request_duration",
            "Time from the selection of an endpoint to the head of its response, or to its failure",
            latencies,
        )?;
        let of_endpoints = |value: fn(&EndpointCounters) -> u64| {
            endpoints.iter().map(move |counters| (labels(counters), value(counters) as f64))
        };
        out.gauges(
            "proxy_in_flight",
            "Requests in flight",
            None,
            of_endpoints(|counters| counters.in_flight),
        )?;
        out.gauges(
            "proxy_endpoint_up",
            "1 if this node sends requests to the endpoint",
            None,
            of_endpoints(|counters| counters.up),
        )?;
        out.gauges(
            "proxy_endpoint_ejected",
            "1 while this node has ejected the endpoint for its failures",
            None,
            of_endpoints(|counters| counters.ejected),
        )
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
