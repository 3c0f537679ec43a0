//! What this node measures, and what it has heard of the others' measurements.
//!
//! Nothing here is agreed on and nothing goes through Raft. Each node reports to each other node
//! over the peer links, so that any of them can tell a browser about all. A report is shown with its
//! source and age, and one that is lost is made good by the next.
//!
//! Where two nodes do not hear each other, whoever hears both passes their latest reports on, so that
//! the leader learns what everybody sees. A report is passed on once: only by who had it from its source.

mod measure;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use ringmaster_cluster::planner::EndpointRates;
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{
    cluster::{Liveness, MAX_NODES, Role},
    duration::millis,
    id::{GroupId, NodeId, Revision},
    plan::Warning,
    telemetry::{AgedReport, FRESH_MS, NodeReport, Sample},
    traffic::{
        health::{EndpointOpinion, ReceivedHeartbeat},
        live::UpstreamMetrics,
        warnings::{FailedListener, ProxyReport, warnings},
    },
};
use ringmaster_net::clock;
use ringmaster_peer as peer;
use ringmaster_peer::{Channel, Lane, Peers, Service, Session, Trace};
use ringmaster_storage::journal::Journal;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

pub use measure::resident_bytes;

/// How often links are judged. A change of opinion, or of who leads, is reported at once.
const JUDGE_EVERY: Duration = Duration::from_millis(200);
/// How often a report is made when nothing changed.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// A report older than this is not passed on: its node has fallen silent.
const RELAY_AGE_LIMIT: Duration = Duration::from_secs(1);
/// Reports older than this are no longer shown or counted.
pub const REPORT_AGE_LIMIT: Duration = Duration::from_secs(10);

/// A silence must be this odd before its peer is suspected, and before it is called dead, however long
/// it is: once in a thousand times by chance, and once in a hundred million.
const SUSPECT_PHI: f64 = 3.0;
const DEAD_PHI: f64 = 8.0;

/// Reports to other nodes.
pub const TELEMETRY: Channel = Channel(17);

/// How many endpoints a report tells of at the most. What does not fit is unknown to the others.
pub const MAX_REPORTED_ENDPOINTS: usize = 4096;

/// Of how many endpoints a report has figures at the most. What does not fit is not shown elsewhere.
const MAX_REPORTED_FIGURES: usize = 1024;

/// What this node's proxy says of itself. Telemetry knows no proxy; whoever composes the node connects the two.
pub trait DataPlane: Send + Sync + 'static {
    /// What its own checks say of endpoints.
    fn opinions(&self) -> Arc<[EndpointOpinion]>;
    /// The heartbeats that it has heard.
    fn beats(&self) -> Vec<ReceivedHeartbeat>;
    /// What it did lately.
    fn figures(&self) -> Arc<[UpstreamMetrics]>;
    /// Where it should listen and cannot.
    fn failed_listeners(&self) -> Vec<FailedListener>;
}

/// What a node says of endpoints, and how long ago.
#[derive(Clone, Debug)]
pub struct SeenByNode {
    pub node: NodeId,
    pub age: Duration,
    pub endpoints: Arc<[EndpointOpinion]>,
}

/// A report on its way to another node. What it says of the health of endpoints is for the leader; browsers learn of
/// that from the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Message {
    /// How old it was when it was sent: what is passed on has an age.
    #[serde(default)]
    age_ms: u64,
    #[serde(flatten)]
    report: NodeReport,
    #[serde(default)]
    endpoints: Arc<[EndpointOpinion]>,
    /// Heartbeats that the node has heard itself. They are for everybody.
    #[serde(default)]
    beats: Arc<[ReceivedHeartbeat]>,
    #[serde(default)]
    traffic: Arc<[UpstreamMetrics]>,
    /// The revision that its proxy routes by.
    #[serde(default)]
    routed: Revision,
    #[serde(default)]
    deaf: Arc<[FailedListener]>,
}

#[derive(Debug)]
struct Heard {
    message: Message,
    /// Which node sent it here, be it its own or another.
    from: NodeId,
    /// When it was made, by this node's clock.
    at: Instant,
}

impl Heard {
    fn is_direct(&self) -> bool {
        self.from == self.message.report.node
    }
}

/// The latest report of each node.
#[derive(Debug)]
pub struct Telemetry {
    me: NodeId,
    started: Instant,
    reports: Mutex<BTreeMap<NodeId, Heard>>,
    changed: watch::Sender<u64>,
    /// Counts changes of who leads, by anybody's report.
    shifts: watch::Sender<u64>,
    streams: AtomicU32,
    elections: AtomicU64,
    /// The revision that this node's proxy routes by.
    routed: watch::Sender<Revision>,
}

impl Telemetry {
    pub fn new(me: NodeId) -> Arc<Self> {
        Arc::new(Telemetry {
            me,
            started: clock::now(),
            reports: Mutex::default(),
            changed: watch::Sender::default(),
            shifts: watch::Sender::default(),
            streams: AtomicU32::new(0),
            elections: AtomicU64::new(0),
            routed: watch::Sender::default(),
        })
    }

    fn reports(&self) -> MutexGuard<'_, BTreeMap<NodeId, Heard>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, from: NodeId, message: Message) {
        let (node, after) = (message.report.node, standing(&message.report));
        let now = clock::now();
        let at = now.checked_sub(Duration::from_millis(message.age_ms)).unwrap_or(now);
        let heard = Heard { message, from, at };
        let mut reports = self.reports();
        // What comes by way of another may be late, and may be of anybody.
        let is_news = match reports.get(&node) {
            _ if heard.is_direct() => true,
            Some(known) => known.at < heard.at,
            None => reports.len() < MAX_NODES,
        };
        if !is_news {
            return;
        }
        let before = reports.insert(node, heard);
        drop(reports);
        if before.is_none_or(|before| standing(&before.message.report) != after) {
            self.shifts.send_modify(|count| *count += 1);
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Of who is no member, nothing is kept.
    fn forget_all_but(&self, is_member: impl Fn(NodeId) -> bool) {
        self.reports().retain(|node, _| *node == self.me || is_member(*node));
    }

    /// Takes in what a peer sent.
    pub fn receive(&self, from: NodeId, body: &[u8]) {
        match rmp_serde::from_slice::<Message>(body) {
            // What this node said itself, nobody needs to tell it.
            Ok(message) if message.report.node == self.me => {}
            Ok(message) => self.store(from, message),
            Err(error) => tracing::debug!(%from, %error, "a report that this version cannot read; ignored"),
        }
    }

    /// The reports that are young enough to say something, with their ages.
    pub fn latest(&self) -> Vec<AgedReport> {
        let now = clock::now();
        self.reports()
            .values()
            .map(|heard| (&heard.message.report, now.saturating_duration_since(heard.at)))
            .filter(|(_, age)| *age <= REPORT_AGE_LIMIT)
            .map(|(report, age)| AgedReport { age_ms: millis(age), report: report.clone() })
            .collect()
    }

    /// The reports that `peer` lacks, as it does not hear their nodes, and this node does.
    fn lacked_by(&self, peer: NodeId) -> Vec<Message> {
        let now = clock::now();
        let reports = self.reports();
        let fresh = |node: NodeId| {
            let heard = reports.get(&node).filter(|heard| heard.is_direct())?;
            let age = now.saturating_duration_since(heard.at);
            (age <= RELAY_AGE_LIMIT).then_some((age, &heard.message))
        };
        let Some((_, theirs)) = fresh(peer) else { return Vec::new() };
        let unheard = theirs.report.links.iter().filter(|link| link.sees != Liveness::Alive);
        unheard
            .filter(|link| link.peer != self.me)
            .filter_map(|link| fresh(link.peer))
            .map(|(age, message)| Message { age_ms: millis(age), ..message.clone() })
            .collect()
    }

    /// What each node last said of endpoints, however long ago.
    pub fn seen_of_endpoints(&self) -> Vec<SeenByNode> {
        let now = clock::now();
        let seen = |(node, heard): (&NodeId, &Heard)| SeenByNode {
            node: *node,
            age: now.saturating_duration_since(heard.at),
            endpoints: heard.message.endpoints.clone(),
        };
        self.reports().iter().map(seen).collect()
    }

    /// The heartbeats that other nodes have heard, and how long ago they said so.
    pub fn heard_beats(&self) -> Vec<(Duration, Arc<[ReceivedHeartbeat]>)> {
        let now = clock::now();
        let reports = self.reports();
        let others = reports.iter().filter(|(node, _)| **node != self.me);
        others
            .map(|(_, heard)| (now.saturating_duration_since(heard.at), heard.message.beats.clone()))
            .collect()
    }

    /// This node's proxy routes by that revision from now on. Where that is another routing table, the others
    /// are told at once.
    pub fn routes_by(&self, revision: Revision, another: bool) {
        self.routed.send_if_modified(|known| {
            *known = revision;
            another
        });
    }

    /// The revision that a node's proxy routes by, as far as it has said.
    pub fn routed(&self, node: NodeId) -> Option<Revision> {
        if node == self.me {
            return Some(*self.routed.borrow());
        }
        self.reports().get(&node).map(|heard| heard.message.routed)
    }

    /// What each node that is heard from did lately for upstreams that had anything to do.
    pub fn traffic(&self) -> Vec<Arc<[UpstreamMetrics]>> {
        let now = clock::now();
        let reports = self.reports();
        let fresh =
            reports.values().filter(|heard| millis(now.saturating_duration_since(heard.at)) <= FRESH_MS);
        fresh.map(|heard| heard.message.traffic.clone()).collect()
    }

    /// What all proxies send to each endpoint.
    pub fn endpoint_rates(&self) -> EndpointRates {
        let now = clock::now();
        let mut rates = EndpointRates::new();
        for heard in self.reports().values() {
            let age = now.saturating_duration_since(heard.at);
            for upstream in heard.message.traffic.iter().filter(|_| millis(age) <= FRESH_MS) {
                for endpoint in &upstream.endpoints {
                    let key = (upstream.upstream.clone(), endpoint.endpoint.clone());
                    let rate = rates.entry(key).or_default();
                    rate.requests_per_s += endpoint.requests_per_s;
                    rate.in_flight += endpoint.in_flight;
                    rate.age = rate.age.max(age);
                }
            }
        }
        rates
    }

    /// Whether this node has heard of `peer` lately. It always hears itself.
    pub fn hears(&self, peer: NodeId) -> bool {
        let reports = self.reports();
        let links = reports.get(&self.me).into_iter().flat_map(|own| &own.message.report.links);
        peer == self.me || links.into_iter().any(|link| link.peer == peer && link.sees == Liveness::Alive)
    }

    /// What somebody should look at, of what the proxies of all nodes that are heard from have met.
    pub fn warnings(&self) -> Vec<Warning> {
        let now = clock::now();
        let reports = self.reports();
        let fresh =
            reports.values().filter(|heard| millis(now.saturating_duration_since(heard.at)) <= FRESH_MS);
        warnings(fresh.map(|Heard { message, .. }| ProxyReport {
            node: message.report.node,
            failed_listeners: &message.deaf,
            metrics: &message.traffic,
        }))
    }

    pub fn sample(&self) -> Sample {
        Sample { from: self.me, at: clock::wall(), nodes: self.latest(), warnings: self.warnings() }
    }

    /// Tells of each report that comes in.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How often somebody's part in the cluster group has changed.
    pub fn shifts(&self) -> u64 {
        *self.shifts.borrow()
    }

    /// Tells when somebody's part in the cluster group changed.
    pub fn watch_shifts(&self) -> watch::Receiver<u64> {
        self.shifts.subscribe()
    }

    /// Counts a browser, for as long as the guard lives.
    pub fn count_stream(self: &Arc<Self>) -> StreamCount {
        self.streams.fetch_add(1, Ordering::Relaxed);
        StreamCount(self.clone())
    }

    pub fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// How often this node has found another leader, or the same one in another term.
    pub fn elections(&self) -> u64 {
        self.elections.load(Ordering::Relaxed)
    }

    /// How long the node has run.
    pub fn uptime(&self) -> Duration {
        clock::now().saturating_duration_since(self.started)
    }
}

/// A node's part in the cluster group. When it changes, that is reported and shown at once.
fn standing(report: &NodeReport) -> (Role, u64, Option<NodeId>) {
    (report.role, report.term, report.leader)
}

/// The receiving end of [`TELEMETRY`].
#[derive(Debug)]
pub struct Reports(pub Arc<Telemetry>);

impl Service for Reports {
    fn serves(&self, channel: Channel) -> bool {
        channel == TELEMETRY
    }

    fn connected(&self, _: NodeId) -> Box<dyn Session> {
        Box::new(Reports(self.0.clone()))
    }
}

impl Session for Reports {
    fn receive(&mut self, request: peer::Incoming) {
        self.0.receive(request.from, &request.body);
    }
}

/// One open stream.
#[derive(Debug)]
pub struct StreamCount(Arc<Telemetry>);

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Measures and reports, for as long as the node runs.
pub async fn run(
    telemetry: Arc<Telemetry>,
    group: ClusterGroup,
    peers: Peers,
    journal: Arc<Journal>,
    proxy: impl DataPlane,
) {
    let (mut link_changes, mut routed) = (peers.changes(), telemetry.routed.subscribe());
    let mut ticks = clock::ticks(JUDGE_EVERY);
    let mut last = None;
    let mut reported = None::<Instant>;
    let mut led = None;
    loop {
        let rerouted = tokio::select! {
            _ = ticks.tick() => false,
            // What came or went is looked at at once; that some changes were missed does no harm.
            _ = link_changes.recv() => false,
            changed = routed.changed() => changed.is_ok(),
        };
        let links = measure::links(&telemetry, &group, &peers);
        let opinions: Vec<_> = links.iter().map(|link| (link.peer, link.sees)).collect();
        let (role, term, leader) = group.standing();
        let leadership = leader.map(|leader| (leader, term));
        if leadership.is_some() && leadership != led {
            telemetry.elections.fetch_add(1, Ordering::Relaxed);
            led = leadership;
        }
        let mut endpoints = proxy.opinions();
        if endpoints.len() > MAX_REPORTED_ENDPOINTS {
            endpoints = endpoints[..MAX_REPORTED_ENDPOINTS].into();
        }
        let news = Some((opinions, role, term, leader, endpoints.clone()));
        let due = reported.is_none_or(|at| clock::now().saturating_duration_since(at) >= REPORT_EVERY);
        if !due && !rerouted && news == last {
            continue;
        }
        let report = measure::report(&telemetry, &group, journal.fsyncs(), links);
        telemetry.forget_all_but(|node| group.state().membership.get(node).is_some());
        last = news;
        reported = Some(clock::now());
        let (beats, traffic) = (proxy.beats().into(), busy(&proxy.figures()));
        let (deaf, routed) = (proxy.failed_listeners().into(), *routed.borrow_and_update());
        let message = Message { age_ms: 0, report, endpoints, beats, traffic, deaf, routed };
        let body = encode(&message);
        telemetry.store(telemetry.me, message);
        for node in group.state().membership.iter().filter(|node| node.id != telemetry.me) {
            peers.cast(node.id, cast(body.clone()));
            for lacked in telemetry.lacked_by(node.id) {
                peers.cast(node.id, cast(encode(&lacked)));
            }
        }
    }
}

/// The figures that are reported.
fn busy(figures: &[UpstreamMetrics]) -> Arc<[UpstreamMetrics]> {
    let mut told = 0;
    let fits = |figures: &&UpstreamMetrics| {
        let fits = told + figures.endpoints.len() <= MAX_REPORTED_FIGURES;
        told += if fits { figures.endpoints.len() } else { 0 };
        fits
    };
    figures.iter().filter(|figures| figures.is_busy()).filter(fits).cloned().collect()
}

fn encode(message: &Message) -> Bytes {
    Bytes::from(rmp_serde::to_vec_named(message).expect("plain data encodes"))
}

fn cast(body: Bytes) -> peer::Request {
    let (group, trace) = (GroupId::CLUSTER, Trace::default());
    peer::Request { channel: TELEMETRY, group, trace, lane: Lane::Bulk, body }
}
