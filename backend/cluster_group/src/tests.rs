//! Group 0 beside a group of another application: both on one journal and one link between each pair of nodes.

mod counters;

use crate::{ClusterApplication, ClusterGroup};
use counters::{Add, Counters};
use ringmaster_cluster::{
    command::{Actor, Command, Outcome, Precondition, Request},
    version::PEER_FORMATS,
};
use ringmaster_common::id::{GroupId, Incarnation, NodeId};
use ringmaster_net::{clock, supervisor::Supervisor};
use ringmaster_peer::Local;
use ringmaster_replication::{Consistency, GroupHost, RaftGroup, elections::Elections};
use ringmaster_storage::{data_dir::DataDir, journal::Journal};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::sleep};

const DEADLINE: Duration = Duration::from_secs(20);
const COUNTERS: GroupId = GroupId(7);
const ELECTIONS: Elections = Elections {
    heartbeat: Duration::from_millis(50),
    timeout_min: Duration::from_millis(300),
    timeout_max: Duration::from_millis(500),
};
/// Few, so that followers that are late need the snapshot.
const SNAPSHOT_EVERY: u64 = 20;

struct Node {
    id: NodeId,
    addr: String,
    host: GroupHost,
    cluster: ClusterGroup,
    counters: RaftGroup<Counters>,
    replaced: Arc<AtomicUsize>,
    _dir: TempDir,
}

impl Node {
    async fn start(id: u64) -> Node {
        let id = NodeId(id);
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        Journal::create(data_dir.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let local = Local {
            cluster_id: "c".to_owned(),
            node_id: id,
            incarnation: Incarnation(1),
            feature_level: 1,
            election_timeout_max: ELECTIONS.timeout_max,
            formats: PEER_FORMATS,
        };
        let host =
            GroupHost::start(&data_dir, local, listener, ELECTIONS, Vec::new(), &Supervisor::new()).unwrap();
        let cluster = host.open(GroupId::CLUSTER, ClusterApplication::default(), SNAPSHOT_EVERY).await;
        let application = Counters::default();
        let replaced = application.replaced.clone();
        let counters = host.open(COUNTERS, application, SNAPSHOT_EVERY).await.unwrap();
        Node {
            id,
            addr,
            host,
            cluster: ClusterGroup::new(cluster.unwrap(), BTreeMap::new()),
            counters,
            replaced,
            _dir: dir,
        }
    }

    async fn add(&self, name: &str, by: u64) -> u64 {
        let add = Add { id: uuid::Uuid::new_v4().to_string(), name: name.to_owned(), by };
        self.counters.propose(add, deadline()).await.unwrap()
    }

    async fn read(&self, name: &str) -> u64 {
        let state = self.counters.read(Consistency::Linearizable, deadline()).await.unwrap();
        state.counters.get(name).copied().unwrap_or_default()
    }

    async fn put_setting(&self, key: &str, value: u64) -> Outcome {
        let request = Request {
            id: uuid::Uuid::new_v4().to_string(),
            actor: Actor::Operator("test".to_owned()),
            repeatable: false,
            fingerprint: None,
            resent_after: None,
        };
        let command = Command::PutSetting {
            key: key.to_owned(),
            value: value.into(),
            precondition: Precondition::None,
        };
        self.cluster.propose(request, command, deadline()).await.unwrap().outcome
    }

    async fn stop(&self) {
        self.host.peers().shutdown();
        self.cluster.shutdown().await;
        self.counters.replica().shutdown().await;
    }
}

fn deadline() -> Instant {
    clock::now() + DEADLINE
}

fn link(nodes: &[Node]) -> Vec<(NodeId, String)> {
    let members: Vec<_> = nodes.iter().map(|node| (node.id, node.addr.clone())).collect();
    for node in nodes {
        node.host.peers().set_members(&members);
    }
    members
}

async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = clock::now();
    while !check() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Three nodes: the first leads group 0, the second leads the counters.
async fn nodes() -> Vec<Node> {
    let nodes = vec![Node::start(1).await, Node::start(2).await, Node::start(3).await];
    let members = link(&nodes);
    let linked = |node: &Node| node.host.peers().links().iter().all(|link| link.connected);
    eventually("all links", || nodes.iter().all(linked)).await;
    nodes[0].cluster.0.raft.replica().initialize(&members).await.unwrap();
    nodes[1].counters.replica().initialize(&members).await.unwrap();
    let leads = || nodes[0].cluster.leading().is_some() && nodes[1].counters.replica().leading().is_some();
    eventually("both leaders", leads).await;
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_voters_that_was_left_halfway_is_finished() {
    let nodes = nodes().await;
    let leader = &nodes[0].cluster;
    assert!(!leader.finish_voter_change().await.unwrap(), "there is none");
    assert!(leader.observations().joint_voters.is_empty());
    let (before, after) = ([1, 2, 3].map(NodeId).into(), [1, 2].map(NodeId).into());
    // The change is given up once its first entry is in the log. Without links that entry is not committed, so that the
    // second does not follow.
    nodes[0].host.peers().set_members(&[]);
    let begun = async {
        while leader.voter_sets().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = begun => {}
        done = leader.change_voters([1, 2].map(NodeId).into()) => panic!("it was finished: {done:?}"),
    }
    link(&nodes);
    nodes[0].put_setting("key", 1).await;
    assert_eq!(leader.voter_sets(), [before, after], "no other node takes the second step");
    assert_eq!(leader.observations().joint_voters, leader.voter_sets());
    let quorum = leader.quorum();
    let sets: Vec<_> = quorum.joint.iter().map(|set| (set.voters, set.needed)).collect();
    assert_eq!(sets, [(3, 2), (2, 2)], "both majorities are counted");
    assert!(leader.finish_voter_change().await.unwrap());
    assert_eq!(leader.voter_sets(), [[1, 2].map(NodeId).into()]);
    assert!(leader.quorum().joint.is_empty());
    assert!(!leader.finish_voter_change().await.unwrap(), "once is enough");
    for node in &nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_applications_share_journal_and_links() {
    let nodes = nodes().await;
    for (node, total) in nodes.iter().zip(1..) {
        assert_eq!(node.add("visits", 1).await, total, "from node {}", node.id);
        assert!(matches!(node.put_setting("a.b", total).await, Outcome::Stored(_)));
        for reader in &nodes {
            assert_eq!(reader.read("visits").await, total, "at node {}", reader.id);
        }
    }
    for node in &nodes {
        let read = node.cluster.read(Consistency::Linearizable, deadline()).await.unwrap();
        assert_eq!(read.settings.get("a.b").map(|setting| setting.value.clone()), Some(3.into()));
        let logs =
            [GroupId::CLUSTER, COUNTERS].map(|id| node.host.journal().read(id, |log| log.next_index()));
        assert!(logs.iter().all(Option::is_some), "both logs are in the journal: {logs:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_follower_of_one_group_gets_its_snapshot() {
    let mut nodes = nodes().await;
    for _ in 0..3 * SNAPSHOT_EVERY {
        nodes[0].add("visits", 2).await;
    }
    let replica = nodes[1].counters.replica();
    eventually("a snapshot", || replica.status().snapshot_index >= SNAPSHOT_EVERY).await;
    eventually("the log to be purged", || {
        nodes[1].host.journal().read(COUNTERS, |log| log.first_index().is_none_or(|first| first > 5))
    })
    .await;

    nodes.push(Node::start(4).await);
    link(&nodes);
    nodes[1].counters.replica().add_learner(NodeId(4), &nodes[3].addr).await.unwrap();
    nodes[0].add("visits", 1).await;
    let late = &nodes[3];
    eventually("the late follower", || late.counters.state().counters.get("visits") == Some(&121)).await;
    assert_eq!(late.replaced.load(Ordering::Relaxed), 1, "it came by a snapshot");
    assert_eq!(late.read("visits").await, 121);
    assert_eq!(late.cluster.leader(), None, "it is a member of the counters alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_one_group_changes_and_the_other_stays() {
    let nodes = nodes().await;
    nodes[2].add("visits", 1).await;
    let term = nodes[0].cluster.status().term;
    nodes[1].counters.replica().transfer(NodeId(3)).await.unwrap();
    eventually("the third to lead the counters", || nodes[2].counters.replica().leading().is_some()).await;
    assert_eq!(nodes[0].add("visits", 1).await, 2);
    assert_eq!((nodes[0].cluster.leader(), nodes[0].cluster.status().term), (Some(NodeId(1)), term));

    // The clock of the group continues with each leader.
    let before = nodes[0].counters.state().clock_ms;
    nodes[2].stop().await;
    assert_eq!(nodes[0].add("visits", 1).await, 3, "another node leads by then");
    assert!(nodes[0].counters.state().clock_ms >= before);
    assert_eq!(nodes[1].read("visits").await, 3);
    assert_eq!(nodes[0].cluster.leader(), Some(NodeId(1)));
    nodes[1].put_setting("a.b", 1).await;
}
