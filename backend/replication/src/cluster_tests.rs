//! Raft over real links: several nodes in one process, with logs and state machines in memory.

mod started;
mod store;

use super::{
    network::Network,
    service::{RaftService, VoteGuard},
    types::{Payload, TypeConfig, Vote},
    wire::{self, SNAPSHOT_PIECE_BYTES, SnapshotMessage},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use openraft::{
    BasicNode, Config, Raft, RaftNetworkFactory, ServerState, SnapshotPolicy,
    async_runtime::watch::WatchReceiver,
    network::{NetSnapshot, RPCOption},
    raft::VoteRequest,
    storage::Snapshot,
};
use ringmaster_cluster::version::PEER_FORMATS;
use ringmaster_common::id::{GroupId, Incarnation, NodeId};
use ringmaster_net::clock;
use ringmaster_peer::{CallError, Channel, Failure, FailureCode, Lane, Local, Peers, Request, Trace};
use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    sync::Arc,
    time::{Duration, Instant},
};
use store::{MemoryLog, MemoryMachine};
use tokio::{net::TcpListener, time::sleep};

const DEADLINE: Duration = Duration::from_secs(20);
const GROUP: GroupId = GroupId(0);

struct TestNode {
    id: NodeId,
    addr: String,
    peers: Peers,
    raft: Raft<TypeConfig, MemoryMachine>,
    machine: MemoryMachine,
}

impl TestNode {
    async fn start(id: u64, guard: VoteGuard) -> TestNode {
        let id = NodeId(id);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let local = Local {
            cluster_id: "c".to_owned(),
            node_id: id,
            incarnation: Incarnation(1),
            feature_level: 1,
            election_timeout_max: Duration::from_millis(400),
            formats: PEER_FORMATS,
        };
        let service = RaftService::new(guard);
        let peers = Peers::start(local, listener, vec![Arc::new(service.clone())]);
        let machine = MemoryMachine::default();
        let config = Config {
            heartbeat_interval: 50,
            election_timeout_min: 200,
            election_timeout_max: 400,
            install_snapshot_timeout: 5_000,
            enable_pre_vote: Some(true),
            // Snapshots are made when a test says so.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 0,
            ..Config::default()
        };
        let config = Arc::new(config.validate().unwrap());
        let network = Network::new(peers.clone(), GROUP);
        let raft = Raft::new(id, config, network, MemoryLog::default(), machine.clone()).await.unwrap();
        service.insert(GROUP, raft.clone());
        TestNode { id, addr, peers, raft, machine }
    }

    /// A leader that was just elected refuses until it holds a lease: tries again until then.
    async fn write(&self, command: impl Into<Bytes>) {
        let (command, start) = (Payload(command.into()), clock::now());
        while let Err(error) = self.raft.client_write(command.clone()).await {
            let no_lease = error.forward_to_leader().is_some_and(|forward| forward.leader_id.is_none());
            assert!(no_lease && start.elapsed() < DEADLINE, "after {:?}: {error}", start.elapsed());
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn stop(&self) {
        self.peers.shutdown();
        self.raft.shutdown().await.unwrap();
    }
}

fn no_guard() -> VoteGuard {
    VoteGuard::until(clock::now())
}

/// Nodes 1 to `count`, of which none has a membership yet, with links between all.
async fn start(count: u64) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for id in 1..=count {
        nodes.push(TestNode::start(id, no_guard()).await);
    }
    link(&nodes).await;
    nodes
}

async fn link(nodes: &[TestNode]) {
    let members: Vec<_> = nodes.iter().map(|node| (node.id, node.addr.clone())).collect();
    for node in nodes {
        node.peers.set_members(&members);
    }
    for node in nodes {
        eventually("all links to be up", || node.peers.links().iter().all(|link| link.connected)).await;
    }
}

/// Three voters, of which the first leads.
async fn cluster() -> Vec<TestNode> {
    let nodes = start(3).await;
    let members: BTreeMap<NodeId, BasicNode> =
        nodes.iter().map(|node| (node.id, BasicNode::new(&node.addr))).collect();
    nodes[0].raft.initialize(members).await.unwrap();
    eventually("the first node to lead", || state(&nodes[0]) == ServerState::Leader).await;
    nodes
}

fn state(node: &TestNode) -> ServerState {
    node.raft.metrics().borrow_watched().state
}

fn term(node: &TestNode) -> u64 {
    node.raft.metrics().borrow_watched().current_term
}

async fn eventually(what: &str, mut check: impl FnMut() -> bool) -> Duration {
    let start = clock::now();
    while !check() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

async fn same_commands(nodes: &[TestNode], count: usize) {
    eventually(&format!("{count} commands everywhere"), || {
        nodes.iter().all(|node| node.machine.commands().len() == count)
    })
    .await;
    for node in &nodes[1..] {
        assert!(node.machine.commands() == nodes[0].machine.commands(), "node {} differs", node.id);
    }
}

/// Makes `count` writes at `node` with `clients` at a time; how many a second there were.
async fn write_many(node: &TestNode, count: usize, clients: usize) -> f64 {
    let start = clock::now();
    stream::iter(0..count).for_each_concurrent(clients, |i| node.write(format!("{i:0>256}"))).await;
    count as f64 / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_pipelined_to_every_node_in_one_order() {
    let nodes = cluster().await;
    let before = term(&nodes[0]);
    let rate = write_many(&nodes[0], 1_000, 64).await;
    eprintln!("{rate:.0} writes/s with 64 clients");
    same_commands(&nodes, 1_000).await;
    assert_eq!(term(&nodes[0]), before, "nobody was elected meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_writes_travel_in_parts() {
    let nodes = cluster().await;
    let large: Vec<Bytes> = (0..40u8).map(|i| Bytes::from(vec![i; 300 << 10])).collect();
    stream::iter(&large).for_each_concurrent(40, |command| nodes[0].write(command.clone())).await;
    same_commands(&nodes, 40).await;
    let written: BTreeSet<Bytes> = nodes[2].machine.commands().into_iter().collect();
    assert!(written == large.into_iter().collect(), "every command arrived whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_leads_soon_after_the_leader_died() {
    let nodes = cluster().await;
    write_many(&nodes[0], 100, 10).await;
    nodes[0].stop().await;
    let took =
        eventually("a new leader", || nodes[1..].iter().any(|node| state(node) == ServerState::Leader)).await;
    eprintln!("a new leader {took:?} after the last had died");
    assert!(took < Duration::from_secs(3), "it took {took:?}");
    let leader = nodes[1..].iter().find(|node| state(node) == ServerState::Leader).unwrap();
    leader.write("after").await;
    same_commands(&nodes[1..], 101).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let nodes = cluster().await;
    write_many(&nodes[0], 100, 10).await;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        nodes[from].raft.trigger().transfer_leader(nodes[to].id).await.unwrap();
        let took = eventually("the target to lead", || state(&nodes[to]) == ServerState::Leader).await;
        eprintln!("handed over within {took:?}");
        assert!(took < Duration::from_secs(1), "it took {took:?}");
        nodes[to].write("mine").await;
    }
    same_commands(&nodes, 103).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_joiner_gets_a_snapshot_in_pieces_and_then_the_log() {
    let mut nodes = cluster().await;
    let command = Bytes::from(vec![7; 64 << 10]);
    for _ in 0..60 {
        nodes[0].write(command.clone()).await;
    }
    assert!(60 * command.len() > 3 * SNAPSHOT_PIECE_BYTES, "it takes more than three pieces");
    nodes[0].raft.trigger().snapshot().await.unwrap();
    eventually("the log to be purged", || nodes[0].raft.metrics().borrow_watched().purged.is_some()).await;

    nodes.push(TestNode::start(4, no_guard()).await);
    link(&nodes).await;
    nodes[0].raft.add_learner(NodeId(4), BasicNode::new(&nodes[3].addr), true).await.unwrap();
    for _ in 0..5 {
        nodes[0].write("later").await;
    }
    same_commands(&nodes, 65).await;
    assert_eq!(nodes[3].machine.installed(), 1);
    assert_eq!(nodes[1].machine.installed(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_catches_up() {
    let nodes = cluster().await;
    let members: Vec<_> = nodes.iter().map(|node| (node.id, node.addr.clone())).collect();
    let without: Vec<_> = members[..2].to_vec();
    // The leader cannot call the third node, and is called by it all the same.
    nodes[0].peers.set_members(&without);
    write_many(&nodes[0], 200, 20).await;
    assert!(nodes[2].machine.commands().len() < 200);
    nodes[0].peers.set_members(&members);
    eventually("a write after the link is back", || nodes[0].peers.links().iter().all(|link| link.connected))
        .await;
    let leader = eventually_leader(&nodes).await;
    leader.write("back").await;
    same_commands(&nodes, 201).await;
}

async fn eventually_leader(nodes: &[TestNode]) -> &TestNode {
    let leads = |node: &&TestNode| state(node) == ServerState::Leader;
    eventually("a leader", || nodes.iter().any(|node| leads(&node))).await;
    nodes.iter().find(leads).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_started_lately_votes_for_nobody() {
    let quiet = Duration::from_millis(800);
    let started = clock::now();
    let nodes = vec![
        TestNode::start(1, no_guard()).await,
        TestNode::start(2, VoteGuard::until(started + quiet)).await,
    ];
    link(&nodes).await;
    let members: BTreeMap<NodeId, BasicNode> =
        nodes.iter().map(|node| (node.id, BasicNode::new(&node.addr))).collect();
    nodes[0].raft.initialize(members).await.unwrap();
    eventually_leader(&nodes).await;
    assert!(clock::now() >= started + quiet, "elected after {:?}", started.elapsed());
}

/// Two nodes whose Raft never runs an election, to send them whatever one likes.
async fn bystanders(guard: VoteGuard) -> Vec<TestNode> {
    let nodes = vec![TestNode::start(1, no_guard()).await, TestNode::start(2, guard).await];
    link(&nodes).await;
    nodes
}

async fn ask(nodes: &[TestNode], channel: Channel, group: GroupId, body: Bytes) -> Result<Bytes, CallError> {
    let request = Request { channel, group, trace: Trace::default(), lane: Lane::Bulk, body };
    nodes[0].peers.call(nodes[1].id, request, DEADLINE).await
}

fn failure(result: Result<Bytes, CallError>) -> Failure {
    match result {
        Err(CallError::Failed(failure)) => failure,
        other => panic!("expected a failure, not {other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_answered_with_a_reason() {
    let far: Instant = clock::now() + DEADLINE;
    let nodes = bystanders(VoteGuard::until(far)).await;
    let vote = Vote::new(1, NodeId(1));
    let request = wire::encode(&VoteRequest::<TypeConfig>::new(vote, None)).unwrap();
    for channel in [wire::VOTE, wire::PRE_VOTE, wire::TRANSFER_LEADER] {
        let quiet = failure(ask(&nodes, channel, GROUP, request.clone()).await);
        assert_eq!(quiet.code, FailureCode::Unavailable);
        assert!(quiet.detail.contains("started lately"), "{quiet}");
    }
    let unknown = failure(ask(&nodes, wire::VOTE, GroupId(9), request).await);
    assert_eq!(unknown, Failure::new(FailureCode::UnknownGroup, "this node is no member of group 9"));
    for channel in [wire::APPEND, wire::HEARTBEAT, wire::SNAPSHOT] {
        let nonsense = failure(ask(&nodes, channel, GROUP, Bytes::from_static(&[0xff; 9])).await);
        assert_eq!(nonsense.code, FailureCode::Malformed, "{nonsense}");
    }
}

#[tokio::test]
async fn a_snapshot_that_is_broken_off_goes_on_where_it_was() {
    let nodes = bystanders(no_guard()).await;
    let send = async |message: SnapshotMessage| {
        ask(&nodes, wire::SNAPSHOT, GROUP, wire::encode(&message).unwrap()).await
    };
    let begin = async |transfer, bytes| {
        let (vote, meta) = (Vote::new_committed(1, NodeId(1)), Default::default());
        let there = send(SnapshotMessage::Begin { transfer, vote, meta, bytes }).await.unwrap();
        wire::decode::<u64>(&there).unwrap()
    };
    let piece = async |transfer, offset| {
        send(SnapshotMessage::Piece { transfer, offset, data: Bytes::from_static(b"four") }).await
    };
    assert_eq!(begin(1, 12).await, 0);
    piece(1, 0).await.unwrap();
    piece(1, 4).await.unwrap();

    let members: Vec<_> = nodes.iter().map(|node| (node.id, node.addr.clone())).collect();
    nodes[0].peers.set_members(&[]);
    nodes[0].peers.set_members(&members);
    eventually("another connection", || nodes[0].peers.links().iter().all(|link| link.connected)).await;

    assert_eq!(begin(2, 12).await, 8, "what had arrived is still there");
    let given_up = failure(piece(1, 8).await);
    assert!(given_up.detail.contains("no transfer"), "{given_up}");
    piece(2, 8).await.unwrap();
    let sum = crc32fast::hash(b"fourfourfour");
    send(SnapshotMessage::Finish { transfer: 2, checksum: sum }).await.unwrap();

    // Another one has nothing of it, and what does not fit together begins anew.
    assert_eq!(begin(3, 12).await, 0);
    piece(3, 0).await.unwrap();
    assert_eq!(begin(4, 8).await, 0);
    piece(4, 0).await.unwrap();
    piece(4, 4).await.unwrap();
    failure(send(SnapshotMessage::Finish { transfer: 4, checksum: sum }).await);
    assert_eq!(begin(5, 8).await, 0);
}

#[tokio::test]
async fn a_sender_leaves_out_what_is_there_already() {
    let nodes = bystanders(no_guard()).await;
    let vote = Vote::new_committed(1, NodeId(1));
    let data = Bytes::from_iter((0..3 * SNAPSHOT_PIECE_BYTES).map(|position| (position >> 8) as u8));
    let bytes = data.len() as u64;
    let send = async |message: SnapshotMessage| {
        ask(&nodes, wire::SNAPSHOT, GROUP, wire::encode(&message).unwrap()).await.unwrap()
    };
    send(SnapshotMessage::Begin { transfer: 1, vote, meta: Default::default(), bytes }).await;
    send(SnapshotMessage::Piece { transfer: 1, offset: 0, data: data.slice(..SNAPSHOT_PIECE_BYTES + 7) })
        .await;

    // Whoever begins at the beginning again is refused, and whoever has not read that part has another sum.
    let mut network = Network::new(nodes[0].peers.clone(), GROUP);
    let mut client = network.new_client(nodes[1].id, &BasicNode::new(&nodes[1].addr)).await;
    let snapshot = Snapshot { meta: Default::default(), snapshot: data };
    let sent = client.full_snapshot(vote, snapshot, future::pending(), RPCOption::new(DEADLINE)).await;
    sent.expect("it is sent at the first try");
}

#[tokio::test]
async fn an_earlier_leader_does_not_take_the_place_of_a_later_one() {
    let nodes = bystanders(no_guard()).await;
    let begin = async |transfer, term| {
        let (vote, meta) = (Vote::new_committed(term, NodeId(1)), Default::default());
        let begin = SnapshotMessage::Begin { transfer, vote, meta, bytes: 8 };
        ask(&nodes, wire::SNAPSHOT, GROUP, wire::encode(&begin).unwrap()).await
    };
    begin(1, 2).await.unwrap();
    let earlier = failure(begin(2, 1).await);
    assert_eq!(earlier.detail, "a later leader is sending one");
    begin(3, 3).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_is_not_whole_is_not_installed() {
    let nodes = bystanders(no_guard()).await;
    let vote = Vote::new(1, NodeId(1));
    let send = async |message: SnapshotMessage| {
        ask(&nodes, wire::SNAPSHOT, GROUP, wire::encode(&message).unwrap()).await
    };
    let begin = |bytes| SnapshotMessage::Begin { transfer: 1, vote, meta: Default::default(), bytes };
    let piece =
        |transfer, offset| SnapshotMessage::Piece { transfer, offset, data: Bytes::from_static(b"four") };
    let finish = |checksum| SnapshotMessage::Finish { transfer: 1, checksum };
    let sum = crc32fast::hash(b"fourfour");

    let nothing = failure(send(piece(1, 0)).await);
    assert!(nothing.detail.contains("no transfer"), "{nothing}");

    let huge = failure(send(begin(wire::MAX_SNAPSHOT_BYTES + 1)).await);
    assert_eq!(huge.code, FailureCode::Malformed, "{huge}");

    send(begin(8)).await.unwrap();
    send(piece(1, 0)).await.unwrap();
    let gap = failure(send(piece(1, 5)).await);
    assert_eq!(gap.detail, "a piece of 4 bytes at 5, where 4 of 8 have arrived");

    send(begin(8)).await.unwrap();
    send(piece(1, 0)).await.unwrap();
    let short = failure(send(finish(sum)).await);
    assert!(short.detail.starts_with("4 bytes with checksum"), "{short}");

    send(begin(8)).await.unwrap();
    send(piece(1, 0)).await.unwrap();
    let stranger = failure(send(piece(2, 4)).await);
    assert!(stranger.detail.contains("no transfer"), "{stranger}");
    send(piece(1, 4)).await.unwrap();
    let flipped = failure(send(finish(sum ^ 1)).await);
    assert!(flipped.detail.starts_with("8 bytes with checksum"), "{flipped}");

    assert_eq!(nodes[1].machine.installed(), 0);
}
