//! The receiving side of Raft between nodes: gives what peers send to the Raft group it is for.
//!
//! What always holds:
//! - Appends of one connection to one group reach Raft in the order in which they were sent, and
//!   without waiting for each other's fsync ([`append`]). Nothing else waits for them.
//! - A node that started lately votes for nobody ([`VoteGuard`]).
//! - A snapshot is installed whole and checked, or not at all ([`snapshot`]).

mod append;
mod group;
mod snapshot;

use self::{
    group::{Group, Groups},
    snapshot::Snapshots,
};
use super::{
    types::TypeConfig,
    wire::{self, Append},
};
use bytes::Bytes;
use openraft::{Raft, storage::RaftStateMachine};
use ringmaster_common::id::{GroupId, NodeId};
use ringmaster_net::clock;
use ringmaster_peer::{Channel, Failure, FailureCode, Incoming, Service, Session};
use std::{collections::HashMap, sync::Arc, time::Instant};
use tokio::sync::mpsc;

/// Until when a node that has just started neither votes nor helps another to be elected.
///
/// Before it stopped it may have acknowledged a leader, who relies on it until the lease is over: a
/// restarted node has forgotten that it must not elect somebody else before then.
#[derive(Clone, Copy, Debug)]
pub struct VoteGuard {
    until: Instant,
}

/// Serves the Raft groups of this node to its peers. Cheap to clone.
#[derive(Clone)]
pub struct RaftService {
    groups: Groups,
    guard: VoteGuard,
    snapshots: Snapshots,
}

impl VoteGuard {
    pub fn until(instant: Instant) -> VoteGuard {
        VoteGuard { until: instant }
    }

    fn check(&self) -> Result<(), Failure> {
        let left = self.until.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Ok(());
        }
        let detail = format!("this node started lately and votes again in {} ms", left.as_millis());
        Err(Failure::new(FailureCode::Unavailable, detail))
    }
}

impl RaftService {
    pub fn new(guard: VoteGuard) -> RaftService {
        RaftService { groups: Groups::default(), guard, snapshots: Snapshots::default() }
    }

    /// Serves `group` from now on, in place of whatever served it before.
    pub fn insert<SM>(&self, group: GroupId, raft: Raft<TypeConfig, SM>)
    where
        SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>,
    {
        self.groups.insert(group, Arc::new(raft));
    }
}

impl Service for RaftService {
    fn serves(&self, channel: Channel) -> bool {
        (wire::APPEND..=wire::SNAPSHOT).contains(&channel)
    }

    fn connected(&self, _: NodeId) -> Box<dyn Session> {
        Box::new(RaftSession {
            groups: self.groups.clone(),
            guard: self.guard,
            append_lanes: HashMap::new(),
            snapshots: self.snapshots.clone(),
        })
    }
}

/// What one connection is served with.
struct RaftSession {
    groups: Groups,
    guard: VoteGuard,
    append_lanes: HashMap<GroupId, mpsc::Sender<Incoming>>,
    snapshots: Snapshots,
}

impl Session for RaftSession {
    fn receive(&mut self, request: Incoming) {
        let group = match self.groups.get(request.group) {
            Ok(group) => group,
            Err(failure) => return request.answer.fail(&failure),
        };
        let guard = self.guard;
        match request.channel {
            wire::APPEND => self.append(request),
            wire::SNAPSHOT => self.snapshots.receive(group, request),
            wire::HEARTBEAT => answer(request, async move |body| heartbeat(&*group, &body).await),
            wire::VOTE => answer(request, async move |body| {
                guard.check()?;
                wire::reply(&group.vote(wire::decode(&body)?).await?)
            }),
            wire::PRE_VOTE => answer(request, async move |body| {
                guard.check()?;
                wire::reply(&group.pre_vote(wire::decode(&body)?).await?)
            }),
            wire::TRANSFER_LEADER => answer(request, async move |body| {
                guard.check()?;
                wire::reply(&group.transfer_leader(wire::decode(&body)?).await?)
            }),
            Channel(other) => {
                let detail = format!("Raft has no channel {other}");
                request.answer.fail(&Failure::new(FailureCode::UnknownChannel, detail));
            }
        }
    }
}

impl RaftSession {
    fn append(&mut self, request: Incoming) {
        let group = request.group;
        let lane = self.append_lanes.entry(group).or_insert_with(|| append::lane(self.groups.clone(), group));
        if let Err(error) = lane.try_send(request) {
            let failure = Failure::new(FailureCode::Busy, format!("appends to group {group}: {error}"));
            error.into_inner().answer.fail(&failure);
        }
    }
}

async fn heartbeat(group: &dyn Group, body: &[u8]) -> Result<Bytes, Failure> {
    let heartbeat: Append = wire::decode(body)?;
    if !heartbeat.entries.is_empty() {
        return Err(Failure::new(FailureCode::Malformed, "a heartbeat carries no entries"));
    }
    let prev = heartbeat.prev_log_id;
    // Where it carries nothing, what matches is what goes before it.
    wire::reply(&group.append(heartbeat).await?.into_stream_result(prev, prev))
}

/// Answers a request from a task of its own. How many there are is bounded by the link.
fn answer<F>(request: Incoming, serve: impl FnOnce(Bytes) -> F)
where
    F: Future<Output = Result<Bytes, Failure>> + Send + 'static,
{
    let Incoming { body, answer, .. } = request;
    let served = serve(body);
    tokio::spawn(async move { answer.with(served.await) });
}
