//! This node's replica of a Raft group, whatever the group's application is.
//!
//! All calls into openraft are here, in terms of bytes, indexes and terms.

mod members;
mod status;

pub use self::status::GroupStatus;

use crate::{
    acknowledged::Acknowledged,
    application::Stamp,
    leader_clock::LeaderClock,
    log_store::LogStore,
    lost_entries::LostEntries,
    published::{AppliedState, Progress},
    remembered::Remembered,
    snapshot_store::SnapshotStore,
    state_machine::RaftHandle,
    types::{LogId, Payload, TypeConfig},
};
use bytes::Bytes;
use openraft::{
    Instant as _, RaftLogReader, ReadPolicy,
    alias::CommittedLeaderIdOf,
    async_runtime::WatchReceiver,
    entry::RaftEntry,
    errors::{ClientWriteError, Fatal},
    impls::ProgressResponder,
    storage::RaftLogStorage,
};
use ringmaster_common::id::{GroupId, NodeId, Revision};
use ringmaster_net::{clock, latencies::Latencies};
use ringmaster_peer::{LinkState, Peers};
use std::{
    collections::BTreeSet,
    fmt,
    future::pending,
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::timeout_at};

/// After so many leases without a leader, a node campaigns that the application does not let lead: those that may lead
/// cannot.
const LEADERLESS_LEASES: u32 = 10;
/// The pause before the leader is looked for again, or a change of members is tried again.
pub const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// A leader reads under its lease except for the last part of it, one in so many: clocks of nodes may differ by that,
/// and a thread may be held up.
const LEASE_MARGIN: u32 = 4;
/// How often a replica that has lost entries looks whether it has them again.
const LOSS_INTERVAL: Duration = Duration::from_millis(20);

/// Cheap to clone.
#[derive(Clone)]
pub struct Replica(Arc<Inner>);

struct Inner {
    node: NodeId,
    group: GroupId,
    raft: RaftHandle,
    state: Arc<dyn AppliedState>,
    log: LogStore,
    snapshots: Arc<SnapshotStore>,
    peers: Peers,
    acknowledged: Acknowledged,
    lost_entries: LostEntries,
    remembered: Remembered,
    /// Why this replica has stopped, where it was not openraft's doing.
    failure: watch::Sender<Option<String>>,
    clock: LeaderClock,
    latencies: Latencies,
    /// For how long followers keep to a leader that they have heard from.
    lease: Duration,
}

/// The right to submit one command, in one term.
#[derive(Debug)]
pub struct Turn {
    leader: CommittedLeaderIdOf<TypeConfig>,
    pub stamp: Stamp,
    since: Instant,
}

/// The fate of a command that was submitted.
#[derive(Debug)]
pub enum Submitted {
    Applied {
        revision: Revision,
        outcome: Bytes,
    },
    /// It will never be applied.
    NotLeader,
    Unknown,
}

impl Replica {
    pub(crate) fn new(
        group: GroupId,
        raft: RaftHandle,
        state: Arc<dyn AppliedState>,
        (log, snapshots): (LogStore, Arc<SnapshotStore>),
        peers: Peers,
        acknowledged: Acknowledged,
        lease: Duration,
    ) -> Replica {
        let node = peers.local().node_id;
        let (clock, latencies, lost_entries, remembered, failure) = Default::default();
        Replica(Arc::new(Inner {
            node,
            group,
            raft,
            state,
            log,
            snapshots,
            peers,
            acknowledged,
            lost_entries,
            remembered,
            failure,
            clock,
            latencies,
            lease,
        }))
    }

    pub fn node(&self) -> NodeId {
        self.0.node
    }

    pub fn group(&self) -> GroupId {
        self.0.group
    }

    pub(crate) fn raft(&self) -> &RaftHandle {
        &self.0.raft
    }

    pub(crate) fn snapshots(&self) -> &Arc<SnapshotStore> {
        &self.0.snapshots
    }

    pub(crate) fn lost_entries(&self) -> &LostEntries {
        &self.0.lost_entries
    }

    /// What peers remember of it from before it started, where they report that.
    pub fn remembered(&self) -> &Remembered {
        &self.0.remembered
    }

    /// The index through which this replica had acknowledged entries that it has lost since; none where it has lost
    /// none, or has them again.
    pub fn lost_through(&self) -> Option<u64> {
        self.0.lost_entries.last().map(|last| last.index)
    }

    /// While this node leads: the followers that have lost entries which they had acknowledged.
    pub fn followers_with_losses(&self) -> BTreeSet<NodeId> {
        self.0.acknowledged.lost().into_keys().collect()
    }

    /// Stops for good; the first reason stays. The node ends with it.
    pub(crate) fn fail(&self, reason: String) {
        self.0.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            failure.get_or_insert(reason);
            is_first
        });
    }

    pub(crate) fn failure(&self) -> &watch::Sender<Option<String>> {
        &self.0.failure
    }

    /// The id of the entry at an index, if the log still has it.
    pub(crate) async fn entry_at(&self, index: u64) -> Option<LogId> {
        let entries = self.0.log.clone().try_get_log_entries(index..=index).await.ok()?;
        entries.first().map(RaftEntry::log_id)
    }

    async fn last_log_id(&self) -> io::Result<Option<LogId>> {
        Ok(self.0.log.clone().get_log_state().await?.last_log_id)
    }

    /// The last index that has been on this node's disk.
    pub fn durable_index(&self) -> u64 {
        self.0.log.durable_index()
    }

    /// Ends a loss of entries once the log has reached them again. Runs for as long as the replica.
    pub(crate) async fn watch_lost_entries(self) {
        let mut lost = self.lost_entries().watch();
        loop {
            while self.lost_entries().last().is_some() {
                if let Ok(Some(last)) = self.last_log_id().await {
                    self.lost_entries().reached(last);
                }
                tokio::time::sleep(LOSS_INTERVAL).await;
            }
            if lost.changed().await.is_err() {
                return;
            }
        }
    }

    /// Another node remembers that this replica had applied the entry of `term` at `index`.
    pub async fn was_applied_here(&self, term: u64, index: Revision) {
        let applied = LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(term), index.0);
        // A log that cannot be read has not lost anything yet.
        if let Ok(last) = self.last_log_id().await
            && last < Some(applied)
        {
            self.0.lost_entries.found(applied);
        }
    }

    pub fn progress(&self) -> &Progress {
        self.0.state.progress()
    }

    pub fn peers(&self) -> &Peers {
        &self.0.peers
    }

    pub fn latencies(&self) -> &Latencies {
        &self.0.latencies
    }

    /// For how long followers keep to a leader that they have heard from.
    pub fn lease(&self) -> Duration {
        self.0.lease
    }

    /// Whether the application lets a node lead; this node leads only if it has lost nothing, as far as its peers know,
    /// too.
    pub(crate) fn may_lead(&self, node: NodeId) -> bool {
        self.0.state.may_lead(node) && (node != self.node() || self.has_all_it_had())
    }

    /// Whether this node should lead although the application does not let it, for no other node does.
    pub(crate) async fn is_needed_as_leader(&self) -> bool {
        let silence = self.silence_of_leader().await;
        self.has_all_it_had() && silence.is_some_and(|silence| silence >= self.0.lease * LEADERLESS_LEASES)
    }

    fn has_all_it_had(&self) -> bool {
        let awaited = |link: &LinkState| link.connected && self.0.remembered.is_awaited_from(link.peer);
        self.lost_through().is_none() && !self.peers().links().iter().any(awaited)
    }

    /// The leader, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.0.raft.server_metrics().borrow_watched().current_leader
    }

    /// The term in which this node leads and has applied the first entry, if it does.
    pub fn leading(&self) -> Option<u64> {
        let term = self.0.raft.as_leader().ok()?.term();
        (self.progress().applied().term == term).then_some(term)
    }

    /// Waits until this node leads, and returns the term. It never returns once Raft has stopped.
    pub async fn until_leading(&self) -> u64 {
        let mut applied = self.progress().watch();
        let mut metrics = self.0.raft.server_metrics();
        loop {
            if let Some(term) = self.leading() {
                return term;
            }
            let elected = metrics.wait_until(|now| now.current_leader == Some(self.node()));
            // Once elected, it leads when it has applied the first entry of its term.
            if elected.await.is_err() || applied.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }

    /// Waits until the leader, as far as this node knows, is not `leader` any more.
    pub async fn leader_other_than(&self, leader: Option<NodeId>) {
        let mut metrics = self.0.raft.server_metrics();
        // Once Raft has stopped there is no other leader to come.
        if metrics.wait_until(|now| now.current_leader != leader).await.is_err() {
            pending().await
        }
    }

    /// Waits until this node has applied `revision`; false if it has not by the deadline.
    pub async fn wait_applied(&self, revision: Revision, deadline: Instant) -> bool {
        let mut applied = self.progress().watch();
        let reached = applied.wait_for(|applied| applied.revision >= revision);
        matches!(timeout_at(deadline.into(), reached).await, Ok(Ok(_)))
    }

    /// The group's clock in milliseconds, while this node leads.
    pub fn clock_ms(&self) -> Option<u64> {
        let term = self.leading()?;
        self.stamp_ms(term, clock::now())
    }

    fn stamp_ms(&self, term: u64, now: Instant) -> Option<u64> {
        self.0.clock.stamp(term, now, self.progress().applied(), || self.0.state.clock_ms())
    }

    /// The right to submit a command in the present term, or in `if_term` alone; none if this node does not lead it.
    pub async fn turn(&self, if_term: Option<u64>, deadline: Instant) -> Option<Turn> {
        let leader = self.0.raft.as_leader().ok()?;
        let term = leader.term();
        if if_term.is_some_and(|only| only != term) {
            return None;
        }
        // A leader that was just elected applies the first entry of its term first; it takes milliseconds.
        let mut applied = self.progress().watch();
        let first = applied.wait_for(|applied| applied.term >= term);
        if !matches!(timeout_at(deadline.into(), first).await, Ok(Ok(_))) {
            return None;
        }
        let since = clock::now();
        let stamp = Stamp { clock_ms: self.stamp_ms(term, since)?, wall: clock::wall() };
        Some(Turn { leader: leader.to_committed_leader_id(), stamp, since })
    }

    /// Submits a command for the term of its turn alone. In a later term openraft refuses it, because its stamp is of
    /// another leader's clock.
    pub async fn submit(&self, turn: Turn, command: Bytes, deadline: Instant) -> Submitted {
        self.0.latencies.proposed();
        let (responder, answer) = ProgressResponder::complete_only();
        let write = self.0.raft.write(Payload(command)).with_leader(turn.leader).responder(responder);
        if write.await.is_err() {
            return Submitted::NotLeader;
        }
        match timeout_at(deadline.into(), answer).await {
            Ok(Ok(Ok(written))) => {
                self.0.latencies.record(clock::now().saturating_duration_since(turn.since));
                Submitted::Applied { revision: Revision(written.log_id.index), outcome: written.data }
            }
            Ok(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => Submitted::NotLeader,
            Ok(_) | Err(_) => Submitted::Unknown,
        }
    }

    /// The index that a read has to wait for, so that it sees all that was acknowledged before; none if this node does
    /// not lead, or has no quorum. With `lease`, a leader that is sure of its lease asks no quorum.
    pub async fn read_index(&self, lease: bool, deadline: Instant) -> Option<Revision> {
        if lease && let Some(index) = self.lease_read().await {
            return Some(index);
        }
        let read = self.0.raft.get_read_log_id(ReadPolicy::ReadIndex);
        let (read, _) = timeout_at(deadline.into(), read).await.ok()?.ok()?;
        Some(Revision(read.index()))
    }

    /// The index to read at, if the lease was valid even after it was looked up.
    async fn lease_read(&self) -> Option<Revision> {
        let (read, _) = self.0.raft.get_read_log_id(ReadPolicy::LeaseRead).await.ok()?;
        let acked = self.0.raft.data_metrics().borrow_watched().last_quorum_acked?.into_inner();
        let sure = self.0.lease / LEASE_MARGIN * (LEASE_MARGIN - 1);
        (acked.elapsed() < sure).then(|| Revision(read.index()))
    }

    /// The index of the latest snapshot.
    pub(crate) fn snapshot_index(&self) -> u64 {
        self.0.raft.metrics().borrow_watched().snapshot.map_or(0, |id| id.index)
    }

    /// Takes a snapshot, whatever the policy is.
    pub(crate) async fn take_snapshot(&self) -> Result<(), Fatal<TypeConfig>> {
        self.0.raft.trigger().snapshot().await
    }

    pub async fn shutdown(&self) {
        // The process ends next, and nothing is left to do about an error.
        let _ = self.0.raft.shutdown().await;
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("node", &self.0.node).field("group", &self.0.group).finish()
    }
}
