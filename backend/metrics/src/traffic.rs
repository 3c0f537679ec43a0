//! What the proxy has counted, by upstream and endpoint. Beyond a bound they are summed up as `other`.

use super::families::Families;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use ringmaster_proxy::{
    Proxy,
    totals::{BOUNDS_MICROS, EndpointTotals, UpstreamTotals},
};
use std::fmt;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug)]
pub struct Traffic(pub Proxy);

impl Collector for Traffic {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        let (upstreams, endpoints) = self.0.totals();
        let of_upstreams = |count: fn(&UpstreamTotals) -> u64| {
            upstreams.iter().map(move |totals| ([("upstream", totals.upstream.clone())], count(totals)))
        };
        out.counters(
            "proxy_retries",
            "Requests that were sent again",
            None,
            of_upstreams(|totals| totals.retries),
        )?;
        out.counters(
            "proxy_turned_away",
            "Requests that no endpoint was there for",
            None,
            of_upstreams(|totals| totals.turned_away),
        )?;
        out.counters(
            "proxy_refused",
            "Requests that were refused before an endpoint was looked for",
            None,
            self.0.refusals().map(|(code, count)| ([("code", code.as_str().to_owned())], count)),
        )?;
        out.counters(
            "proxy_clients_gone",
            "Requests whose client did not wait for the answer",
            None,
            of_upstreams(|totals| totals.clients_gone),
        )?;
        let labels = |totals: &EndpointTotals| {
            [("upstream", totals.upstream.clone()), ("endpoint", totals.endpoint.clone())]
        };
        let with = |totals: &EndpointTotals, name: &'static str, value: &str| {
            let [upstream, endpoint] = labels(totals);
            [upstream, endpoint, (name, value.to_owned())]
        };
        let answers = endpoints.iter().flat_map(|totals| {
            CLASSES.iter().zip(totals.answers).map(|(class, count)| (with(totals, "status", class), count))
        });
        out.counters("proxy_answers", "Requests that were answered by an endpoint", None, answers)?;
        let errors = endpoints.iter().flat_map(|totals| {
            totals.errors.iter().map(|(kind, count)| (with(totals, "reason", kind.as_str()), *count))
        });
        out.counters("proxy_errors", "Requests that an endpoint did not answer", None, errors)?;
        let latencies = endpoints.iter().map(|totals| {
            let (counts, longer) = totals.latency.between(BOUNDS_MICROS);
            let buckets = BOUNDS_MICROS.iter().zip(counts).map(|(bound, count)| (seconds(*bound), count));
            let buckets: Vec<_> = buckets.chain([(f64::MAX, longer)]).collect();
            (labels(totals), seconds(totals.latency.total_micros()), buckets)
        });
        out.histograms(
            "proxy_request",
            "From choosing an endpoint to the head of its answer, or to its failure",
            latencies,
        )?;
        let of_endpoints = |figure: fn(&EndpointTotals) -> u64| {
            endpoints.iter().map(move |totals| (labels(totals), figure(totals) as f64))
        };
        out.gauges("proxy_in_flight", "Requests under way", None, of_endpoints(|totals| totals.in_flight))?;
        out.gauges(
            "proxy_endpoint_up",
            "1 where this node sends requests there",
            None,
            of_endpoints(|totals| totals.up),
        )?;
        out.gauges(
            "proxy_endpoint_ejected",
            "1 while this node leaves it out for its failures",
            None,
            of_endpoints(|totals| totals.ejected),
        )
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
