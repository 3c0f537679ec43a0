//! One node, from its configuration to its end: the composition of all parts, and nothing else.
//!
//! What always holds: every long-lived task is started through one [`Supervisor`], and the node ends when one of them
//! fails. The order of composition is the order of dependence; an orderly stop goes the other way ([`shutdown`]).

mod bootstrap;
mod data_plane;
mod identity;
mod join;
mod listeners;
mod shutdown;
mod watch;

use self::{
    data_plane::ProxyDataPlane,
    listeners::Listeners,
    shutdown::{Running, stop_signal},
};
use crate::config::{NodeConfig, Start};
use ringmaster_cluster::version::{FEATURE_LEVEL, PEER_FORMATS};
use ringmaster_cluster_group::{ClusterGroup, Started, start};
use ringmaster_common::{action::NewNode, demo::REMOVED, id::NodeId};
use ringmaster_controllers as controllers;
use ringmaster_metrics::Metrics;
use ringmaster_net::{fd_limit, supervisor::Supervisor};
use ringmaster_peer::{Local, Service};
use ringmaster_proxy::{self as proxy, Proxy};
use ringmaster_servers::{
    demo_child, dns, heartbeat,
    http::{self, Api},
};
use ringmaster_services::{Services, admission::Admission};
use ringmaster_storage::data_dir::{DataDir, Identity};
use ringmaster_telemetry::{self as telemetry, Receiver, Telemetry};
use std::{fmt, io, sync::Arc};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{oneshot, watch as channel},
};

/// The share of all possible connections of this process that clients of the proxy may take.
const PROXY_SHARE_PERCENT: u64 = 60;

/// Why a node did not start, or ended: a sentence that says what to do.
#[derive(Debug)]
pub struct NodeError(String);

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NodeError {}

/// Runs a node until a signal stops it, or it cannot continue. Raft and the links run on `consensus`.
pub async fn run(config: NodeConfig, consensus: &Handle) -> Result<(), NodeError> {
    let supervisor = Supervisor::new();
    tokio::select! {
        biased;
        // First: what a failed task leaves behind may have other failures follow from it.
        failure = supervisor.failed() => Err(NodeError(format!("{failure}, and the node ends with it"))),
        ended = serve(config, consensus, &supervisor) => ended,
    }
}

async fn serve(config: NodeConfig, consensus: &Handle, supervisor: &Supervisor) -> Result<(), NodeError> {
    let data_dir = DataDir::open(&config.data_dir).map_err(|error| NodeError(error.to_string()))?;
    let data_dir = Arc::new(data_dir);
    let listeners = Listeners::bind(&config).await?;
    let identity = identity::establish(&config, &data_dir).await?;
    let me = identity.node_id;
    tracing::info!(node = %me, name = identity.name, cluster = identity.cluster_id, "starting");
    // From here on a signal is an orderly stop, also one that comes before the node serves.
    let stopped = stop_signal();

    let telemetry = Telemetry::new(me);
    let reports = Arc::new(Receiver(telemetry.clone())) as _;
    let starting = start_consensus(&config, &data_dir, &identity, listeners.peer, reports, supervisor);
    let started = consensus.spawn(starting).await.map_err(io::Error::other).flatten();
    let Started { group, peers, journal } = started.map_err(|error| NodeError(error.to_string()))?;
    let rates = telemetry.clone();
    group.connect_endpoint_rates(move || rates.endpoint_rates());
    let new_node = identity::new_node(&config, &identity);
    let (cluster_id, incarnation) = (identity.cluster_id.clone(), identity.incarnation);
    let bootstraps = config.start == Start::Bootstrap && group.state().id.is_empty();
    if bootstraps {
        let (name, node) = (config.cluster_name.clone(), new_node.clone());
        supervisor.spawn_job("bootstrap", bootstrap::create_cluster(group.clone(), name, identity, node));
    }

    let proxy = start_proxy(&config, me, &data_dir, supervisor)?;
    supervisor.spawn_loop("membership-watch", watch::members(group.clone(), peers.clone()));
    let routing_table = watch::routing_table(group.clone(), proxy.clone(), telemetry.clone());
    supervisor.spawn_loop("routing-table-watch", routing_table);
    supervisor.spawn_loop("heartbeat-watch", watch::heartbeats(telemetry.clone(), proxy.clone()));
    let data_plane = ProxyDataPlane { proxy: proxy.clone(), serves_dns: listeners.dns.is_some() };
    let reports =
        telemetry::run(telemetry.clone(), group.clone(), peers.clone(), journal.clone(), data_plane);
    supervisor.spawn_loop("telemetry", reports);
    supervisor.spawn_loop("state-comparison", telemetry::compare_states(telemetry.clone(), group.clone()));

    let connections = http::server::connections();
    let admission = Admission::new(connections);
    let collector = Box::new(admission.clone());
    let metrics =
        Metrics::new(group.clone(), telemetry.clone(), peers.clone(), journal, proxy.clone(), collector);
    let services = Services {
        group: group.clone(),
        telemetry: telemetry.clone(),
        proxy: proxy.clone(),
        admission,
        is_demo: demo_child::is_demo(),
    };
    let (stop_http, stop) = channel::channel(false);
    let (port, public_url) = (config.api_addr.port(), config.public_url.clone());
    let api = Api::new(services, metrics, port, public_url, dashboard_file, stop.clone());
    let (guard, http_ended) = oneshot::channel::<()>();
    supervisor.spawn_loop("http-server", async move {
        http::server::serve(listeners.api, http::router(api.clone()), connections, stop).await;
        api.streams_ended().await;
        drop(guard);
    });
    if let Some(listener) = listeners.heartbeat {
        supervisor.spawn_loop("heartbeat-server", heartbeat::serve(listener, proxy.clone()));
    }
    if let Some((udp, tcp)) = listeners.dns {
        supervisor.spawn_loop("dns-server", dns::serve(udp, tcp, proxy.clone()));
    }
    controllers::start(supervisor, &group, &telemetry, &peers);
    supervisor.spawn_job("start-announcement", group.clone().announce_start());
    tracing::info!(api = %config.api_addr, peer = %config.peer_addr, "serving");

    tokio::select! {
        () = stopped => {
            Running { supervisor, group, peers: peers.clone(), proxy, stop_http, http_ended }.stop().await;
            Ok(())
        }
        reason = group.until_failed() => Err(NodeError(format!(
            "consensus has stopped, and the node ends with it: {reason}"
        ))),
        Err(error) = join_if_asked(&config.start, &group, new_node) => Err(error),
        Err(error) = watch::cluster_id((&cluster_id, incarnation), &config, &group) => Err(error),
        Err(error) = watch::addresses(&config, &data_dir, &group) => Err(error),
        clusters = peers.dialled_by_strangers(), if bootstraps => Err(NodeError(format!(
            "a node of another cluster dialled this node as one of its members: {clusters}. Was this node started with \
             --bootstrap after it had lost its data? To join the other cluster, empty {} and start the node with --join",
            config.data_dir.display()
        ))),
        (peer, why) = watch::superseded(&peers, &group) => Err(NodeError(format!(
            "node {peer} refuses this node: {why}. What this node has is of before the recovery, so {} cannot be used \
             again; keep it until nothing in it is missed, and to join anew, start with an empty data directory and another id \
             (docs/recovery.md)",
            config.data_dir.display()
        ))),
        () = peers.dismissed() => Err(NodeError(format!(
            "node {me} {REMOVED} {} cannot be used again; to join anew, start it with an empty data directory and \
             another id",
            config.data_dir.display()
        ))),
    }
}

/// Starts consensus on the runtime that the future is run on.
fn start_consensus(
    config: &NodeConfig,
    data_dir: &Arc<DataDir>,
    identity: &Identity,
    listener: TcpListener,
    reports: Arc<dyn Service>,
    supervisor: &Supervisor,
) -> impl Future<Output = io::Result<Started>> + use<> {
    let local = Local {
        cluster_id: identity.cluster_id.clone(),
        node_id: identity.node_id,
        incarnation: identity.incarnation,
        feature_level: FEATURE_LEVEL,
        election_timeout_max: config.elections.timeout_max,
        formats: PEER_FORMATS,
    };
    let (dir, elections, snapshot_every) = (data_dir.clone(), config.elections, config.snapshot_every);
    let supervisor = supervisor.clone();
    let moved = config.moved.iter().map(|(id, addr)| (*id, addr.to_string())).collect();
    async move {
        start(&dir, local, listener, &elections, snapshot_every, moved, vec![reports], &supervisor).await
    }
}

fn start_proxy(
    config: &NodeConfig,
    node: NodeId,
    data_dir: &DataDir,
    supervisor: &Supervisor,
) -> Result<Proxy, NodeError> {
    let settings = proxy::Settings {
        node,
        listen: config.proxy_addr,
        data_dir: Some(data_dir.path().to_owned()),
        workers: None,
        connections: fd_limit::connections(proxy::MAX_CONNECTIONS, PROXY_SHARE_PERCENT, 2),
    };
    Proxy::start(settings, supervisor).map_err(|error| {
        let at = config.proxy_addr.map(|addr| format!(" at {addr}")).unwrap_or_default();
        NodeError(format!("the proxy cannot start{at}: {error}"))
    })
}

/// A file of the embedded dashboard, as the HTTP server takes it.
fn dashboard_file(name: &str) -> Option<http::dashboard::File> {
    let file = ringmaster_dashboard::file(name)?;
    Some(http::dashboard::File { media_type: file.metadata.mimetype().to_owned(), content: file.data })
}

/// Makes a node that was started with --join a member, and never returns but with an error.
async fn join_if_asked(start: &Start, group: &ClusterGroup, node: NewNode) -> Result<(), NodeError> {
    if let Start::Join(urls) = start {
        join::run(group.clone(), urls.clone(), node).await?;
    }
    std::future::pending().await
}
