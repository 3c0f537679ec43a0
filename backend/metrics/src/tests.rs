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
