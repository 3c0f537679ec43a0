//! The composition root: one node, from its configuration to its end.

mod join;

use crate::config::{NodeConfig, Start, made_up_name};
use ringmaster_cluster::version::{self, FEATURE_LEVEL, PEER_FORMATS};
use ringmaster_cluster::{
    command::{Actor, Command, Request},
    planner,
    routes::Routes,
    upstreams::Upstreams,
};
use ringmaster_cluster_group::{ClusterGroup, Started, start};
use ringmaster_common::{
    action::NewNode,
    demo::REMOVED,
    id::{Incarnation, NodeId},
    traffic::{
        health::{EndpointOpinion, ReceivedHeartbeat},
        live::UpstreamMetrics,
        warnings::FailedListener,
    },
};
use ringmaster_controllers as controllers;
use ringmaster_metrics::Metrics;
use ringmaster_net::clock;
use ringmaster_net::fd_limit;
use ringmaster_peer::{Local, MAX_REDIAL_DELAY, Peers};
use ringmaster_proxy as proxy;
use ringmaster_proxy::Proxy;
use ringmaster_servers::dns;
use ringmaster_servers::heartbeat;
use ringmaster_servers::http::{self, Api, Parts, admission::Admission, stream::Encoder};
use ringmaster_storage::data_dir::{Addresses, DataDir, Identity};
use ringmaster_storage::journal::Journal;
use ringmaster_telemetry as telemetry;
use ringmaster_telemetry::{DataPlane, Reports, Telemetry};
use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};

/// How long a node listens for members that know it already before it founds a cluster: they dial again
/// within [`MAX_REDIAL_DELAY`].
const LISTEN_BEFORE_FOUNDING: Duration = Duration::from_millis(600);
const _: () = assert!(LISTEN_BEFORE_FOUNDING.as_millis() > MAX_REDIAL_DELAY.as_millis());
/// How long a node that stops waits for its leadership to be taken over.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);
/// After this long without a new leader, it asks another: an election takes a few fsyncs.
const HAND_OVER_AGAIN: Duration = Duration::from_millis(40);
/// How often a stopping leader looks whether somebody else leads.
const HAND_OVER_LOOK: Duration = Duration::from_millis(5);
/// How long a node that stops waits for what its clients have under way.
const FAREWELL_PATIENCE: Duration = Duration::from_millis(500);
/// How long requests through the proxy may go on when the node stops.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// How much of all connections that this process can have clients of the proxy may take.
const PROXY_SHARE_PERCENT: u64 = 60;
/// How long the first command of a cluster may take before it is tried again.
const CREATE_PATIENCE: Duration = Duration::from_secs(10);
/// How often the first node looks whether it may create the cluster.
const CREATE_PAUSE: Duration = Duration::from_millis(100);

/// Why a node did not start, or stopped: a sentence that says what to do.
#[derive(Debug)]
pub struct NodeError(String);

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NodeError {}

/// Runs a node until it is told to stop, or cannot go on. Raft and the links run on `consensus`.
pub async fn run(config: NodeConfig, consensus: &Handle) -> Result<(), NodeError> {
    let data_dir = DataDir::open(&config.data_dir).map_err(|error| NodeError(error.to_string()))?;
    let data_dir = Arc::new(data_dir);
    let api_listener = bind("API", config.api_addr).await?;
    let peer_listener = bind("peer", config.peer_addr).await?;

    let heartbeats = match config.heartbeat_addr {
        Some(addr) => Some((addr, bind("heartbeat", addr).await?)),
        None => None,
    };
    let dns = match config.dns_addr {
        Some(addr) => Some((addr, bind_udp("DNS", addr).await?, bind("DNS", addr).await?)),
        None => None,
    };

    let known = data_dir.identity().map_err(|error| NodeError(error.to_string()))?;
    let identity = match known {
        Some(identity) => identity,
        None => {
            let identity = first_identity(&config).await?;
            // First the journal: where there is an identity, a missing journal is a loss.
            Journal::create(data_dir.path()).map_err(|error| NodeError(error.to_string()))?;
            data_dir.write_identity(&identity).map_err(|error| NodeError(error.to_string()))?;
            identity
        }
    };
    if let Some(id) = config.id.filter(|id| *id != identity.node_id) {
        return Err(NodeError(format!(
            "{} belongs to node {}, not to node {id}; give this node its own --data-dir",
            config.data_dir.display(),
            identity.node_id
        )));
    }
    let me = identity.node_id;
    tracing::info!(node = %me, name = identity.name, cluster = identity.cluster_id, "starting");
    // From here on a signal is an orderly stop, also one that comes before the node serves.
    let stopped = stop_signal();

    let telemetry = Telemetry::new(me);
    let local = Local {
        cluster_id: identity.cluster_id.clone(),
        node_id: me,
        incarnation: identity.incarnation,
        feature_level: FEATURE_LEVEL,
        election_timeout_max: config.elections.timeout_max,
        formats: PEER_FORMATS,
    };
    let reports = Arc::new(Reports(telemetry.clone())) as _;
    let (dir, elections, snapshot_every) = (data_dir.clone(), config.elections, config.snapshot_every);
    let starting =
        async move { start(&dir, local, peer_listener, &elections, snapshot_every, vec![reports]).await };
    let started = consensus.spawn(starting).await.map_err(io::Error::other).flatten();
    let Started { group, peers, journal } = started.map_err(|error| NodeError(error.to_string()))?;

    let new_node = new_node(&config, &identity);
    let founds = config.start == Start::Bootstrap && group.state().id.is_empty();
    if founds {
        tokio::spawn(create_cluster(
            group.clone(),
            config.cluster_name.clone(),
            identity.clone(),
            new_node.clone(),
        ));
    }
    let proxy = Proxy::start(proxy::Settings {
        node: me,
        listen: config.proxy_addr,
        data_dir: Some(data_dir.path().to_owned()),
        workers: None,
        connections: fd_limit::connections(proxy::MAX_CONNECTIONS, PROXY_SHARE_PERCENT, 2),
    });
    let proxy = proxy.map_err(|error| {
        let at = config.proxy_addr.map(|addr| format!(" at {addr}")).unwrap_or_default();
        NodeError(format!("the proxy cannot start{at}: {error}"))
    })?;
    let admission = Admission::new();
    let metrics = Metrics::new(
        group.clone(),
        telemetry.clone(),
        peers.clone(),
        journal.clone(),
        proxy.clone(),
        Box::new(admission.clone()),
    );
    let api = Api(Arc::new(Parts {
        group: group.clone(),
        telemetry: telemetry.clone(),
        metrics,
        proxy: proxy.clone(),
        admission,
        port: config.api_addr.port(),
        public_url: config.public_url.clone(),
        encoder: Encoder::default(),
    }));
    let (stop_serving, stop) = watch::channel(false);
    let serving = tokio::spawn(http::server::serve(api_listener, http::router(api), stop));
    tokio::spawn(follow_members(group.clone(), peers.clone()));
    tokio::spawn(follow_traffic(group.clone(), proxy.clone(), telemetry.clone()));
    if let Some((addr, listener)) = heartbeats {
        tokio::spawn(heartbeat::serve(listener, proxy.clone()));
        tracing::info!(%addr, "taking heartbeats");
    }
    if let Some((addr, udp, tcp)) = dns {
        tokio::spawn(dns::serve(udp, tcp, proxy.clone()));
        tracing::info!(%addr, "answering DNS");
    }
    let meter = telemetry.clone();
    group.connect_meter(move || meter.endpoint_rates());
    tokio::spawn(telemetry::run(
        telemetry.clone(),
        group.clone(),
        peers.clone(),
        journal,
        ProxyReadings(proxy.clone()),
    ));
    tokio::spawn(follow_heartbeats(telemetry.clone(), proxy.clone()));
    tokio::spawn(controllers::elections::run(group.clone()));
    tokio::spawn(controllers::endpoint_health::run(group.clone(), telemetry.clone()));
    tokio::spawn(controllers::registrations::run(group.clone()));
    tokio::spawn(controllers::failover::run(group.clone()));
    tokio::spawn(controllers::operations::run(group.clone(), telemetry.clone()));
    tokio::spawn(controllers::health::run(group.clone(), telemetry));
    tokio::spawn(group.clone().announce_start());
    tokio::spawn(controllers::features::run(group.clone(), peers.clone()));
    tracing::info!(api = %config.api_addr, peer = %config.peer_addr, "serving");

    tokio::select! {
        () = stopped => {
            tracing::info!("stopping");
            hand_over(&group).await;
            // First the clients: what they have under way may still need the new leader.
            stop_serving.send_replace(true);
            let _ = tokio::join!(timeout(FAREWELL_PATIENCE, serving), proxy.shutdown(DRAIN_PATIENCE));
            // Then the links: what peers send from now on, Raft could not take any more.
            peers.shutdown();
            group.shutdown().await;
            Ok(())
        }
        why = group.until_failed() => Err(NodeError(format!(
            "consensus has stopped, and the node with it: {why}"
        ))),
        Err(error) = join(&config.start, &group, new_node) => Err(error),
        Err(error) = moved(&config, &group) => Err(error),
        clusters = peers.dialled_by_strangers(), if founds => Err(NodeError(format!(
            "a node of another cluster takes this one for its member: {clusters}. Was it started with --bootstrap \
             after it had lost its data? To join the other cluster, empty {} and start it with --join",
            config.data_dir.display()
        ))),
        () = peers.dismissed() => Err(NodeError(format!(
            "node {me} {REMOVED} {} is of no use any more; to join again, start it with an \
             empty data directory and another id",
            config.data_dir.display()
        ))),
    }
}

/// What telemetry reads off the proxy.
struct ProxyReadings(Proxy);

impl DataPlane for ProxyReadings {
    fn opinions(&self) -> Arc<[EndpointOpinion]> {
        self.0.opinions().borrow().clone()
    }

    fn beats(&self) -> Vec<ReceivedHeartbeat> {
        self.0.received_heartbeats()
    }

    fn figures(&self) -> Arc<[UpstreamMetrics]> {
        self.0.metrics().borrow().clone()
    }

    fn failed_listeners(&self) -> Vec<FailedListener> {
        self.0.failed_listeners()
    }
}

/// Makes sure that a node becomes a member that is to join.
async fn join(start: &Start, group: &ClusterGroup, node: NewNode) -> Result<(), NodeError> {
    if let Start::Join(urls) = start {
        join::run(group.clone(), urls.clone(), node).await?;
    }
    std::future::pending().await
}

/// Makes sure that a node is where the cluster knows it to be: elsewhere, nobody would find it.
async fn moved(config: &NodeConfig, group: &ClusterGroup) -> Result<(), NodeError> {
    let (me, mut applied) = (group.me(), group.published().watch_control());
    loop {
        let state = group.state();
        if let Some(node) = state.membership.get(me) {
            let (api, peer) = (config.api_addr.to_string(), config.peer_addr.to_string());
            if node.api_addr == api && node.peer_addr == peer {
                return std::future::pending().await;
            }
            return Err(NodeError(format!(
                "node {me} was started with the addresses {api} (API) and {peer} (peers), and the cluster knows it at \
                 {} and {}; start it there, or remove it and let it join anew with an empty data directory",
                node.api_addr, node.peer_addr
            )));
        }
        if applied.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn bind(what: &str, addr: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(addr).await.map_err(|error| listen_failed(what, addr, &error))
}

async fn bind_udp(what: &str, addr: SocketAddr) -> Result<UdpSocket, NodeError> {
    UdpSocket::bind(addr).await.map_err(|error| listen_failed(what, addr, &error))
}

fn listen_failed(what: &str, addr: SocketAddr, error: &io::Error) -> NodeError {
    NodeError(format!(
        "the {what} address {addr} cannot be listened on: {error}; choose another, or end who has it"
    ))
}

/// Who this node is from now on: the first of a new cluster, or a member-to-be of another.
async fn first_identity(config: &NodeConfig) -> Result<Identity, NodeError> {
    let identity = |cluster_id, node_id, incarnation| {
        let name = config.name.clone().unwrap_or_else(|| made_up_name(node_id));
        let addresses = Addresses {
            api_addr: config.api_addr,
            peer_addr: config.peer_addr,
            public_url: config.public_url.clone(),
        };
        Identity { cluster_id, node_id, name, incarnation, addresses }
    };
    match &config.start {
        Start::Bootstrap => {
            let id = config.id.unwrap_or(NodeId(1));
            Ok(identity(uuid::Uuid::new_v4().to_string(), id, Incarnation(1)))
        }
        Start::Join(urls) => loop {
            let cluster = join::find_cluster(urls).await;
            version::check(cluster.feature_level).map_err(|error| NodeError(error.to_string()))?;
            let identity = identity(cluster.id, config.id.unwrap_or(cluster.next_id), cluster.incarnation);
            if join::admit(urls, &new_node(config, &identity)).await? {
                return Ok(identity);
            }
            // Another node was quicker to take the id; unless it was asked for, there are others.
            if let Some(id) = config.id {
                // Consensus counts on what it once acknowledged: it must not come back without that.
                return Err(NodeError(format!(
                    "node {id} is a member of {} already, and {} is empty. A node that has lost its data comes \
                     back under a new id: start it with another --id, or restore the directory",
                    cluster.name,
                    config.data_dir.display()
                )));
            }
        },
        Start::Resume => Err(NodeError(format!(
            "{} is empty: start the first node of a cluster with --bootstrap, and further ones with --join URL",
            config.data_dir.display()
        ))),
    }
}

fn new_node(config: &NodeConfig, identity: &Identity) -> NewNode {
    NewNode {
        id: identity.node_id,
        name: identity.name.clone(),
        zone: config.zone.clone(),
        weight: config.weight,
        api_addr: config.api_addr.to_string(),
        peer_addr: config.peer_addr.to_string(),
        public_url: config.public_url.clone(),
    }
}

/// Founds a cluster. A first node that was stopped halfway goes on where it was.
///
/// It listens first: members of a cluster that it was in before its disk was lost call it, and the node
/// ends instead of taking writes that they would never see.
async fn create_cluster(group: ClusterGroup, name: String, identity: Identity, first: NewNode) {
    tokio::time::sleep(LISTEN_BEFORE_FOUNDING).await;
    if let Err(why) = group.bootstrap(&first.peer_addr).await {
        tracing::error!(why, "the cluster cannot be created");
        return;
    }
    let mut applied = group.published().watch_control();
    while group.state().id.is_empty() {
        if group.leading().is_some() {
            let command = Command::CreateCluster {
                name: name.clone(),
                id: identity.cluster_id.clone(),
                incarnation: identity.incarnation,
                feature_level: FEATURE_LEVEL,
                first: first.clone(),
            };
            let request = Request {
                id: format!("create-{}", identity.cluster_id),
                actor: Actor::Node(identity.node_id),
                repeatable: false,
                resent_after: None,
            };
            if let Err(refusal) = group.propose(request, command, clock::now() + CREATE_PATIENCE).await {
                tracing::warn!(%refusal, "the cluster is not created yet; trying again");
            }
        }
        // Leading begins with an entry that is applied.
        let _ = timeout(CREATE_PAUSE, applied.changed()).await;
    }
}

/// Has the proxy route by what the cluster agreed on, and the others know.
async fn follow_traffic(group: ClusterGroup, proxy: Proxy, telemetry: Arc<Telemetry>) {
    let mut applied = group.published().watch_control();
    let mut followed = None::<(Upstreams, Routes)>;
    loop {
        let state = group.state();
        let known = |(upstreams, routes): &(Upstreams, Routes)| {
            state.upstreams.is_same_as(upstreams) && state.routes.is_same_as(routes)
        };
        // Before it has applied anything, a node knows less than its proxy does.
        if !state.id.is_empty() {
            let another = !followed.as_ref().is_some_and(known);
            if another {
                proxy.set_table(state.upstreams.iter(), state.routes.iter());
                followed = Some((state.upstreams.clone(), state.routes.clone()));
            }
            telemetry.routes_by(state.revision, another);
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Has the proxy know what endpoints told other nodes.
async fn follow_heartbeats(telemetry: Arc<Telemetry>, proxy: Proxy) {
    let mut reports = telemetry.watch();
    while reports.changed().await.is_ok() {
        for (ago, beats) in telemetry.heard_beats() {
            proxy.merge_heartbeats(&beats, ago);
        }
    }
}

/// Keeps links to all members, whoever they are.
async fn follow_members(group: ClusterGroup, peers: Peers) {
    let mut applied = group.published().watch_control();
    let mut linked = Vec::new();
    loop {
        let members = group.members();
        if members != linked {
            peers.set_members(&members);
            linked = members;
        }
        peers.set_departed(&group.state().membership.departed);
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Listens from now on, and is done when a signal says to stop.
fn stop_signal() -> impl Future<Output = ()> {
    let handlers = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut terminate), Ok(mut interrupt)) = handlers else {
            // Without handlers, the signals end the process by themselves.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// A leader that stops hands over first, so that writes pause for milliseconds instead of an
/// election. A node that has just started takes nothing over yet; then it is tried again.
async fn hand_over(group: &ClusterGroup) {
    let me = group.me();
    let deadline = clock::now() + HAND_OVER_PATIENCE;
    if group.leader() != Some(me) {
        return;
    }
    let somebody_else = || group.leader().is_some_and(|leader| leader != me);
    let mut asked = None;
    while !somebody_else() && clock::now() < deadline {
        let (state, observed) = (group.state(), group.observations());
        let best = planner::successor(&state, &observed, |id| id != me && Some(id) != asked)
            .or_else(|| planner::successor(&state, &observed, |id| id != me));
        let Some(best) = best else { return };
        tracing::info!(to = %best, "handing leadership over");
        if group.transfer(best).await.is_err() {
            return;
        }
        asked = Some(best);
        let again = clock::now() + HAND_OVER_AGAIN;
        while !somebody_else() && clock::now() < again {
            tokio::time::sleep(HAND_OVER_LOOK).await;
        }
    }
}
