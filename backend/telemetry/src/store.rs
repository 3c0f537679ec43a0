//! The telemetry of a node: its own report, those of the others, and notice of changes to them.

use crate::{
    checkpoint::{Checkpoint, Checkpoints},
    message::{Message, Position},
    reports::{NodeOpinions, Reports, Stored},
};
use ringmaster_cluster::observations::EndpointRates;
use ringmaster_common::{
    id::{NodeId, Revision},
    plan::Warning,
    telemetry::{AgedReport, Sample},
    traffic::{
        health::ReceivedHeartbeat,
        live::{DrainingEndpoint, UpstreamMetrics},
    },
};
use ringmaster_net::clock;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How far this node had applied the log, as others remember it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) position: Position,
    /// The peers that have reported since this node started.
    pub(crate) by: BTreeSet<NodeId>,
}

#[derive(Debug)]
pub struct Telemetry {
    me: NodeId,
    started: Instant,
    reports: Mutex<Reports>,
    changed: watch::Sender<u64>,
    leadership_changes: watch::Sender<u64>,
    streams: AtomicU32,
    elections: AtomicU64,
    /// The revision of the routing table that this node's proxy has applied.
    applied_table: watch::Sender<Revision>,
    remembered: watch::Sender<Remembered>,
    checkpoints: Mutex<Checkpoints>,
}

impl Telemetry {
    pub fn new(me: NodeId) -> Arc<Self> {
        Arc::new(Telemetry {
            me,
            started: clock::now(),
            reports: Mutex::default(),
            changed: watch::Sender::default(),
            leadership_changes: watch::Sender::default(),
            streams: AtomicU32::new(0),
            elections: AtomicU64::new(0),
            applied_table: watch::Sender::default(),
            remembered: watch::Sender::default(),
            checkpoints: Mutex::default(),
        })
    }

    pub fn me(&self) -> NodeId {
        self.me
    }

    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn store(&self, from: NodeId, message: Message) {
        let stored = self.reports().store(from, message, clock::now());
        if stored == Stored::Outdated {
            return;
        }
        if stored == Stored::LeadershipChanged {
            self.leadership_changes.send_modify(|count| *count += 1);
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Forgets the reports of nodes that are not members.
    pub(crate) fn retain(&self, is_member: impl Fn(NodeId) -> bool) {
        self.reports().retain(|node| node == self.me || is_member(node));
    }

    /// Takes a report that a peer sent.
    pub fn receive(&self, from: NodeId, body: &[u8]) {
        match Message::decode(body) {
            // This node's own report, relayed back to it.
            Ok(message) if message.report.node == self.me => {}
            Ok(message) => {
                let mine = message.remembered.get(&self.me).copied().unwrap_or_default();
                self.remembered.send_if_modified(|known| {
                    let more = known.position < mine;
                    known.position = mine.max(known.position);
                    known.by.insert(message.report.node) || more
                });
                self.store(from, message);
            }
            Err(error) => tracing::debug!(%from, %error, "a report that this version cannot read; ignored"),
        }
    }

    /// The reports that are young enough to be shown, with their ages.
    pub fn latest(&self) -> Vec<AgedReport> {
        self.reports().latest(clock::now())
    }

    /// The reports that `peer` lacks because it cannot reach their nodes, and this node can.
    pub(crate) fn reports_missing_at(&self, peer: NodeId) -> Vec<Message> {
        self.reports().missing_at(peer, self.me, clock::now())
    }

    /// Each node's opinions of endpoints, however old.
    pub fn endpoint_opinions(&self) -> Vec<NodeOpinions> {
        self.reports().endpoint_opinions(clock::now())
    }

    /// The heartbeats that other nodes have received, with the age of their report.
    pub fn received_heartbeats(&self) -> Vec<(Duration, Arc<[ReceivedHeartbeat]>)> {
        self.reports().heartbeats(self.me, clock::now())
    }

    /// This node's proxy has applied the routing table of that revision. A table with a difference is reported at once.
    pub fn set_applied_table(&self, revision: Revision, differs: bool) {
        self.applied_table.send_if_modified(|known| {
            *known = revision;
            differs
        });
    }

    /// The revision of the routing table that a node's proxy has applied, as far as it has reported.
    pub fn applied_table_revision(&self, node: NodeId) -> Option<Revision> {
        if node == self.me {
            return Some(*self.applied_table.borrow());
        }
        self.reports().applied_table_revision(node)
    }

    /// Changes when another node remembers that this one had come further than was known, and with its first report.
    pub(crate) fn watch_remembered(&self) -> watch::Receiver<Remembered> {
        self.remembered.subscribe()
    }

    pub(crate) fn add_checkpoint(&self, checkpoint: Checkpoint) {
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).add(checkpoint);
    }

    pub(crate) fn checkpoints(&self) -> Vec<Checkpoint> {
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// How far each node had applied the log by all of its reports.
    pub(crate) fn positions(&self) -> BTreeMap<NodeId, Position> {
        self.reports().remembered()
    }

    pub(crate) fn watch_applied_table(&self) -> watch::Receiver<Revision> {
        self.applied_table.subscribe()
    }

    /// The metrics of busy upstreams, one list for each node with a fresh report.
    pub fn traffic(&self) -> Vec<Arc<[UpstreamMetrics]>> {
        self.reports().traffic(clock::now())
    }

    /// The draining endpoints of one upstream at the proxies of all nodes that are heard, and which of `nodes` have not
    /// reported since they applied the routing table of this revision.
    pub fn draining(
        &self,
        upstream: &str,
        revision: Revision,
        nodes: impl Iterator<Item = NodeId>,
    ) -> (Vec<DrainingEndpoint>, Vec<NodeId>) {
        self.reports().draining(upstream, revision, nodes, clock::now())
    }

    /// What all proxies together send to each endpoint.
    pub fn endpoint_rates(&self) -> EndpointRates {
        self.reports().endpoint_rates(clock::now())
    }

    /// Whether this node has heard from `peer` lately. It always reaches itself.
    pub fn is_reachable(&self, peer: NodeId) -> bool {
        peer == self.me || self.reports().sees_alive(self.me, peer)
    }

    /// Warnings that follow from what all nodes with a fresh report have met, the most severe first.
    pub fn warnings(&self) -> Vec<Warning> {
        self.reports().warnings(clock::now())
    }

    pub fn sample(&self) -> Sample {
        Sample { from: self.me, at: clock::wall(), nodes: self.latest(), warnings: self.warnings() }
    }

    /// Changes with each report.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How often a report named another role, term or leader of its node.
    pub fn leadership_changes(&self) -> u64 {
        *self.leadership_changes.borrow()
    }

    /// Changes whenever a report names another role, term or leader of its node.
    pub fn watch_leadership_changes(&self) -> watch::Receiver<u64> {
        self.leadership_changes.subscribe()
    }

    /// Counts an open stream, for as long as the guard lives.
    pub fn count_stream(self: &Arc<Self>) -> StreamCount {
        self.streams.fetch_add(1, Ordering::Relaxed);
        StreamCount(self.clone())
    }

    pub fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    pub(crate) fn count_election(&self) {
        self.elections.fetch_add(1, Ordering::Relaxed);
    }

    /// How often this node has seen another leader, or the same one in another term.
    pub fn elections(&self) -> u64 {
        self.elections.load(Ordering::Relaxed)
    }

    /// How long the node has run.
    pub fn uptime(&self) -> Duration {
        clock::now().saturating_duration_since(self.started)
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
