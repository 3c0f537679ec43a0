//! This node's replica of a Raft group, whatever the group's application is.
//!
//! All calls into openraft are here, in terms of bytes, indexes and terms.

mod members;
mod status;

pub use self::status::GroupStatus;

use crate::{
    application::Stamp,
    leader_clock::LeaderClock,
    published::{AppliedState, Progress},
    snapshot_store::SnapshotStore,
    state_machine::RaftHandle,
    types::{Payload, TypeConfig},
};
use bytes::Bytes;
use openraft::{
    Instant as _, ReadPolicy,
    alias::CommittedLeaderIdOf,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, Fatal},
    impls::ProgressResponder,
};
use ringmaster_common::id::{GroupId, NodeId, Revision};
use ringmaster_net::{clock, latencies::Latencies};
use ringmaster_peer::Peers;
use std::{
    fmt,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout_at;

/// The pause before the leader is looked for again, or a change of members is tried again.
pub const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// A leader reads under its lease except for the last part of it, one in so many: clocks of nodes may differ by that,
/// and a thread may be held up.
const LEASE_MARGIN: u32 = 4;

/// Cheap to clone.
#[derive(Clone)]
pub struct Replica(Arc<Inner>);

struct Inner {
    node: NodeId,
    group: GroupId,
    raft: RaftHandle,
    state: Arc<dyn AppliedState>,
    snapshots: Arc<SnapshotStore>,
    peers: Peers,
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
        node: NodeId,
        group: GroupId,
        raft: RaftHandle,
        state: Arc<dyn AppliedState>,
        snapshots: Arc<SnapshotStore>,
        peers: Peers,
        lease: Duration,
    ) -> Replica {
        let (clock, latencies) = (LeaderClock::default(), Latencies::default());
        Replica(Arc::new(Inner { node, group, raft, state, snapshots, peers, clock, latencies, lease }))
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

    pub(crate) fn may_lead(&self, node: NodeId) -> bool {
        self.0.state.may_lead(node)
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
