#!/usr/bin/env bash
# openraft 0.10.0-alpha.37 (crates.io): with two appends in flight to a follower, a linearizable read (ReadIndex) can be
# served although no follower was asked anything after the read had begun. The answer to an append that carries entries
# also counts as the answer to the append without entries behind it (the new commit index), which ends at the same entry,
# with the time when that one was sent. A leader that was cut off and gets late answers then takes itself for confirmed,
# and can answer from an old state. With one append in flight it does not happen.
#
# One openraft node leads; its two followers are played by its network, which answers when it is told. Heartbeats are not
# answered from the moment at which the test begins. The second answer of the two is older than the read.
#
# Output seen (Rust 1.95):
#   two appends in flight:
#     the second entry is on its way to both followers
#     a linearizable read has begun; both followers answer the append that was sent before it, one after the other
#     the read is served
#   one append in flight:
#     the second entry is on its way to both followers
#     a linearizable read has begun; both followers answer the append that was sent before it, one after the other
#     the read is not served
#
# Exits with 0 while that is so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "late-answers"
version = "0.0.0"
edition = "2024"

[dependencies]
futures = "=0.3.34"
openraft = { version = "=0.10.0-alpha.37", features = ["type-alias"] }
tokio = { version = "=1.54.1", features = ["macros", "rt-multi-thread", "sync", "time"] }

[workspace]
TOML
cat >"$work/src/main.rs" <<'RUST'
//! One real openraft node, the leader; its two followers are played by the network below, which answers when it is told.
use futures::{Stream, StreamExt, TryStreamExt};
use openraft::{
    BasicNode, Config, EntryPayload, OptionalSend, Raft, RaftLogReader, RaftNetworkFactory,
    RaftSnapshotBuilder, ReadPolicy,
    base::{BoxFuture, BoxStream},
    entry::RaftEntry,
    error::{RPCError, ReplicationClosed, StreamingError},
    impls::leader_id_std,
    network::{Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption},
    raft::{
        AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    storage::{EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftStateMachine, Snapshot},
    type_config::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf},
};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    io::Cursor,
    ops::RangeBounds,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

openraft::declare_raft_types!(pub C: D = String, R = (), NodeId = u64, Node = BasicNode, Term = u64,
    LeaderId = leader_id_std::LeaderId<u64, u64>);

#[derive(Clone, Default)]
struct Log(Arc<Mutex<(BTreeMap<u64, EntryOf<C>>, Option<VoteOf<C>>)>>);

impl RaftLogReader<C> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<EntryOf<C>>, io::Error> {
        Ok(self
            .0
            .lock()
            .unwrap()
            .0
            .range(range)
            .map(|(_, entry)| entry.clone())
            .collect())
    }
    async fn read_vote(&mut self) -> Result<Option<VoteOf<C>>, io::Error> {
        Ok(self.0.lock().unwrap().1)
    }
}

impl RaftLogStorage<C> for Log {
    type LogReader = Log;
    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let last = self.0.lock().unwrap().0.values().last().map(RaftEntry::log_id);
        Ok(LogState {
            last_purged_log_id: None,
            last_log_id: last,
        })
    }
    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }
    async fn save_vote(&mut self, vote: &VoteOf<C>) -> Result<(), io::Error> {
        self.0.lock().unwrap().1 = Some(*vote);
        Ok(())
    }
    async fn append<I: IntoIterator<Item = EntryOf<C>> + OptionalSend>(
        &mut self,
        entries: I,
        done: IOFlushed<C>,
    ) -> Result<(), io::Error>
    where
        I::IntoIter: OptionalSend,
    {
        self.0
            .lock()
            .unwrap()
            .0
            .extend(entries.into_iter().map(|entry| (entry.index(), entry)));
        done.io_completed(Ok(()));
        Ok(())
    }
    async fn truncate_after(&mut self, last: Option<LogIdOf<C>>) -> Result<(), io::Error> {
        self.0
            .lock()
            .unwrap()
            .0
            .split_off(&last.map_or(0, |last| last.index + 1));
        Ok(())
    }
    async fn purge(&mut self, _: LogIdOf<C>) -> Result<(), io::Error> {
        Ok(())
    }
}

#[derive(Default)]
struct Machine(Option<LogIdOf<C>>, StoredMembershipOf<C>);

impl RaftStateMachine<C> for Machine {
    type SnapshotData = Cursor<Vec<u8>>;
    type SnapshotBuilder = NoSnapshots;
    async fn applied_state(&mut self) -> Result<(Option<LogIdOf<C>>, StoredMembershipOf<C>), io::Error> {
        Ok((self.0, self.1.clone()))
    }
    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + OptionalSend,
    {
        entries
            .try_for_each(|(entry, responder)| {
                self.0 = Some(entry.log_id());
                if let EntryPayload::Membership(membership) = &entry.payload {
                    self.1 = StoredMembershipOf::<C>::new(self.0, membership.clone());
                }
                if let Some(responder) = responder {
                    responder.send(());
                }
                futures::future::ready(Ok(()))
            })
            .await
    }
    async fn get_snapshot_builder(&mut self) -> NoSnapshots {
        NoSnapshots
    }
    async fn install_snapshot(&mut self, _: &SnapshotMetaOf<C>, _: Cursor<Vec<u8>>) -> Result<(), io::Error> {
        Ok(())
    }
    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<C, Cursor<Vec<u8>>>>, io::Error> {
        Ok(None)
    }
}

struct NoSnapshots;
impl RaftSnapshotBuilder<C> for NoSnapshots {
    type SnapshotData = Cursor<Vec<u8>>;
    async fn build_snapshot(&mut self) -> Result<SnapshotOf<C, Cursor<Vec<u8>>>, io::Error> {
        Ok(Snapshot {
            meta: SnapshotMetaOf::<C>::default(),
            snapshot: Cursor::default(),
        })
    }
}

/// A follower: it answers the appends up to this number, in order; `asked` counts what has been sent to it.
struct Follower {
    answered: watch::Sender<usize>,
    asked: AtomicUsize,
    heartbeats: watch::Sender<bool>,
}

#[derive(Clone)]
struct Network(BTreeMap<u64, Arc<Follower>>, usize);
struct Client {
    follower: Arc<Follower>,
    heartbeats: bool,
    window: usize,
}

impl RaftNetworkFactory<C> for Network {
    type Network = Client;
    async fn new_client(&mut self, target: u64, _: &BasicNode) -> Client {
        Client {
            follower: self.0[&target].clone(),
            heartbeats: false,
            window: self.1,
        }
    }
    async fn new_heartbeat_client(&mut self, target: u64, _: &BasicNode) -> Client {
        Client {
            follower: self.0[&target].clone(),
            heartbeats: true,
            window: self.1,
        }
    }
}

impl NetBackoff<C> for Client {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(20))))
    }
}
impl NetVote<C> for Client {
    async fn vote(&mut self, request: VoteRequest<C>, _: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        Ok(VoteResponse::new(request.vote, None, true))
    }
}
impl NetTransferLeader<C> for Client {
    async fn transfer_leader(
        &mut self,
        _: TransferLeaderRequest<C>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        unreachable!()
    }
}
impl NetSnapshot<C> for Client {
    type SnapshotData = Cursor<Vec<u8>>;
    async fn full_snapshot(
        &mut self,
        _: VoteOf<C>,
        _: SnapshotOf<C, Cursor<Vec<u8>>>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        unreachable!()
    }
}
impl NetStreamAppend<C> for Client {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>, RPCError<C>>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + OptionalSend + Unpin + 'static,
    {
        let (follower, heartbeats) = (self.follower.clone(), self.heartbeats);
        let answers = input.map(move |request| {
            let last = request
                .entries
                .last()
                .map(RaftEntry::log_id)
                .or(request.prev_log_id);
            let follower = follower.clone();
            let number = if heartbeats {
                0
            } else {
                follower.asked.fetch_add(1, Ordering::SeqCst) + 1
            };
            async move {
                if heartbeats {
                    let _ = follower.heartbeats.subscribe().wait_for(|answer| *answer).await;
                } else {
                    let _ = follower
                        .answered
                        .subscribe()
                        .wait_for(|answered| *answered >= number)
                        .await;
                }
                Ok(Ok(last))
            }
        });
        let answers: BoxStream<'s, _> = Box::pin(answers.buffered(self.window));
        Box::pin(async { Ok(answers) })
    }
}

/// Whether a linearizable read is served that no follower was asked about after it had begun.
async fn read_is_served(window: usize) -> bool {
    let follower = || {
        Arc::new(Follower {
            answered: watch::Sender::new(usize::MAX),
            asked: AtomicUsize::new(0),
            heartbeats: watch::Sender::new(true),
        })
    };
    let followers = BTreeMap::from([(2, follower()), (3, follower())]);
    let config = Config {
        heartbeat_interval: 50,
        election_timeout_min: 1_000_000,
        election_timeout_max: 1_000_001,
        ..Config::default()
    };
    let raft = Raft::<C, Machine>::new(
        1,
        Arc::new(config.validate().unwrap()),
        Network(followers.clone(), window),
        Log::default(),
        Machine::default(),
    )
    .await
    .unwrap();
    raft.initialize(BTreeMap::from([1, 2, 3].map(|id| (id, BasicNode::default()))))
        .await
        .unwrap();
    raft.wait(Some(Duration::from_secs(5))).applied_index_at_least(Some(1), "the node leads").await.unwrap();
    raft.client_write("first".into()).await.unwrap();
    sleep(Duration::from_millis(300)).await;

    // From here on nothing is answered unless it is said so below; heartbeats are not answered at all.
    for follower in followers.values() {
        follower.heartbeats.send_replace(false);
        follower
            .answered
            .send_replace(follower.asked.load(Ordering::SeqCst));
    }
    let before: BTreeMap<u64, usize> = followers
        .iter()
        .map(|(id, follower)| (*id, follower.asked.load(Ordering::SeqCst)))
        .collect();
    let writer = raft.clone();
    tokio::spawn(async move { writer.client_write("second".into()).await });
    while followers
        .iter()
        .any(|(id, follower)| follower.asked.load(Ordering::SeqCst) == before[id])
    {
        sleep(Duration::from_millis(1)).await;
    }
    println!("  the second entry is on its way to both followers");

    let reader = raft.clone();
    let read = tokio::spawn(async move {
        timeout(
            Duration::from_millis(1500),
            reader.get_read_log_id(ReadPolicy::ReadIndex),
        )
        .await
        .is_ok_and(|read| read.is_ok())
    });
    sleep(Duration::from_millis(100)).await;
    println!(
        "  a linearizable read has begun; both followers answer the append that was sent before it, one after the other"
    );
    for id in [2, 3] {
        followers[&id].answered.send_replace(before[&id] + 1);
        sleep(Duration::from_millis(100)).await;
    }
    let served = read.await.unwrap();
    println!("  the read is {}", if served { "served" } else { "not served" });
    raft.shutdown().await.unwrap();
    served
}

#[tokio::main]
async fn main() {
    println!("two appends in flight:");
    let pipelined = read_is_served(2).await;
    println!("one append in flight:");
    let single = read_is_served(1).await;
    assert!(
        pipelined && !single,
        "the behaviour has changed: {pipelined} {single}"
    );
}
RUST
cd "$work" && cargo run --quiet
