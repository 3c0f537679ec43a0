use super::*;

#[test]
fn both_formats_have_the_same_samples() {
    let metrics = Metrics::counters();
    metrics.record_request("/v1/nodes/{id}", "GET", 200, Duration::from_millis(2));
    metrics.record_request("/v1/nodes/{id}", "GET", 404, Duration::from_millis(2));
    let samples = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let (open, classic) = (metrics.expose(Format::OpenMetrics), metrics.expose(Format::Prometheus));
    let mut sorted = [samples(&open), samples(&classic)];
    sorted.iter_mut().for_each(|lines| lines.sort());
    assert_eq!(sorted[0], sorted[1]);
    let sample = r#"ringmaster_http_requests_total{route="/v1/nodes/{id}",method="GET",status="404"} 1"#;
    assert!(classic.contains(sample), "{classic}");
    assert!(open.contains("# TYPE ringmaster_http_requests counter\n"), "{open}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert!(classic.contains("# TYPE ringmaster_http_requests_total counter\n"), "{classic}");
    assert!(!classic.contains("# EOF") && !classic.contains("# UNIT"), "{classic}");
}

#[test]
fn a_stream_is_slow_while_its_guard_lives() {
    let metrics = Arc::new(Metrics::counters());
    let slow = |metrics: &Metrics| metrics.slow_streams.get();
    let guard = metrics.slow_stream();
    assert_eq!(slow(&metrics), 1);
    drop(guard);
    assert_eq!(slow(&metrics), 0);
}

/// Prometheus takes a histogram without this bucket, and then has no quantiles; stricter parsers refuse it.
#[test]
fn every_histogram_ends_at_infinity() {
    let mut registry = Registry::default();
    let buckets = [(vec![(0.5, 1), (f64::INFINITY, 2)], "a"), (vec![(0.5, 0), (f64::INFINITY, 0)], "b")];
    registry.register_collector(Box::new(Given(
        buckets.map(|(buckets, name)| ([("endpoint", name.to_owned())], 1.5, buckets)),
    )));
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"latency_seconds_count{endpoint="a"} 3"#,
        r#"latency_seconds_bucket{le="0.5",endpoint="a"} 1"#,
        r#"latency_seconds_bucket{le="+Inf",endpoint="a"} 3"#,
        r#"latency_seconds_bucket{le="+Inf",endpoint="b"} 0"#,
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}

type Histograms = [([(&'static str, String); 1], f64, Vec<(f64, u64)>); 2];

#[derive(Debug)]
struct Given(Histograms);

impl Collector for Given {
    fn encode(&self, encoder: prometheus_client::encoding::DescriptorEncoder<'_>) -> std::fmt::Result {
        families::Families(encoder).histograms("latency", "Latency", self.0.clone())
    }
}
