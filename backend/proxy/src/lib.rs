//! The data plane: takes clients' requests, and passes each to an endpoint of the upstream that its route
//! names.
//!
//! It sees a routing table and nothing else: neither the state nor Raft. Whoever composes a node gives
//! it a new table when the cluster agrees on one; while there is no quorum, it goes on with the last, also
//! after a restart. What it measures and what its own health checks say is for others to ask for.
//!
//! The way of a request: [`worker`] accepts, [`http1`] or [`http2`] reads, [`table`] finds the route, [`pick`]
//! the endpoint, [`attempt`] counts, and [`course`] decides whether it goes elsewhere. From HTTP/1 to HTTP/1 bytes
//! go on as they came; where either side speaks HTTP/2, [`relay`] carries pieces of bodies. What is deliberately
//! absent: TLS, caching, compression, and any change to bodies.

mod answer;
mod ask;
mod attempt;
mod beats;
mod body;
mod buffer;
mod course;
mod decisions;
pub mod discover;
mod endpoint;
mod head;
mod headers;
mod health;
mod histogram;
mod http1;
mod http2;
mod keep;
mod limit;
mod listen;
mod moment;
mod path;
mod pick;
mod proxy_protocol;
mod random;
mod relay;
mod table;
mod tcp;
mod timer;
pub mod totals;
mod tunnel;
mod upload;
mod upstream;
mod websocket;
mod worker;

use answer::Refusals;
use arc_swap::ArcSwap;
use endpoint::Endpoint;
use health::Checks;
use histogram::Counts;
use keep::Kept;
use listen::Listeners;
use moment::Moment;
use ringmaster_common::{
    duration::millis,
    id::NodeId,
    traffic::{
        health::{EndpointOpinion, Verdict},
        live::{Decision, EndpointMetrics, UpstreamMetrics},
        route::Route,
        upstream::Upstream,
        warnings::{FailedListener, MAX_NAMED_ROUTES},
    },
};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use table::Table;
use tokio::{runtime::Handle, sync::watch};
use worker::{Orders, Worker};

/// How often what is due is looked after: budgets of retries, connections that nobody needs.
const TICK: Duration = Duration::from_secs(1);
/// After so many ticks latencies are old, and after twice as many forgotten.
const LATENCY_TICKS: u64 = 5;
/// More workers than this gain nothing on the machines that this is for.
const MAX_WORKERS: usize = 16;
/// How many connections of clients all workers can serve together.
pub const MAX_CONNECTIONS: usize = MAX_WORKERS * worker::MAX_CONNECTIONS;

/// What a proxy is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node: NodeId,
    /// Where routes without a listener of their own are served.
    pub listen: Option<SocketAddr>,
    /// Where the routing table is kept; nowhere, for some tests.
    pub data_dir: Option<PathBuf>,
    /// None: as many as there are cores.
    pub workers: Option<usize>,
    /// How many connections of clients it has at a time.
    pub connections: usize,
}

/// The running data plane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Proxy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: NodeId,
    workers: usize,
    table: Arc<ArcSwap<Table>>,
    refusals: Arc<Refusals>,
    listeners: Arc<Listeners>,
    orders: watch::Sender<Orders>,
    /// Told by checks that an opinion changed.
    changes: watch::Sender<u64>,
    opinions: watch::Sender<Arc<[EndpointOpinion]>>,
    figures: watch::Sender<Arc<[UpstreamMetrics]>>,
    checks: Mutex<Checks>,
    kept: watch::Sender<Option<Arc<Kept>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    runtime: Handle,
}

impl Proxy {
    /// Starts with the table that was kept, or with an empty one. Checks run on the runtime that this is
    /// called from.
    pub fn start(settings: Settings) -> io::Result<Proxy> {
        if let Some(addr) = settings.listen {
            // Workers share the address, and would share it with a stranger that allows it, too.
            drop(TcpListener::bind(addr)?);
        }
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let workers = settings.workers.unwrap_or_else(cores).clamp(1, MAX_WORKERS);
        let proxy = Proxy(Arc::new(Inner {
            node: settings.node,
            workers,
            table: Arc::default(),
            refusals: Arc::default(),
            listeners: Arc::default(),
            orders: watch::Sender::default(),
            changes: watch::Sender::default(),
            opinions: watch::Sender::new(Arc::from([])),
            figures: watch::Sender::new(Arc::from([])),
            checks: Mutex::default(),
            kept: watch::Sender::default(),
            threads: Mutex::default(),
            runtime: Handle::current(),
        }));
        if let Some(kept) = settings.data_dir.as_deref().and_then(Kept::read) {
            tracing::info!(
                upstreams = kept.upstreams.len(),
                routes = kept.routes.len(),
                "the proxy begins with the routing table that it had"
            );
            proxy.adopt(kept.upstreams.iter(), kept.routes.iter());
        }
        for index in 0..workers {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let Inner { table, listeners, refusals, .. } = &*proxy.0;
            let shared = (table.clone(), listeners.clone(), refusals.clone());
            let worker = Worker::new(index, settings.connections / workers, shared);
            let (orders, listen) = (proxy.0.orders.subscribe(), settings.listen);
            let thread = thread::Builder::new()
                .name(format!("proxy-{index}"))
                .spawn(move || runtime.block_on(worker.run(listen, orders)))?;
            proxy.0.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        let (orders, figures) = (proxy.0.orders.subscribe(), proxy.0.figures.clone());
        tokio::spawn(tick(settings.node, proxy.0.table.clone(), orders, figures));
        tokio::spawn(tell_opinions(
            proxy.0.changes.subscribe(),
            proxy.0.opinions.clone(),
            proxy.0.table.clone(),
        ));
        if let Some(dir) = settings.data_dir {
            tokio::spawn(keep(dir, proxy.0.kept.subscribe()));
        }
        Ok(proxy)
    }

    /// Routes by these from now on. What is under way goes on as it began.
    pub fn set_table<'a>(
        &self,
        upstreams: impl Iterator<Item = &'a Upstream>,
        routes: impl Iterator<Item = &'a Route>,
    ) {
        let kept = Kept::new(upstreams, routes);
        self.adopt(kept.upstreams.iter(), kept.routes.iter());
        self.0.kept.send_replace(Some(Arc::new(kept)));
    }

    fn adopt<'a>(
        &self,
        upstreams: impl Iterator<Item = &'a Upstream>,
        routes: impl Iterator<Item = &'a Route>,
    ) {
        // Tables come one after the other: each takes over what the one before knew.
        let mut checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let table = Arc::new(self.0.table.load().next(upstreams, routes, self.0.workers));
        checks.follow(&table, &self.0.runtime, &self.0.changes);
        // Who is new has done nothing yet; that is known without measuring.
        let known = self.0.figures.borrow().clone();
        let is_new = |upstream: &&Arc<upstream::Upstream>| {
            known.iter().all(|figures| figures.upstream != upstream.name)
        };
        let new: Vec<_> =
            table.upstreams().filter(is_new).map(|new| figures_of(new, self.0.node, Moment::now())).collect();
        self.0.figures.send_replace(known.iter().cloned().chain(new).collect());
        self.0.table.store(table);
        // Of who is gone, nothing is said any more.
        self.0.changes.send_modify(|count| *count += 1);
        self.0.orders.send_modify(|orders| orders.tables += 1);
    }

    /// What was done for each upstream lately, measured once a second.
    pub fn figures(&self) -> watch::Receiver<Arc<[UpstreamMetrics]>> {
        self.0.figures.subscribe()
    }

    /// What this node's own checks say of all endpoints that it has found out about, whenever that changes.
    pub fn opinions(&self) -> watch::Receiver<Arc<[EndpointOpinion]>> {
        self.0.opinions.subscribe()
    }

    /// Where routes want it to listen and it cannot.
    pub fn failed_listeners(&self) -> Vec<FailedListener> {
        let (deaf, table) = (self.0.listeners.deaf(), self.0.table.load());
        let told = deaf.into_iter().map(|(listener, reason)| {
            let routes = table.routes_of(&listener).take(MAX_NAMED_ROUTES).map(str::to_owned).collect();
            FailedListener { listener, routes, reason }
        });
        told.collect()
    }

    /// Why requests went where they went lately, the oldest first; none where there is no such upstream.
    pub fn decisions(&self, upstream: &str) -> Option<Vec<Decision>> {
        let mut kept = self.0.table.load().upstream(upstream)?.standing.decisions.kept();
        kept.iter_mut().for_each(|decision| decision.node = self.0.node);
        Some(kept)
    }

    /// Takes nothing new, and waits for what is under way, but not longer than `patience`.
    pub async fn shutdown(&self, patience: Duration) {
        self.0.orders.send_modify(|orders| orders.close_within = Some(patience));
        let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a worker of the proxy had ended with a defect");
                }
            }
        });
        // It fails only with the runtime itself.
        let _ = joined.await;
    }
}

/// Puts together what the checks say, whenever one of them says something else.
async fn tell_opinions(
    mut changes: watch::Receiver<u64>,
    opinions: watch::Sender<Arc<[EndpointOpinion]>>,
    table: Arc<ArcSwap<Table>>,
) {
    while changes.changed().await.is_ok() {
        let table = table.load_full();
        let checked = table.upstreams().filter(|upstream| upstream.config.health_check.is_some());
        let all = checked.flat_map(|upstream| {
            upstream.seats.iter().filter_map(|seat| opinion_of(&upstream.name, &seat.endpoint))
        });
        let all: Vec<_> = all.collect();
        opinions.send_if_modified(|told| {
            let news = **told != *all;
            if news {
                *told = all.into();
            }
            news
        });
    }
}

fn opinion_of(upstream: &str, endpoint: &Endpoint) -> Option<EndpointOpinion> {
    let opinion = endpoint.opinion();
    (opinion.verdict != Verdict::Unknown).then(|| EndpointOpinion {
        upstream: upstream.to_owned(),
        endpoint: endpoint.id.clone(),
        addr: endpoint.addr.clone(),
        verdict: opinion.verdict,
        detail: opinion.detail,
    })
}

/// Keeps the last table. Those that come while one is written are skipped but for the last of them.
async fn keep(dir: PathBuf, mut tables: watch::Receiver<Option<Arc<Kept>>>) {
    while tables.changed().await.is_ok() {
        let Some(kept) = tables.borrow_and_update().clone() else { continue };
        let dir = dir.clone();
        let written = tokio::task::spawn_blocking(move || kept.write(&dir)).await;
        if let Err(error) = written.map_err(io::Error::other).flatten() {
            tracing::warn!(%error, "the routing table cannot be kept; without a quorum, a restart would go back to an older one");
        }
    }
}

/// Ends with the proxy.
async fn tick(
    node: NodeId,
    table: Arc<ArcSwap<Table>>,
    orders: watch::Receiver<Orders>,
    figures: watch::Sender<Arc<[UpstreamMetrics]>>,
) {
    let mut ticks = 0u64;
    while orders.has_changed().is_ok() {
        tokio::time::sleep(TICK).await;
        ticks += 1;
        let (table, now) = (table.load_full(), Moment::now());
        for upstream in table.upstreams() {
            upstream.tick(now);
        }
        figures.send_replace(table.upstreams().map(|upstream| figures_of(upstream, node, now)).collect());
        if ticks.is_multiple_of(LATENCY_TICKS) {
            let endpoints = table.upstreams().flat_map(|upstream| &upstream.seats);
            endpoints.for_each(|seat| seat.endpoint.latency.turn());
        }
    }
}

fn figures_of(upstream: &upstream::Upstream, node: NodeId, now: Moment) -> UpstreamMetrics {
    let mut all = Counts::none();
    let mut seconds = 0f64;
    let endpoints: Vec<_> = upstream
        .seats
        .iter()
        .map(|seat| {
            let endpoint = &seat.endpoint;
            let mut told = endpoint.told.lock().unwrap_or_else(PoisonError::into_inner);
            let (requests, failures) = (endpoint.requests(), endpoint.failures());
            let passed = now.since(told.at).as_secs_f64().max(0.001);
            seconds = seconds.max(passed);
            let per_s = |count: u64, before: u64| count.saturating_sub(before) as f64 / passed;
            let (requests_per_s, failures_per_s) =
                (per_s(requests, told.requests), per_s(failures, told.failures));
            let (recent_requests, recent_failures) = told.turn(now, requests, failures);
            let counts = endpoint.latency.counts();
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
    let standing = &upstream.standing;
    let since_told = |count: &AtomicU64, told: &AtomicU64| {
        let count = count.load(Relaxed);
        let new = count.saturating_sub(told.swap(count, Relaxed));
        if seconds > 0.0 { new as f64 / seconds } else { 0.0 }
    };
    let turned_away = since_told(&standing.turned_away, &standing.turned_away_told);
    UpstreamMetrics {
        upstream: upstream.name.clone(),
        node,
        requests_per_s: endpoints.iter().map(|endpoint| endpoint.requests_per_s).sum::<f64>() + turned_away,
        failures_per_s: endpoints.iter().map(|endpoint| endpoint.failures_per_s).sum::<f64>() + turned_away,
        retries_per_s: since_told(&standing.retries, &standing.retries_told),
        p50_us: all.quantile(0.5),
        p99_us: all.quantile(0.99),
        in_flight: endpoints.iter().map(|endpoint| endpoint.in_flight).sum(),
        checked: upstream.config.health_check.is_some(),
        endpoints,
    }
}

#[cfg(test)]
mod tests;
