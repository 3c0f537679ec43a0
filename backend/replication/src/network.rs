//! The sending side of Raft between nodes: openraft's network traits over [`Peers`].
//!
//! Appends are pipelined: up to [`APPENDS_UNDER_WAY`] are on their way to a follower, in order, and
//! their answers come back in order. Commands that are proposed meanwhile go into the next one together. Heartbeats,
//! votes and transfers of leadership go in the urgent lane, so that neither a large append nor a snapshot delays them.
//! A snapshot goes piece by piece.
//!
//! openraft takes the answer to an append for the answer to every append up to the same entry, and counts the time when
//! the last of them was sent ([`together`] keeps that true).
//!
//! Time-outs: small messages have the time-out of openraft (`soft_ttl`). An append waits for the follower's disk, and a
//! slow disk is no dead follower: to send the append again would only make the disk slower. So an append has
//! [`APPEND_TIMEOUT`]. The link decides whether the follower lives: it fails every call as soon as the peer is silent
//! for too long.
//!
//! A node's address in the membership is not used: [`Peers::set_members`] sets the addresses of the links.

use crate::{
    acknowledged::Acknowledged,
    snapshot_file::SnapshotFile,
    types::{LogId, TypeConfig, Vote},
    wire::{self, APPEND_WINDOW, Append, SNAPSHOT_PIECE_BYTES, SnapshotMessage},
};
use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    future::{Either, select},
    stream,
};
use openraft::{
    BasicNode, OptionalSend, RaftNetworkFactory,
    alias::SnapshotOf,
    base::{BoxFuture, BoxStream},
    entry::RaftEntry,
    error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{
        Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RPCTypes,
    },
    raft::{
        SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
        VoteResponse,
    },
};
use ringmaster_common::id::{GroupId, NodeId};
use ringmaster_peer::{CallError, Channel, FailureCode, Lane, Peers, Request, Trace};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::VecDeque,
    io, iter,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::task::spawn_blocking;

/// How long openraft waits before it tries an unreachable node again.
const BACKOFF: Duration = Duration::from_millis(30);
/// How long an append may take on a link that lives.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a follower may take to install a snapshot that it has got, on a link that lives.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How many appends may be unanswered: one that the follower's disk works on, and one that waits for the
/// disk. With more of them each would carry less, and nothing would be durable any sooner.
const APPENDS_UNDER_WAY: usize = 2;
const _: () = assert!(APPENDS_UNDER_WAY <= APPEND_WINDOW);
/// An append with more than this is sent in parts, so that what is urgent is not held up for long.
const APPEND_BYTES: usize = 1 << 20;

/// Makes the clients of one Raft group.
#[derive(Clone, Debug)]
pub struct Network {
    peers: Peers,
    group: GroupId,
    acknowledged: Acknowledged,
}

/// Sends to one node, for one Raft group.
#[derive(Clone, Debug)]
pub struct Client {
    peers: Peers,
    group: GroupId,
    target: NodeId,
    appends: Appends,
    acknowledged: Acknowledged,
}

/// The kind of a client's appends.
#[derive(Clone, Copy, Debug)]
enum Appends {
    Entries,
    Heartbeats,
}

impl Network {
    pub fn new(peers: Peers, group: GroupId, acknowledged: Acknowledged) -> Network {
        Network { peers, group, acknowledged }
    }

    fn client(&self, target: NodeId, appends: Appends) -> Client {
        let (peers, acknowledged) = (self.peers.clone(), self.acknowledged.clone());
        Client { peers, group: self.group, target, appends, acknowledged }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, _node: &BasicNode) -> Client {
        self.client(target, Appends::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, _node: &BasicNode) -> Client {
        self.client(target, Appends::Heartbeats)
    }
}

impl Client {
    /// Queues a request at once; the future waits for the answer.
    fn ask<M: Serialize, T: DeserializeOwned>(
        &self,
        action: RPCTypes,
        channel: Channel,
        lane: Lane,
        message: &M,
        limit: Duration,
    ) -> impl Future<Output = Result<T, RPCError<TypeConfig>>> + Send + use<M, T> {
        self.send(action, channel, lane, wire::encode(message), limit)
    }

    fn send<T: DeserializeOwned>(
        &self,
        action: RPCTypes,
        channel: Channel,
        lane: Lane,
        body: Result<Bytes, postcard::Error>,
        limit: Duration,
    ) -> impl Future<Output = Result<T, RPCError<TypeConfig>>> + Send + use<T> {
        let (local, target) = (self.peers.local().node_id, self.target);
        let call = body.map(|body| self.peers.call(target, self.request(channel, lane, body), limit));
        async move {
            let call = call.map_err(|error| NetworkError::new(&error))?;
            let reply = call.await.map_err(|error| rpc_error(action, local, target, error))?;
            Ok(postcard::from_bytes(&reply).map_err(|error| NetworkError::new(&error))?)
        }
    }

    fn request(&self, channel: Channel, lane: Lane, body: Bytes) -> Request {
        Request { channel, group: self.group, trace: Trace::default(), lane, body }
    }

    fn append(
        &self,
        request: &Append,
        soft_ttl: Duration,
    ) -> impl Future<Output = AppendAnswer> + Send + use<> {
        let (appends, target, acknowledged) = (self.appends, self.target, self.acknowledged.clone());
        let (vote, matched) = (request.vote, request.prev_log_id);
        let (channel, lane, limit) = match appends {
            Appends::Entries => (wire::APPEND, Lane::Bulk, soft_ttl.max(APPEND_TIMEOUT)),
            Appends::Heartbeats => {
                acknowledged.heartbeat_sent(target, &vote, matched);
                (wire::HEARTBEAT, Lane::Urgent, soft_ttl)
            }
        };
        let bytes = wire::ENTRY_OVERHEAD + request.entries.iter().map(wire::entry_bytes).sum::<usize>();
        let sent =
            self.send(RPCTypes::AppendEntries, channel, lane, wire::encode_within(request, bytes), limit);
        async move {
            let answer = sent.await?;
            match appends {
                Appends::Heartbeats => acknowledged.heartbeat_answered(target, &vote, matched, &answer),
                Appends::Entries if acknowledged.append_answered(target, &vote, &answer) => {}
                Appends::Entries => return Err(Unreachable::new(&UnnoticedLoss(target)).into()),
            }
            Ok(answer)
        }
    }

    async fn send_snapshot(
        &self,
        transfer: u64,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
        soft_ttl: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = snapshot.snapshot;
        let bytes = body.bytes();
        let begin = SnapshotMessage::Begin { transfer, vote, meta: snapshot.meta, bytes };
        // A receiver that claims to have more than there is will not have the checksum.
        let there = self.ask_snapshot::<u64>(&begin, soft_ttl).await?.min(bytes);
        let mut checksum = crc32fast::Hasher::new();
        let mut offset = 0;
        while offset < bytes {
            // The part that has arrived is read for the checksum alone.
            let end = if offset < there { there } else { bytes };
            let max = usize::try_from(end - offset).unwrap_or(usize::MAX).min(SNAPSHOT_PIECE_BYTES);
            let read = body.clone();
            let piece = spawn_blocking(move || read.piece(offset, max)).await;
            let piece =
                piece.map_err(io::Error::other).flatten().map_err(|error| NetworkError::new(&error))?;
            checksum.update(&piece);
            let next = offset + piece.len() as u64;
            if offset >= there {
                let piece = SnapshotMessage::Piece { transfer, offset, data: piece };
                let () = self.ask_snapshot(&piece, soft_ttl).await?;
            }
            offset = next;
        }
        let finish = SnapshotMessage::Finish { transfer, checksum: checksum.finalize() };
        self.ask_snapshot(&finish, soft_ttl.max(INSTALL_TIMEOUT)).await
    }

    fn ask_snapshot<T: DeserializeOwned>(
        &self,
        message: &SnapshotMessage,
        limit: Duration,
    ) -> impl Future<Output = Result<T, RPCError<TypeConfig>>> + Send + use<T> {
        self.ask(RPCTypes::InstallSnapshot, wire::SNAPSHOT, Lane::Bulk, message, limit)
    }
}

type AppendAnswer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// The next heartbeat shows it to the follower.
#[derive(Debug, thiserror::Error)]
#[error("node {0} lacks log entries that it had acknowledged, and does not know it yet")]
struct UnnoticedLoss(NodeId);

/// The answers in order, each together with those to the appends behind it that end at the same entry.
///
/// Such an append carries the leader's new commit index and no entry. openraft would count the answer to the append
/// before it as one to this, with the time when this was sent: the leader would take a follower for one that still
/// follows it at a time when the follower had not been asked, and answer a read from an old state. So an answer is held
/// until those are there. It costs next to nothing: they are sent right behind, and wait for no disk.
fn together<A: Future<Output = AppendAnswer>>(
    answers: impl Stream<Item = A>,
    window: usize,
    sent: Arc<Mutex<VecDeque<Option<LogId>>>>,
) -> impl Stream<Item = AppendAnswer> {
    let answers = Box::pin(answers.buffered(window));
    let state = (answers, VecDeque::new());
    stream::unfold(Some(state), move |state| {
        let sent = sent.clone();
        async move {
            let (mut answers, mut ready): (_, VecDeque<AppendAnswer>) = state?;
            if ready.is_empty() {
                loop {
                    let answer = answers.next().await?;
                    if !is_success(&answer) {
                        // The appends before it are answered by what comes next: they are sent again.
                        return Some((answer, None));
                    }
                    ready.push_back(answer);
                    let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                    let ended_at = sent.pop_front();
                    if sent.front() != ended_at.as_ref() {
                        break;
                    }
                }
            }
            let answer = ready.pop_front()?;
            Some((answer, Some((answers, ready))))
        }
    })
}

fn is_success(answer: &AppendAnswer) -> bool {
    matches!(answer, Ok(Ok(_)))
}

impl NetBackoff<TypeConfig> for Client {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(iter::repeat(BACKOFF)))
    }
}

impl NetStreamAppend<TypeConfig> for Client {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = Append> + OptionalSend + Unpin + 'static,
    {
        let client = &*self;
        let sent = Arc::new(Mutex::new(VecDeque::new()));
        let ends = sent.clone();
        let appends = input.flat_map(|request| stream::iter(parts(request))).map(move |part| {
            let last = part.entries.last().map(|entry| entry.log_id).or(part.prev_log_id);
            ends.lock().unwrap_or_else(PoisonError::into_inner).push_back(last);
            client.append(&part, option.soft_ttl())
        });
        // The first error is the last answer: appends that were sent after it are of no use.
        let answers: BoxStream<'s, _> = Box::pin(together(appends, APPENDS_UNDER_WAY, sent));
        Box::pin(async { Ok(answers) })
    }
}

impl NetVote<TypeConfig> for Client {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(RPCTypes::Vote, wire::VOTE, Lane::Urgent, &request, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(RPCTypes::Vote, wire::PRE_VOTE, Lane::Urgent, &request, option.soft_ttl()).await
    }
}

impl NetTransferLeader<TypeConfig> for Client {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let (action, channel) = (RPCTypes::TransferLeader, wire::TRANSFER_LEADER);
        self.ask(action, channel, Lane::Urgent, &request, option.soft_ttl()).await
    }
}

impl NetSnapshot<TypeConfig> for Client {
    type SnapshotData = SnapshotFile;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        // It differs from that of a transfer that was broken off.
        let transfer = rand::random();
        let sending = self.send_snapshot(transfer, vote, snapshot, option.soft_ttl());
        match select(pin!(cancel), pin!(sending)).await {
            // A transfer that was broken off continues when it is tried again.
            Either::Right((sent, _)) => sent.map_err(StreamingError::from),
            Either::Left((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }
}

/// Cuts an append into consecutive ones of about [`APPEND_BYTES`]. A single entry is never cut.
fn parts(request: Append) -> Vec<Append> {
    let Append { vote, mut prev_log_id, entries, leader_commit } = request;
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut bytes = 0;
    let mut next_prev = prev_log_id;
    for entry in entries {
        let size = wire::entry_bytes(&entry);
        if !part.is_empty() && bytes + size > APPEND_BYTES {
            parts.push(Append { vote, prev_log_id, entries: std::mem::take(&mut part), leader_commit });
            prev_log_id = next_prev;
            bytes = 0;
        }
        next_prev = Some(entry.log_id());
        bytes += size;
        part.push(entry);
    }
    parts.push(Append { vote, prev_log_id, entries: part, leader_commit });
    parts
}

/// Unreachable makes openraft wait a little before it tries again; the others do not at first.
fn rpc_error(action: RPCTypes, id: NodeId, target: NodeId, error: CallError) -> RPCError<TypeConfig> {
    match &error {
        CallError::TimedOut(timeout) => Timeout { action, id, target, timeout: *timeout }.into(),
        CallError::UnknownPeer | CallError::NotConnected | CallError::Disconnected | CallError::Busy => {
            Unreachable::new(&error).into()
        }
        CallError::Failed(failure) => match failure.code {
            FailureCode::Busy
            | FailureCode::UnknownChannel
            | FailureCode::UnknownGroup
            | FailureCode::Unavailable
            | FailureCode::Stopped => Unreachable::new(&error).into(),
            FailureCode::Malformed | FailureCode::Unanswered => NetworkError::new(&error).into(),
        },
        CallError::TooLarge(_) => NetworkError::new(&error).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Entry, LogId, Payload};
    use openraft::{EntryPayload, alias::CommittedLeaderIdOf};

    fn log_id(index: u64) -> LogId {
        LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(3), index)
    }

    fn append(sizes: &[usize]) -> Append {
        let entries = sizes.iter().zip(8..).map(|(size, index)| {
            let payload = EntryPayload::Normal(Payload(Bytes::from(vec![1; *size])));
            Entry { log_id: log_id(index), payload }
        });
        Append {
            vote: Vote::new_committed(3, NodeId(1)),
            prev_log_id: Some(log_id(7)),
            entries: entries.collect(),
            leader_commit: Some(log_id(7)),
        }
    }

    fn check(sizes: &[usize], expected: &[usize]) {
        let whole = append(sizes);
        let parts = parts(whole.clone());
        let lengths: Vec<usize> = parts.iter().map(|part| part.entries.len()).collect();
        assert_eq!(lengths, expected, "of {sizes:?}");
        let mut prev = whole.prev_log_id;
        for part in &parts {
            assert_eq!(
                (part.prev_log_id, part.vote, part.leader_commit),
                (prev, whole.vote, whole.leader_commit)
            );
            prev = part.entries.last().map(|entry| entry.log_id).or(prev);
        }
        let entries: Vec<Entry> = parts.into_iter().flat_map(|part| part.entries).collect();
        assert_eq!(entries, whole.entries);
    }

    #[test]
    fn large_appends_are_cut_into_consecutive_parts() {
        check(&[], &[0]);
        check(&[10, 20, 30], &[3]);
        check(&[APPEND_BYTES / 2, APPEND_BYTES / 4, APPEND_BYTES / 2, 5], &[2, 2]);
        check(&[5, 3 * APPEND_BYTES, 5, 5], &[1, 1, 2]);
    }
}
