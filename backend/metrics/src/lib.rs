//! What this node tells of itself, in the form that Prometheus reads.
//!
//! Three kinds of figures come together here: what is counted where it happens (requests, messages of
//! streams), latencies that their owners keep (commits, fsyncs), and what is read off the node at the
//! moment somebody asks ([`reading`]). Nothing here decides anything or outlives the process.
//!
//! What always holds: the number of series is bounded. Labels are routes as the router spells them,
//! methods, status codes, kinds of messages, ids of members, and names of a bounded number of upstreams and
//! endpoints; never a path, a key or an address.

pub mod families;
mod process;
mod reading;
#[cfg(test)]
mod tests;
mod traffic;

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

/// What the names begin with, but for those that every process has.
const PREFIX: &str = "ringmaster";
/// Upper bounds of the buckets for requests, in seconds.
const REQUEST_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0, 15.0];

/// The figures of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    request_seconds: Family<Asked, Histogram, fn() -> Histogram>,
    stream_messages: Family<MessageKind, Counter>,
    stream_views: Counter,
    streams_lagging: Gauge,
}

/// The text formats that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, which Prometheus asks for.
    OpenMetrics,
    /// The older text format, which everything reads.
    Prometheus,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    route: String,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageKind {
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
        let mut metrics = Metrics::counted();
        let registry = &mut metrics.registry;
        let reading = reading::Reading::new(group, telemetry, peers, journal);
        let named = registry.sub_registry_with_prefix(PREFIX);
        named.register_collector(Box::new(reading));
        named.register_collector(admission);
        named.register_collector(Box::new(traffic::Traffic(proxy)));
        registry.register_collector(Box::new(process::Process::starting()));
        Arc::new(metrics)
    }

    /// With nothing in it but what is counted.
    fn counted() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS)),
            stream_messages: Family::default(),
            stream_views: Counter::default(),
            streams_lagging: Gauge::default(),
        };
        let registry = metrics.registry.sub_registry_with_prefix(PREFIX);
        registry.register("http_requests", "Requests that were answered", metrics.requests.clone());
        registry.register_with_unit(
            "http_request",
            "From the head of a request to the head of its answer",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        registry.register(
            "stream_messages",
            "Messages that were sent over streams",
            metrics.stream_messages.clone(),
        );
        registry.register(
            "stream_views",
            "Whole views that were sent over streams: to new readers, and to those that fell behind",
            metrics.stream_views.clone(),
        );
        registry.register(
            "stream_lagging",
            "Streams whose reader keeps this node waiting",
            metrics.streams_lagging.clone(),
        );
        metrics
    }

    /// Counts a request. `route` is what the router matched, never what was asked for.
    pub fn answered(&self, route: &str, method: &'static str, status: u16, took: Duration) {
        let route = route.to_owned();
        self.requests.get_or_create(&Answered { route: route.clone(), method, status }).inc();
        self.request_seconds.get_or_create(&Asked { route, method }).observe(took.as_secs_f64());
    }

    /// Counts a message of a stream.
    pub fn streamed(&self, kind: &'static str) {
        self.stream_messages.get_or_create(&MessageKind { kind }).inc();
        if kind == "view" {
            self.stream_views.inc();
        }
    }

    /// Counts a reader that keeps a stream waiting, for as long as the guard lives.
    pub fn lagging(self: &Arc<Self>) -> Lagging {
        self.streams_lagging.inc();
        Lagging(self.clone())
    }

    /// All figures, as text. It reads files, so it may block.
    pub fn expose(&self, format: Format) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a string takes all that is written");
        match format {
            Format::OpenMetrics => text,
            Format::Prometheus => to_prometheus(&text),
        }
    }
}

/// A reader that keeps its stream waiting.
#[derive(Debug)]
pub struct Lagging(Arc<Metrics>);

impl Drop for Lagging {
    fn drop(&mut self) {
        self.0.streams_lagging.dec();
    }
}

/// In the older format a counter has `_total` in its metadata as well, and there are neither units nor
/// an end mark.
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
                .expect("a string takes all that is written");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
