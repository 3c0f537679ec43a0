//! The receiving side of Raft between nodes: gives requests of peers to the Raft group that they name.
//!
//! What always holds:
//! - A request for a group that this node is not a member of is refused, and leaves nothing behind.
//! - Appends of one connection to one group reach Raft in the order in which they were sent, and
//!   without waiting for each other's fsync ([`append`]). Nothing else waits for them.
//! - A node that started lately gives no vote ([`VoteGuard`]), none to a peer that has not reported yet
//!   ([`Remembered`](crate::Remembered)), and one that has lost entries gives none to a node that lacks them
//!   ([`LostEntries`]).
//! - A snapshot is installed whole and checked, or not at all ([`snapshot`]).

mod append;
mod leader_log;
mod snapshot;

use self::snapshot::Snapshots;
use crate::{
    lost_entries::LostEntries,
    registry::Registry,
    replica::Replica,
    types::TypeConfig,
    wire::{self, Append},
};
use bytes::Bytes;
use openraft::raft::{StreamAppendError, VoteRequest};
use ringmaster_common::id::{GroupId, NodeId};
use ringmaster_net::clock;
use ringmaster_peer::{Channel, Failure, FailureCode, Incoming, Service, Session};
use std::{collections::HashMap, fmt::Display, time::Instant};
use tokio::sync::mpsc;

/// Until when a node that has just started neither votes nor helps another node to be elected.
///
/// Before it stopped it may have acknowledged a leader, which relies on it until the lease is over. A restarted node
/// does not remember until when it must not elect another leader.
#[derive(Clone, Copy, Debug)]
pub struct VoteGuard {
    until: Instant,
}

/// Serves the Raft groups of this node to its peers. Cheap to clone.
#[derive(Clone)]
pub struct RaftService {
    groups: Registry,
    guard: VoteGuard,
    snapshots: Snapshots,
}

impl VoteGuard {
    pub fn until(instant: Instant) -> VoteGuard {
        VoteGuard { until: instant }
    }

    fn check(&self) -> Result<(), Failure> {
        let remaining = self.until.saturating_duration_since(clock::now());
        if remaining.is_zero() {
            return Ok(());
        }
        let detail = format!("this node started lately and votes again in {} ms", remaining.as_millis());
        Err(Failure::new(FailureCode::Unavailable, detail))
    }

    /// A request of a peer for a vote that this node may give.
    fn vote_request(
        &self,
        replica: &Replica,
        from: NodeId,
        body: &[u8],
    ) -> Result<VoteRequest<TypeConfig>, Failure> {
        self.check()?;
        if replica.remembered().is_awaited_from(from) {
            let detail = format!("this node started lately, and node {from} has not reported to it yet");
            return Err(Failure::new(FailureCode::Unavailable, detail));
        }
        let (lost, request) = (replica.lost_entries(), wire::decode::<VoteRequest<TypeConfig>>(body)?);
        if lost.allow_vote_for(request.last_log_id) { Ok(request) } else { Err(with_losses(lost)) }
    }
}

fn has_lost_nothing(lost: &LostEntries) -> Result<(), Failure> {
    if lost.last().is_none() { Ok(()) } else { Err(with_losses(lost)) }
}

fn with_losses(lost: &LostEntries) -> Failure {
    let through = lost.last().map_or(0, |last| last.index);
    let detail = format!("this node has lost entries that it had acknowledged, through index {through}");
    Failure::new(FailureCode::Unavailable, detail)
}

impl RaftService {
    pub fn new(groups: Registry, guard: VoteGuard) -> RaftService {
        RaftService { groups, guard, snapshots: Snapshots::default() }
    }
}

impl Service for RaftService {
    fn serves(&self, channel: Channel) -> bool {
        (wire::APPEND..=wire::SNAPSHOT).contains(&channel) || channel == wire::FORWARD
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

/// One connection of a peer.
struct RaftSession {
    groups: Registry,
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
        let (guard, from) = (self.guard, request.from);
        match request.channel {
            wire::APPEND => self.append(request),
            wire::SNAPSHOT => self.snapshots.receive(group, request),
            wire::FORWARD => {
                tracing::debug!(from = %request.from, trace = %request.trace, "a call to the leader came");
                answer(request, async move |body| Ok(group.handle_forwarded(body).await));
            }
            wire::HEARTBEAT => answer(request, async move |body| heartbeat(group.replica(), &body).await),
            wire::VOTE => answer(request, async move |body| {
                let request = guard.vote_request(group.replica(), from, &body)?;
                wire::reply(&group.replica().raft().vote(request).await.map_err(stopped)?)
            }),
            wire::PRE_VOTE => answer(request, async move |body| {
                let request = guard.vote_request(group.replica(), from, &body)?;
                wire::reply(&group.replica().raft().pre_vote(request).await.map_err(stopped)?)
            }),
            wire::TRANSFER_LEADER => answer(request, async move |body| {
                guard.check()?;
                has_lost_nothing(group.replica().lost_entries())?;
                let transfer = wire::decode(&body)?;
                wire::reply(&group.replica().raft().handle_transfer_leader(transfer).await.map_err(stopped)?)
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

/// A heartbeat names the last entry that this replica has acknowledged to the leader.
async fn heartbeat(replica: &Replica, body: &[u8]) -> Result<Bytes, Failure> {
    let heartbeat: Append = wire::decode(body)?;
    if !heartbeat.entries.is_empty() {
        return Err(Failure::new(FailureCode::Malformed, "a heartbeat carries no entries"));
    }
    let prev = heartbeat.prev_log_id;
    // Without entries, the log matches up to the entry before them.
    leader_log::check(replica, &heartbeat).await?;
    let result =
        replica.raft().append_entries(heartbeat).await.map_err(stopped)?.into_stream_result(prev, prev);
    if let (Err(StreamAppendError::Conflict(_)), Some(acknowledged)) = (&result, prev) {
        replica.lost_entries().found(acknowledged);
    }
    wire::reply(&result)
}

/// Raft has stopped.
fn stopped(error: impl Display) -> Failure {
    Failure::new(FailureCode::Stopped, error.to_string())
}

/// Answers a request from a task of its own. The link bounds how many there are.
fn answer<F>(request: Incoming, serve: impl FnOnce(Bytes) -> F)
where
    F: Future<Output = Result<Bytes, Failure>> + Send + 'static,
{
    let Incoming { body, answer, .. } = request;
    let served = serve(body);
    tokio::spawn(async move { answer.with(served.await) });
}
