//! Raft over real links: several nodes in one process, with journals in temporary directories.

mod held_answers;
mod leases;
mod leaving;
mod losses;
mod recorder;

use super::{
    acknowledged::Acknowledged,
    compaction::LogBounds,
    elections::Elections,
    group::{Consistency, RaftGroup},
    host::GroupHost,
    network::Network,
    snapshot_file::SnapshotFile,
    snapshot_store::MAX_SNAPSHOT_BYTES,
    types::{TypeConfig, Vote},
    wire::{self, SNAPSHOT_PIECE_BYTES, SnapshotMessage},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use imbl::Vector;
use openraft::{
    BasicNode, RaftNetworkFactory,
    async_runtime::watch::WatchReceiver,
    network::{NetSnapshot, RPCOption},
    raft::VoteRequest,
    storage::Snapshot,
};
use recorder::{Record, Recorder};
use ringmaster_common::{
    cluster::Role,
    id::{GroupId, Incarnation, NodeId},
};
use ringmaster_net::{clock, supervisor::Supervisor};
use ringmaster_peer::{CallError, Channel, Failure, FailureCode, Lane, Local, Peers, Request, Trace};
use ringmaster_storage::{data_dir::DataDir, journal::Journal};
use std::{
    collections::BTreeSet,
    future,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::sleep};

const DEADLINE: Duration = Duration::from_secs(20);
const GROUP: GroupId = GroupId(0);
const ELECTIONS: Elections = Elections {
    heartbeat: Duration::from_millis(50),
    timeout_min: Duration::from_millis(200),
    timeout_max: Duration::from_millis(400),
};
/// More than most tests write.
const NO_SNAPSHOTS: u64 = 100_000;

struct TestNode {
    id: NodeId,
    addr: String,
    host: GroupHost,
    group: RaftGroup<Recorder>,
    /// How many snapshots came from elsewhere.
    installed: Arc<AtomicUsize>,
    dir: TempDir,
}

impl TestNode {
    /// It neither votes nor campaigns for so long.
    async fn start(id: u64, quiet: Duration, snapshot_every: u64) -> TestNode {
        TestNode::start_in(tempfile::tempdir().unwrap(), id, quiet, snapshot_every).await
    }

    async fn start_in(dir: TempDir, id: u64, quiet: Duration, snapshot_every: u64) -> TestNode {
        let id = NodeId(id);
        let data_dir = DataDir::open(dir.path()).unwrap();
        Journal::create(data_dir.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let local = local(id, ELECTIONS);
        let host = GroupHost::start_quietly(
            &data_dir,
            local,
            listener,
            ELECTIONS,
            Vec::new(),
            &Supervisor::new(),
            quiet,
        )
        .unwrap();
        let recorder = Recorder::default();
        let installed = recorder.replaced.clone();
        let group = host.open(GROUP, recorder, snapshot_every).await.unwrap();
        TestNode { id, addr, host, group, installed, dir }
    }

    fn peers(&self) -> &Peers {
        self.host.peers()
    }

    async fn write(&self, command: impl Into<Bytes>) {
        let record = Record { bytes: command.into(), after: None };
        self.group.propose(record, clock::now() + DEADLINE).await.unwrap();
    }

    fn commands(&self) -> Vector<Bytes> {
        self.group.state().commands.clone()
    }

    fn installed(&self) -> usize {
        self.installed.load(Ordering::Relaxed)
    }

    async fn stop(&self) {
        self.peers().shutdown();
        self.group.replica().shutdown().await;
    }
}

fn local(node_id: NodeId, elections: Elections) -> Local {
    Local {
        cluster_id: "c".to_owned(),
        node_id,
        incarnation: Incarnation(1),
        feature_level: 1,
        election_timeout_max: elections.timeout_max,
        formats: 1..=1,
    }
}

/// Nodes 1 to `count`, of which none has a membership yet, with links between all.
async fn start(count: u64, snapshot_every: u64) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for id in 1..=count {
        nodes.push(TestNode::start(id, Duration::ZERO, snapshot_every).await);
    }
    link(&nodes).await;
    nodes
}

async fn link(nodes: &[TestNode]) {
    let members: Vec<_> = nodes.iter().map(|node| (node.id, node.addr.clone())).collect();
    for node in nodes {
        node.peers().set_members(&members);
    }
    for node in nodes {
        eventually("all links to be up", || node.peers().links().iter().all(|link| link.connected)).await;
    }
}

/// Three voters, of which the first leads.
async fn cluster(snapshot_every: u64) -> Vec<TestNode> {
    let nodes = start(3, snapshot_every).await;
    initialize(&nodes).await;
    eventually("the first node to lead", || leads(&nodes[0])).await;
    nodes
}

async fn initialize(nodes: &[TestNode]) {
    let members: Vec<_> = nodes.iter().map(|node| (node.id, node.addr.clone())).collect();
    nodes[0].group.replica().initialize(&members).await.unwrap();
}

fn leads(node: &TestNode) -> bool {
    node.group.replica().role().0 == Role::Leader
}

fn term(node: &TestNode) -> u64 {
    node.group.replica().status().term
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
        nodes.iter().all(|node| node.commands().len() == count)
    })
    .await;
    for node in &nodes[1..] {
        assert!(node.commands() == nodes[0].commands(), "node {} differs", node.id);
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
    let nodes = cluster(NO_SNAPSHOTS).await;
    let before = term(&nodes[0]);
    let rate = write_many(&nodes[0], 1_000, 64).await;
    eprintln!("{rate:.0} writes/s with 64 clients");
    same_commands(&nodes, 1_000).await;
    assert_eq!(term(&nodes[0]), before, "there was no election meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_proposes_and_reads() {
    let nodes = cluster(NO_SNAPSHOTS).await;
    for (position, node) in nodes.iter().enumerate() {
        let record = Record { bytes: Bytes::from(position.to_string()), after: None };
        let count = node.group.propose(record, clock::now() + DEADLINE).await.unwrap();
        assert_eq!(
            (count, node.commands().len()),
            (position + 1, position + 1),
            "its own write is applied here"
        );
        for reader in &nodes {
            for consistency in [Consistency::Linearizable, Consistency::Lease] {
                let read = reader.group.read(consistency, clock::now() + DEADLINE).await.unwrap();
                assert_eq!(read.commands.len(), count, "{consistency:?} at node {}", reader.id);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_for_one_term_is_not_made_in_another() {
    let nodes = cluster(NO_SNAPSHOTS).await;
    let leading = term(&nodes[0]);
    let propose = async |node: &TestNode, term| {
        let record = Record { bytes: Bytes::from("once"), after: None };
        node.group.propose_if_term(term, record, clock::now() + DEADLINE).await
    };
    propose(&nodes[0], leading).await.unwrap();
    propose(&nodes[0], leading - 1).await.expect_err("the term before it");
    propose(&nodes[0], leading + 1).await.expect_err("a later term");
    propose(&nodes[1], leading).await.expect_err("a follower");
    same_commands(&nodes, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_writes_travel_in_parts() {
    let nodes = cluster(NO_SNAPSHOTS).await;
    let large: Vec<Bytes> = (0..40u8).map(|i| Bytes::from(vec![i; 300 << 10])).collect();
    stream::iter(&large).for_each_concurrent(40, |command| nodes[0].write(command.clone())).await;
    same_commands(&nodes, 40).await;
    let written: BTreeSet<Bytes> = nodes[2].commands().into_iter().collect();
    assert!(written == large.into_iter().collect(), "every command arrived whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_leads_soon_after_the_leader_died() {
    let nodes = cluster(NO_SNAPSHOTS).await;
    write_many(&nodes[0], 100, 10).await;
    nodes[0].stop().await;
    let took = eventually("a new leader", || nodes[1..].iter().any(leads)).await;
    eprintln!("a new leader {took:?} after the last had died");
    assert!(took < Duration::from_secs(3), "it took {took:?}");
    let leader = nodes[1..].iter().find(|node| leads(node)).unwrap();
    leader.write("after").await;
    same_commands(&nodes[1..], 101).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let nodes = cluster(NO_SNAPSHOTS).await;
    write_many(&nodes[0], 100, 10).await;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        nodes[from].group.replica().transfer(nodes[to].id).await.unwrap();
        let took = eventually("the target to lead", || leads(&nodes[to])).await;
        eprintln!("handed over within {took:?}");
        assert!(took < Duration::from_secs(1), "it took {took:?}");
        nodes[to].write("mine").await;
    }
    same_commands(&nodes, 103).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_joiner_gets_a_snapshot_in_pieces_and_then_the_log() {
    let mut nodes = cluster(10).await;
    let command = Bytes::from(vec![7; 64 << 10]);
    for _ in 0..60 {
        nodes[0].write(command.clone()).await;
    }
    assert!(60 * command.len() > 3 * SNAPSHOT_PIECE_BYTES, "it takes more than three pieces");
    nodes[0].group.replica().take_snapshot().await.unwrap();
    let metrics = nodes[0].group.replica().raft().metrics();
    eventually("the log to be purged", || {
        metrics.borrow_watched().purged.is_some_and(|purged| purged.index > 55)
    })
    .await;

    nodes.push(TestNode::start(4, Duration::ZERO, NO_SNAPSHOTS).await);
    link(&nodes).await;
    nodes[0].group.replica().add_learner(NodeId(4), &nodes[3].addr).await.unwrap();
    for _ in 0..5 {
        nodes[0].write("later").await;
    }
    same_commands(&nodes, 65).await;
    assert_eq!(nodes[3].installed(), 1);
    assert_eq!(nodes[1].installed(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_catches_up() {
    let nodes = cluster(NO_SNAPSHOTS).await;
    let members: Vec<_> = nodes.iter().map(|node| (node.id, node.addr.clone())).collect();
    let without: Vec<_> = members[..2].to_vec();
    // The leader cannot call the third node, and is called by it all the same.
    nodes[0].peers().set_members(&without);
    write_many(&nodes[0], 200, 20).await;
    assert!(nodes[2].commands().len() < 200);
    nodes[0].peers().set_members(&members);
    eventually("a write after the link is back", || {
        nodes[0].peers().links().iter().all(|link| link.connected)
    })
    .await;
    let leader = eventually_leader(&nodes).await;
    leader.write("back").await;
    same_commands(&nodes, 201).await;
}

/// One node, with other bounds.
async fn single_node(log: LogBounds, max_snapshot_bytes: u64, snapshot_every: u64) -> TestNode {
    let mut node = TestNode::start(1, Duration::ZERO, NO_SNAPSHOTS).await;
    node.host.drop_group(GROUP).await.unwrap();
    node.host.set_bounds(log, max_snapshot_bytes);
    node.group = node.host.open(GROUP, Recorder::default(), snapshot_every).await.unwrap();
    initialize(std::slice::from_ref(&node)).await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_no_node_could_install_is_not_taken() {
    const MAX: u64 = 100 << 10;
    let node = single_node(LogBounds::default(), MAX, 10).await;
    for _ in 0..60 {
        node.write(vec![7u8; 4 << 10]).await;
    }
    let snapshot = node.group.replica().snapshots().load().unwrap();
    let (meta, body) = snapshot.expect("the first ones are small enough");
    assert!(body.bytes() <= MAX);
    let purged =
        node.host.journal().read(GROUP, |log| log.purged.as_ref().map_or(0, |(through, _)| *through));
    let index = meta.last_log_id.map_or(0, |id| id.index);
    assert!((1..30).contains(&index) && purged <= index, "snapshot at {index}, purged through {purged}");
    assert_eq!(node.group.replica().status().failed, None);
    assert_eq!(node.commands().len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_bounded_by_bytes() {
    const KIB: u64 = 1 << 10;
    let bounds = LogBounds { group: 256 * KIB, all: 1024 * KIB, kept: 32 * KIB };
    let node = single_node(bounds, MAX_SNAPSHOT_BYTES, NO_SNAPSHOTS).await;
    let bytes = || node.host.journal().read(GROUP, |log| log.bytes());
    for _ in 0..20 {
        for _ in 0..10 {
            node.write(vec![7u8; 4 << 10]).await;
        }
        eventually("room for more", || bytes() < 320 * KIB).await;
    }
    assert!(node.group.replica().status().snapshot_index > 50);
    eventually("what is kept", || bytes() < 256 * KIB).await;
    assert!(bytes() >= 16 * KIB, "a follower that is a little behind finds {} bytes", bytes());
    assert_eq!(node.commands().len(), 200);
}

async fn eventually_leader(nodes: &[TestNode]) -> &TestNode {
    eventually("a leader", || nodes.iter().any(leads)).await;
    nodes.iter().find(|node| leads(node)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_started_lately_votes_for_nobody() {
    let quiet = Duration::from_millis(800);
    let started = clock::now();
    let nodes = vec![
        TestNode::start(1, Duration::ZERO, NO_SNAPSHOTS).await,
        TestNode::start(2, quiet, NO_SNAPSHOTS).await,
    ];
    link(&nodes).await;
    initialize(&nodes).await;
    eventually_leader(&nodes).await;
    assert!(clock::now() >= started + quiet, "elected after {:?}", started.elapsed());
}

/// Two nodes whose Raft never runs an election, to send them any message.
async fn bystanders(quiet: Duration) -> Vec<TestNode> {
    let nodes = vec![
        TestNode::start(1, Duration::ZERO, NO_SNAPSHOTS).await,
        TestNode::start(2, quiet, NO_SNAPSHOTS).await,
    ];
    link(&nodes).await;
    nodes
}

async fn ask(nodes: &[TestNode], channel: Channel, group: GroupId, body: Bytes) -> Result<Bytes, CallError> {
    let request = Request { channel, group, trace: Trace::default(), lane: Lane::Bulk, body };
    nodes[0].peers().call(nodes[1].id, request, DEADLINE).await
}

fn failure(result: Result<Bytes, CallError>) -> Failure {
    match result {
        Err(CallError::Failed(failure)) => failure,
        other => panic!("expected a failure, not {other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_answered_with_a_reason() {
    let nodes = bystanders(DEADLINE).await;
    let vote = Vote::new(1, NodeId(1));
    let request = wire::encode(&VoteRequest::<TypeConfig>::new(vote, None)).unwrap();
    for channel in [wire::VOTE, wire::PRE_VOTE, wire::TRANSFER_LEADER] {
        let quiet = failure(ask(&nodes, channel, GROUP, request.clone()).await);
        assert_eq!(quiet.code, FailureCode::Unavailable);
        assert!(quiet.detail.contains("started lately"), "{quiet}");
    }
    for channel in [wire::APPEND, wire::HEARTBEAT, wire::VOTE, wire::SNAPSHOT, wire::FORWARD] {
        let unknown = failure(ask(&nodes, channel, GroupId(9), request.clone()).await);
        assert_eq!(unknown, Failure::new(FailureCode::UnknownGroup, "this node is not a member of group 9"));
    }
    for channel in [wire::APPEND, wire::HEARTBEAT, wire::SNAPSHOT] {
        let nonsense = failure(ask(&nodes, channel, GROUP, Bytes::from_static(&[0xff; 9])).await);
        assert_eq!(nonsense.code, FailureCode::Malformed, "{nonsense}");
    }
}

#[tokio::test]
async fn a_snapshot_that_is_broken_off_goes_on_where_it_was() {
    let nodes = bystanders(Duration::ZERO).await;
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
    nodes[0].peers().set_members(&[]);
    nodes[0].peers().set_members(&members);
    eventually("another connection", || nodes[0].peers().links().iter().all(|link| link.connected)).await;

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
    let nodes = bystanders(Duration::ZERO).await;
    let vote = Vote::new_committed(1, NodeId(1));
    let data = Bytes::from_iter((0..3 * SNAPSHOT_PIECE_BYTES).map(|position| (position >> 8) as u8));
    let bytes = data.len() as u64;
    let send = async |message: SnapshotMessage| {
        ask(&nodes, wire::SNAPSHOT, GROUP, wire::encode(&message).unwrap()).await.unwrap()
    };
    send(SnapshotMessage::Begin { transfer: 1, vote, meta: Default::default(), bytes }).await;
    send(SnapshotMessage::Piece { transfer: 1, offset: 0, data: data.slice(..SNAPSHOT_PIECE_BYTES + 7) })
        .await;

    // A sender that begins at the beginning again is refused, and one that has not read that part has another sum.
    let mut network = Network::new(nodes[0].peers().clone(), GROUP, Acknowledged::default());
    let mut client = network.new_client(nodes[1].id, &BasicNode::new(&nodes[1].addr)).await;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"before it").unwrap();
    file.write_all(&data).unwrap();
    let snapshot = Snapshot { meta: Default::default(), snapshot: SnapshotFile::new(file, 9, bytes) };
    let sent = client.full_snapshot(vote, snapshot, future::pending(), RPCOption::new(DEADLINE)).await;
    sent.expect("it is sent at the first try");
}

#[tokio::test]
async fn an_earlier_leader_does_not_take_the_place_of_a_later_one() {
    let nodes = bystanders(Duration::ZERO).await;
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
    let nodes = bystanders(Duration::ZERO).await;
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

    let huge = failure(send(begin(MAX_SNAPSHOT_BYTES + 1)).await);
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

    assert_eq!(nodes[1].installed(), 0);
}
