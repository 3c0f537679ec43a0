//! The metrics of a node, in the formats of Prometheus and OpenMetrics.
//!
//! Three kinds come together here: counters of events (requests, messages of streams), latencies that their owners keep
//! (commits, fsyncs), and values that are read at the moment of a scrape ([`node`], [`proxy`], [`process`]). No decision
//! rests on them, and they end with the process.
//!
//! What always holds: the number of series is bounded. Labels are routes as the router spells them, methods, status
//! codes, kinds of messages, ids of members, and names of a bounded number of upstreams and endpoints; never a path, a
//! key or an address.

pub mod families;
mod node;
mod process;
mod proxy;
#[cfg(test)]
mod tests;

use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_peer::Peers;
use ringmaster_proxy::Proxy;
use ringmaster_storage::journal::Journal;
use ringmaster_telemetry::Telemetry;
use std::{fmt::Write, sync::Arc, time::Duration};

/// The names begin with this, except those that every process has.
const PREFIX: &str = "ringmaster";
/// Upper bounds of the buckets for requests, in seconds.
const REQUEST_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0, 15.0];

/// The metrics of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_duration: Family<RouteLabels, Histogram, fn() -> Histogram>,
    stream_messages: Family<MessageLabels, Counter>,
    stream_views: Counter,
    slow_streams: Gauge,
}

/// The text formats of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, which Prometheus requests.
    OpenMetrics,
    /// The older text format, which every scraper reads.
    Prometheus,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    kind: &'static str,
}

impl Metrics {
    pub fn new(
        group: ClusterGroup,
        telemetry: Arc<Telemetry>,
        peers: Peers,
        journal: Arc<Journal>,
        proxy: Proxy,
        admission: Box<dyn Collector>,
    ) -> Arc<Metrics> {
        let mut metrics = Metrics::counters();
        let registry = &mut metrics.registry;
        let node = node::NodeCollector::new(group, telemetry, peers, journal);
        let named = registry.sub_registry_with_prefix(PREFIX);
        named.register_collector(Box::new(node));
        named.register_collector(admission);
        named.register_collector(Box::new(proxy::ProxyCollector(proxy)));
        registry.register_collector(Box::new(process::ProcessCollector::starting()));
        Arc::new(metrics)
    }

    /// Counters of events alone.
    fn counters() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS)),
            stream_messages: Family::default(),
            stream_views: Counter::default(),
            slow_streams: Gauge::default(),
        };
        let registry = metrics.registry.sub_registry_with_prefix(PREFIX);
        registry.register("http_requests", "HTTP requests", metrics.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from the head of a request to the head of its response",
            Unit::Seconds,
            metrics.request_duration.clone(),
        );
        registry.register("stream_messages", "Messages sent over streams", metrics.stream_messages.clone());
        registry.register(
            "stream_views",
            "Whole views sent over streams, to new readers and to readers that fell behind",
            metrics.stream_views.clone(),
        );
        registry.register(
            "streams_slow",
            "Streams that wait for a slow reader",
            metrics.slow_streams.clone(),
        );
        metrics
    }

    /// Counts a request. `route` is the route that the router matched, never the path of the request.
    pub fn record_request(&self, route: &'static str, method: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { route, method, status }).inc();
        self.request_duration.get_or_create(&RouteLabels { route, method }).observe(took.as_secs_f64());
    }

    /// Counts a message of a stream.
    pub fn record_message(&self, kind: &'static str) {
        self.stream_messages.get_or_create(&MessageLabels { kind }).inc();
        if kind == "view" {
            self.stream_views.inc();
        }
    }

    /// Counts a stream that waits for a slow reader, for as long as the guard lives.
    pub fn slow_stream(self: &Arc<Self>) -> SlowStream {
        self.slow_streams.inc();
        SlowStream(self.clone())
    }

    /// All metrics as text. It reads files, so it may block.
    pub fn expose(&self, format: Format) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a string never fails");
        match format {
            Format::OpenMetrics => text,
            Format::Prometheus => to_prometheus(&text),
        }
    }
}

/// A stream that waits for a slow reader.
#[derive(Debug)]
pub struct SlowStream(Arc<Metrics>);

impl Drop for SlowStream {
    fn drop(&mut self) {
        self.0.slow_streams.dec();
    }
}

/// In the older format a counter has `_total` in its metadata as well, and there are neither units nor an end mark.
fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some((_, sentence)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = Some(sentence);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let help = help.take().unwrap_or_default();
            writeln!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}")
                .expect("writing to a string never fails");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
