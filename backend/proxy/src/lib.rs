//! The data plane: accepts clients' connections, and forwards each request to an endpoint of the upstream that its
//! route names.
//!
//! It sees a routing table and nothing else: neither the cluster's state nor Raft. The node gives it a new table when
//! the cluster has agreed on one; without a quorum it keeps the last table, also after a restart. Its metrics and the
//! opinions of its health checks are for others to read.
//!
//! The flow of a request: [`worker`] accepts, [`conn`] reads, [`route`] finds the route, [`prepare`] writes the head for
//! the endpoint, [`forward`] retries, [`balance`] chooses, [`pool`] has the connections. See
//! `docs/flows/proxied-request.md`. Beside it: [`health`] and [`outliers`], [`address`] and [`resolve`], [`limits`],
//! [`table`], [`persist`], [`decisions`]. Imports point one way, so each module can be read with those above it in mind alone.
//!
//! Deliberately absent: TLS, caching, compression, and any change to bodies.

mod address;
mod attempt;
mod balance;
mod coarse_clock;
mod conn;
mod connect;
pub mod counters;
mod decisions;
pub mod discover;
mod endpoint;
mod error;
mod ewma;
mod first_check;
mod forward;
mod hash;
mod health;
mod heartbeats;
mod last_heartbeat;
mod limits;
mod listen;
mod metrics;
mod outcome;
mod outliers;
mod persist;
mod pool;
mod prepare;
mod race;
mod random;
mod refusals;
mod relay;
mod replay;
mod resolve;
mod respond;
mod route;
mod selection;
mod table;
mod timer;
mod upload;
mod upstream;
mod wire;
mod worker;

use arc_swap::ArcSwap;
use coarse_clock::CoarseInstant;
use conn::context::WorkerContext;
use health::Checks;
use listen::Listeners;
use persist::PersistedTable;
use refusals::Refusals;
use ringmaster_common::{
    error::Code,
    id::NodeId,
    traffic::{
        health::EndpointOpinion,
        live::{Decision, DrainingEndpoint, UpstreamMetrics},
        route::Route,
        upstream::Upstream,
        warnings::{FailedListener, MAX_NAMED_ROUTES, UnresolvableName},
    },
};
use ringmaster_net::supervisor::Supervisor;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::Duration,
};
use table::Table;
use tokio::{runtime::Handle, sync::watch};
use worker::{Orders, Worker};

/// How many draining endpoints are reported.
const MAX_DRAINING: usize = 1024;
/// More workers than this gain nothing on the machines that this is for.
const MAX_WORKERS: usize = 16;
/// How many connections of clients all workers can serve together.
pub const MAX_CONNECTIONS: usize = MAX_WORKERS * worker::MAX_CONNECTIONS;

#[derive(Clone, Debug)]
pub struct Settings {
    pub node: NodeId,
    /// The node's own listener: that of routes which name none.
    pub listen: Option<SocketAddr>,
    /// Where the routing table is persisted; nowhere, for some tests.
    pub data_dir: Option<PathBuf>,
    /// None: as many as there are cores.
    pub workers: Option<usize>,
    /// How many connections of clients are served at a time.
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
    /// Grows when the opinion of a check changes.
    changes: watch::Sender<u64>,
    opinions: watch::Sender<Arc<[EndpointOpinion]>>,
    metrics: watch::Sender<Arc<[UpstreamMetrics]>>,
    series: counters::AllSeries,
    checks: Mutex<Checks>,
    supervisor: Supervisor,
    persisted: watch::Sender<Option<Arc<PersistedTable>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    runtime: Handle,
}

impl Proxy {
    /// Starts with the persisted table, or with an empty one. Checks run on the runtime that this is called from.
    pub fn start(settings: Settings, supervisor: &Supervisor) -> io::Result<Proxy> {
        if let Some(addr) = settings.listen {
            // The listeners of workers allow sharing the address, also with another process. This one does not.
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
            metrics: watch::Sender::new(Arc::from([])),
            series: counters::AllSeries::default(),
            checks: Mutex::default(),
            supervisor: supervisor.clone(),
            persisted: watch::Sender::default(),
            threads: Mutex::default(),
            runtime: Handle::current(),
        }));
        if let Some(table) = settings.data_dir.as_deref().and_then(PersistedTable::read) {
            let (upstreams, routes) = (table.upstreams.len(), table.routes.len());
            tracing::info!(upstreams, routes, "the proxy starts with the persisted routing table");
            proxy.adopt(&table);
        }
        for index in 0..workers {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let Inner { table, listeners, refusals, .. } = &*proxy.0;
            let context = Arc::new(WorkerContext::new(index, table.clone(), refusals.clone()));
            let connections = settings.connections / workers;
            let worker = Worker::new(context, listeners.clone(), connections, supervisor.clone());
            let (orders, listen) = (proxy.0.orders.subscribe(), settings.listen);
            let work = move || runtime.block_on(worker.run(listen, orders));
            let thread = supervisor.spawn_thread(format!("proxy-{index}"), work)?;
            proxy.threads().push(thread);
        }
        let Inner { table, orders, metrics, changes, opinions, persisted, .. } = &*proxy.0;
        let measuring = metrics::run(settings.node, table.clone(), orders.subscribe(), metrics.clone());
        supervisor.spawn_loop("proxy-metrics", measuring);
        supervisor.spawn_loop("endpoint-names", resolve::run(table.clone(), orders.subscribe()));
        let publishing = health::publish(changes.subscribe(), opinions.clone(), table.clone());
        supervisor.spawn_loop("health-opinions", publishing);
        if let Some(dir) = settings.data_dir {
            supervisor.spawn_loop("routing-table-persistence", persist::run(dir, persisted.subscribe()));
        }
        Ok(proxy)
    }

    /// Routes by these from now on. Requests in flight keep the table that they were routed by.
    pub fn set_table<'a>(
        &self,
        upstreams: impl Iterator<Item = &'a Upstream>,
        routes: impl Iterator<Item = &'a Route>,
    ) {
        let table = PersistedTable::new(upstreams, routes);
        self.adopt(&table);
        self.0.persisted.send_replace(Some(Arc::new(table)));
    }

    fn adopt(&self, new: &PersistedTable) {
        // The lock puts tables in order: each takes over the state of the one before.
        let mut checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.0.table.load().next(new.upstreams.iter(), new.routes.iter(), self.0.workers);
        let table = Arc::new(table);
        checks.follow(&table, &self.0.supervisor, &self.0.runtime, &self.0.changes);
        // A new upstream has metrics at once: all zero.
        let known = self.0.metrics.borrow().clone();
        let is_new = |upstream: &&Arc<upstream::Upstream>| {
            known.iter().all(|metrics| metrics.upstream != upstream.name)
        };
        let now = CoarseInstant::now();
        let new = table.upstreams().filter(is_new).map(|new| metrics::measure(new, self.0.node, now));
        let new: Vec<_> = new.collect();
        self.0.metrics.send_replace(known.iter().cloned().chain(new).collect());
        self.0.table.store(table);
        // The opinions of removed endpoints go.
        self.0.changes.send_modify(|count| *count += 1);
        self.0.orders.send_modify(|orders| orders.tables += 1);
    }

    fn table(&self) -> Arc<Table> {
        self.0.table.load_full()
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each upstream does right now, measured once a second.
    pub fn metrics(&self) -> watch::Receiver<Arc<[UpstreamMetrics]>> {
        self.0.metrics.subscribe()
    }

    /// The opinions of this node's own checks about all endpoints that have one, whenever they change.
    pub fn opinions(&self) -> watch::Receiver<Arc<[EndpointOpinion]>> {
        self.0.opinions.subscribe()
    }

    /// The listeners of routes that could not be opened.
    pub fn failed_listeners(&self) -> Vec<FailedListener> {
        let (failed, table) = (self.0.listeners.failed(), self.table());
        let named = failed.into_iter().map(|(listener, reason)| {
            let routes = table.routes_of(&listener).take(MAX_NAMED_ROUTES).map(str::to_owned).collect();
            FailedListener { listener, routes, reason }
        });
        named.collect()
    }

    /// The configured names that DNS cannot resolve.
    pub fn unresolvable_names(&self) -> Vec<UnresolvableName> {
        self.table().names().unresolvable().to_vec()
    }

    /// Why requests went to their endpoints lately, the oldest first; none if there is no such upstream.
    pub fn decisions(&self, upstream: &str) -> Option<Vec<Decision>> {
        let mut kept = self.table().upstream(upstream)?.stats.decisions.kept();
        kept.iter_mut().for_each(|decision| decision.node = self.0.node);
        Some(kept)
    }

    /// The endpoints that receive no new requests and still have requests in flight here, removed ones included.
    pub fn draining(&self) -> Vec<DrainingEndpoint> {
        let table = self.table();
        let draining = table.draining().take(MAX_DRAINING).map(|(upstream, endpoint)| DrainingEndpoint {
            upstream: upstream.to_owned(),
            endpoint: endpoint.id.clone(),
            addr: endpoint.addr.clone(),
            in_flight: endpoint.in_flight.load(Relaxed),
        });
        draining.collect()
    }

    /// How many requests were refused before an endpoint was chosen, by code.
    pub fn refusals(&self) -> impl Iterator<Item = (Code, u64)> {
        self.0.refusals.counts()
    }

    /// Takes no new requests, and waits for those in flight, but no longer than `limit`.
    pub async fn shutdown(&self, limit: Duration) {
        self.0.orders.send_modify(|orders| orders.close_within = Some(limit));
        let threads = std::mem::take(&mut *self.threads());
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // The supervisor has reported a panic.
                let _ = thread.join();
            }
        });
        // It fails only with the runtime itself.
        let _ = joined.await;
    }
}

#[cfg(test)]
mod tests;
