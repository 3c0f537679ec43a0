//! Leases: none ends early, neither because a voter was restarted and has forgotten it, nor because a connection was
//! lost.

use super::{DEADLINE, GROUP, NO_SNAPSHOTS, Recorder, eventually, local};
use crate::{
    elections::Elections,
    group::{Consistency, RaftGroup},
    host::GroupHost,
};
use ringmaster_common::id::NodeId;
use ringmaster_net::{clock, supervisor::Supervisor};
use ringmaster_storage::data_dir::DataDir;
use ringmaster_storage::journal::Journal;
use std::time::Duration;
use tempfile::TempDir;
use tokio::{net::TcpListener, time::sleep};

/// Long beside a restart.
const LEASE: Duration = Duration::from_millis(1_500);
const HEARTBEAT: Duration = Duration::from_millis(50);
/// A follower stands often, once its lease is over.
const EAGER: Elections =
    Elections { heartbeat: HEARTBEAT, timeout_min: Duration::from_millis(100), timeout_max: LEASE };
/// A follower waits for about as long again as the lease, unless it has a reason not to.
const PATIENT: Elections =
    Elections { heartbeat: HEARTBEAT, timeout_min: Duration::from_millis(1_400), timeout_max: LEASE };
/// How long a lease read is tried for.
const READ: Duration = Duration::from_millis(60);

struct Node {
    id: NodeId,
    elections: Elections,
    addr: String,
    data_dir: DataDir,
    host: GroupHost,
    group: RaftGroup<Recorder>,
    _dir: TempDir,
}

impl Node {
    async fn create(id: u64, elections: Elections) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        Journal::create(data_dir.path()).unwrap();
        let (addr, host, group) = open(NodeId(id), elections, &data_dir).await;
        Node { id: NodeId(id), elections, addr, data_dir, host, group, _dir: dir }
    }

    /// Stops, and starts again with what is on disk.
    async fn restart(&mut self) {
        self.stop().await;
        (self.addr, self.host, self.group) = open(self.id, self.elections, &self.data_dir).await;
    }

    async fn stop(&self) {
        self.group.replica().shutdown().await;
        self.host.peers().shutdown();
    }

    fn link_to(&self, others: &[&Node]) {
        let members: Vec<_> = others.iter().map(|node| (node.id, node.addr.clone())).collect();
        self.host.peers().set_members(&members);
    }

    async fn serves_lease_reads(&self) -> bool {
        self.group.read(Consistency::Lease, clock::now() + READ).await.is_ok()
    }
}

async fn open(
    id: NodeId,
    elections: Elections,
    data_dir: &DataDir,
) -> (String, GroupHost, RaftGroup<Recorder>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let host =
        GroupHost::start(data_dir, local(id, elections), listener, elections, Vec::new(), &Supervisor::new())
            .unwrap();
    let group = host.open(GROUP, Recorder::default(), NO_SNAPSHOTS).await.unwrap();
    (addr, host, group)
}

/// Three voters with links between all. The first leads, and the others know it.
async fn cluster(elections: Elections) -> [Node; 3] {
    let nodes = [
        Node::create(1, elections).await,
        Node::create(2, elections).await,
        Node::create(3, elections).await,
    ];
    let [leader, second, third] = &nodes;
    leader.group.replica().initialize(&[(leader.id, leader.addr.clone())]).await.unwrap();
    eventually("the first node to lead", || leader.group.replica().leading().is_some()).await;
    for node in &nodes {
        node.link_to(&[leader, second, third]);
    }
    for node in [second, third] {
        leader.group.replica().add_learner(node.id, &node.addr).await.unwrap();
        leader.group.replica().promote(node.id).await.unwrap();
        eventually("a voter to know the leader", || node.group.replica().leader() == Some(leader.id)).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_leaders_serve_lease_reads_when_a_voter_restarts() {
    let [leader, mut voter, other] = cluster(EAGER).await;
    // Leader and third node are cut off from each other. The leader relies on the second alone,
    // which refuses the third its vote.
    leader.link_to(&[&voter]);
    other.link_to(&[&voter]);
    sleep(2 * LEASE).await;
    assert!(leader.serves_lease_reads().await, "a majority is left");
    assert!(!other.serves_lease_reads().await, "no other leader is elected while the leader lives");

    // The worst moment: the second has just acknowledged the leader, forgets it, and meets the third.
    leader.link_to(&[]);
    voter.restart().await;
    voter.link_to(&[&other]);
    other.link_to(&[&voter]);
    assert!(leader.serves_lease_reads().await, "too slow a machine: the lease was over before the restart");

    let restarted = clock::now();
    while !other.serves_lease_reads().await {
        assert!(restarted.elapsed() < DEADLINE, "the third node was never elected");
    }
    eprintln!("elected {:?} after the restart", restarted.elapsed());
    assert!(!leader.serves_lease_reads().await, "two leaders serve lease reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_stands_when_the_lease_of_a_lost_leader_is_over() {
    let [leader, second, third] = cluster(PATIENT).await;
    leader.stop().await;
    let leads = || [&second, &third].iter().any(|node| node.group.replica().leading().is_some());
    let took = eventually("a new leader", leads).await;
    eprintln!("a new leader {took:?} after the last had stopped");
    assert!(took > LEASE - 3 * HEARTBEAT, "elected after {took:?}, within the lease");
    assert!(took < LEASE + PATIENT.timeout_min, "elected after {took:?}, no sooner than by silence");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_disturbs_no_leader_that_lives() {
    let [leader, second, third] = cluster(EAGER).await;
    let before = leader.group.replica().status().term;
    for _ in 0..3 {
        second.link_to(&[&third]);
        sleep(LEASE / 2).await;
        second.link_to(&[&leader, &third]);
        sleep(LEASE / 2).await;
    }
    for node in [&leader, &second, &third] {
        let status = node.group.replica().status();
        assert_eq!((status.leader, status.term), (Some(leader.id), before), "at node {}", node.id);
    }
}
