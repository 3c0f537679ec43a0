//! What each upstream does right now, measured once a second; and the housekeeping of the same rhythm.

use crate::{coarse_clock::CoarseInstant, table::Table, upstream::Upstream};
use arc_swap::ArcSwap;
use ringmaster_common::{
    duration::millis,
    id::NodeId,
    traffic::live::{EndpointMetrics, UpstreamMetrics},
};
use ringmaster_net::histogram::Counts;
use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::watch;

const INTERVAL: Duration = Duration::from_secs(1);
/// After so many intervals latencies are old, and after twice as many forgotten.
const LATENCY_INTERVALS: u64 = 5;

/// Runs until the proxy is gone, which ends the watch.
pub async fn run(
    node: NodeId,
    table: Arc<ArcSwap<Table>>,
    alive: watch::Receiver<impl Send + Sync>,
    metrics: watch::Sender<Arc<[UpstreamMetrics]>>,
) {
    let mut intervals = 0u64;
    while alive.has_changed().is_ok() {
        tokio::time::sleep(INTERVAL).await;
        intervals += 1;
        let (table, now) = (table.load_full(), CoarseInstant::now());
        for upstream in table.upstreams() {
            let percent = upstream.config.retries.budget_percent;
            upstream.stats.retry_budget.refill(upstream.requests(), percent);
            upstream.forget_ejections(now);
            let limits = &upstream.config.connections;
            upstream.slots.iter().for_each(|slot| slot.endpoint.pool.close_idle(now, limits));
        }
        metrics.send_replace(table.upstreams().map(|upstream| measure(upstream, node, now)).collect());
        if intervals.is_multiple_of(LATENCY_INTERVALS) {
            let slots = table.upstreams().flat_map(|upstream| &upstream.slots);
            slots.for_each(|slot| slot.endpoint.latency.turn());
        }
    }
}

pub fn measure(upstream: &Upstream, node: NodeId, now: CoarseInstant) -> UpstreamMetrics {
    let mut all = Counts::default();
    let mut seconds = 0f64;
    let endpoints: Vec<_> = upstream
        .slots
        .iter()
        .map(|slot| {
            let endpoint = &slot.endpoint;
            let mut reported = endpoint.reported.lock().unwrap_or_else(PoisonError::into_inner);
            let (requests, failures) = (endpoint.requests(), endpoint.failures());
            let passed = now.since(reported.at).as_secs_f64().max(0.001);
            seconds = seconds.max(passed);
            let per_s = |count: u64, before: u64| count.saturating_sub(before) as f64 / passed;
            let (requests_per_s, failures_per_s) =
                (per_s(requests, reported.requests), per_s(failures, reported.failures));
            let (recent_requests, recent_failures) = reported.update(now, endpoint);
            let counts = endpoint.latency.recent();
            all.add(&counts);
            let opinion = endpoint.opinion();
            EndpointMetrics {
                endpoint: endpoint.id.clone(),
                requests_per_s,
                failures_per_s,
                p50_us: counts.quantile(0.5),
                p99_us: counts.quantile(0.99),
                in_flight: endpoint.in_flight.load(Relaxed),
                verdict: opinion.verdict,
                detail: opinion.detail,
                ejected_for_ms: endpoint.ejected_for(now).map(millis),
                recent_requests,
                recent_failures,
            }
        })
        .collect();
    let stats = &upstream.stats;
    let since_report = |count: &AtomicU64, reported: &AtomicU64| {
        let count = count.load(Relaxed);
        let new = count.saturating_sub(reported.swap(count, Relaxed));
        if seconds > 0.0 { new as f64 / seconds } else { 0.0 }
    };
    let no_endpoint = since_report(&stats.no_endpoint, &stats.no_endpoint_reported);
    UpstreamMetrics {
        upstream: upstream.name.clone(),
        node,
        requests_per_s: endpoints.iter().map(|endpoint| endpoint.requests_per_s).sum::<f64>() + no_endpoint,
        failures_per_s: endpoints.iter().map(|endpoint| endpoint.failures_per_s).sum::<f64>() + no_endpoint,
        retries_per_s: since_report(&stats.retries, &stats.retries_reported),
        p50_us: all.quantile(0.5),
        p99_us: all.quantile(0.99),
        in_flight: endpoints.iter().map(|endpoint| endpoint.in_flight).sum(),
        checked: upstream.config.health_check.is_some(),
        endpoints,
    }
}
