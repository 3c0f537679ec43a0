//! Replicas whose data directory is an older copy: what they had acknowledged since is gone.

use super::*;
use std::{fs, path::Path};

/// The directory of a node as a crash at this moment would leave it.
fn copy(of: &TestNode) -> TempDir {
    fn copy_all(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&to).unwrap();
                copy_all(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    copy_all(of.dir.path(), dir.path());
    dir
}

async fn write_some(node: &TestNode, count: usize) {
    for _ in 0..count {
        node.write("some").await;
    }
}

/// Starts a node again from a directory, without links.
async fn start_again(dir: TempDir, id: u64) -> TestNode {
    start_again_with(dir, id, NO_SNAPSHOTS).await
}

async fn start_again_with(dir: TempDir, id: u64, snapshot_every: u64) -> TestNode {
    TestNode::start_in(dir, id, Duration::ZERO, snapshot_every).await
}

/// The term in which the first node leads. A leader of a later term does not know what node 3 had acknowledged, and may
/// send it all again unnoticed.
fn term(nodes: &[TestNode]) -> Option<u64> {
    nodes[0].group.replica().leading()
}

/// Node 3 is put back to an older copy of its directory.
async fn put_back(nodes: &mut Vec<TestNode>, older: TempDir) {
    nodes.pop().unwrap().stop().await;
    nodes.push(start_again(older, 3).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_put_back_says_so_and_catches_up() {
    let mut nodes = cluster(NO_SNAPSHOTS).await;
    write_some(&nodes[0], 20).await;
    same_commands(&nodes, 20).await;
    let older = copy(&nodes[2]);
    write_some(&nodes[0], 30).await;
    same_commands(&nodes, 50).await;
    let led = term(&nodes);
    put_back(&mut nodes, older).await;
    link(&nodes).await;
    same_commands(&nodes, 50).await;
    let lost = nodes[2].group.replica().lost_entries();
    if term(&nodes) == led {
        assert_eq!(lost.times(), 1);
    }
    eventually("the loss to be over", || lost.last().is_none()).await;
    eventually("the leader to see it", || nodes[0].group.replica().followers_with_losses().is_empty()).await;
    write_some(&nodes[0], 1).await;
    same_commands(&nodes, 51).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_put_back_under_load_gets_all_again() {
    let mut nodes = cluster(NO_SNAPSHOTS).await;
    write_some(&nodes[0], 20).await;
    same_commands(&nodes, 20).await;
    let older = copy(&nodes[2]);
    let (writer, count) = (nodes[0].group.clone(), 600);
    let writes = tokio::spawn(async move {
        for number in 0..count {
            let record = Record { bytes: Bytes::from(number.to_string()), after: None };
            writer.propose(record, clock::now() + DEADLINE).await.unwrap();
        }
    });
    eventually("some writes", || nodes[2].commands().len() > 50).await;
    let led = term(&nodes);
    put_back(&mut nodes, older).await;
    link(&nodes).await;
    writes.await.unwrap();
    same_commands(&nodes, 20 + count).await;
    if term(&nodes) == led {
        assert_eq!(nodes[2].group.replica().lost_entries().times(), 1);
    }
}

/// Entries are on nodes 1 and 3 alone. Node 3 loses them, and node 1 is away: what nodes 2 and 3 would elect has not got
/// them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_has_lost_entries_elects_no_leader_without_them() {
    let mut nodes = cluster(NO_SNAPSHOTS).await;
    write_some(&nodes[0], 20).await;
    same_commands(&nodes, 20).await;
    let older = copy(&nodes[2]);
    let members: Vec<_> = nodes.iter().map(|node| (node.id, node.addr.clone())).collect();
    nodes[0].peers().set_members(&[members[0].clone(), members[2].clone()]);
    write_some(&nodes[0], 10).await;
    eventually("both to have applied it", || nodes[2].commands().len() == 30).await;
    assert_eq!(nodes[1].commands().len(), 20);

    let applied = nodes[2].group.published().applied();
    let first = copy(&nodes[0]);
    nodes.remove(0).stop().await;
    nodes.pop().unwrap().stop().await;
    nodes.push(start_again(older, 3).await);
    let (third, second) = (nodes[1].group.replica().clone(), nodes[0].id);
    third.remembered().expect_within(DEADLINE);
    link(&nodes).await;
    sleep(5 * ELECTIONS.timeout_max).await;
    assert!(!nodes.iter().any(leads), "node 2 has not reported yet");
    // It remembers how far node 3 had come.
    third.was_applied_here(applied.term, applied.revision).await;
    assert_eq!(third.lost_through(), Some(applied.revision.0));
    third.remembered().reported_by(second);
    sleep(5 * ELECTIONS.timeout_max).await;
    assert!(!nodes.iter().any(leads), "the ten entries would be lost");

    nodes.insert(0, start_again(first, 1).await);
    link(&nodes).await;
    same_commands(&nodes, 30).await;
    let leader = eventually_leader(&nodes).await;
    write_some(leader, 1).await;
    same_commands(&nodes, 31).await;
    eventually("the loss to be over", || nodes[2].group.replica().lost_through().is_none()).await;
}

/// Node 3 forgets what it had acknowledged and no node remembers it, so the cluster continues without that. The node
/// that has it must not answer beside the others.
async fn a_node_stops_whose_committed_log_differs(snapshot_every: u64, others_write: usize) -> Vec<TestNode> {
    let mut nodes = cluster(snapshot_every).await;
    write_some(&nodes[0], 10).await;
    same_commands(&nodes, 10).await;
    let (older, second) = (copy(&nodes[2]), copy(&nodes[1]));
    nodes.remove(1).stop().await;
    write_some(&nodes[0], 50).await;
    eventually("both to have applied it", || nodes.iter().all(|node| node.commands().len() == 60)).await;
    // How far it has committed is on its disk a moment later.
    sleep(Duration::from_secs(1)).await;
    let first = copy(&nodes[0]);
    for node in nodes {
        node.stop().await;
    }

    let mut nodes = Vec::new();
    for (id, dir) in [(2, second), (3, older)] {
        nodes.push(start_again_with(dir, id, snapshot_every).await);
    }
    link(&nodes).await;
    let leader = eventually_leader(&nodes).await;
    write_some(leader, others_write).await;
    same_commands(&nodes, 10 + others_write).await;

    nodes.push(start_again_with(first, 1, snapshot_every).await);
    eventually("what was committed to be applied", || nodes[2].commands().len() == 60).await;
    let stopped = nodes[2].group.clone();
    let reason = tokio::spawn(async move { stopped.replica().until_failed().await });
    let members: Vec<_> = nodes.iter().map(|node| (node.id, node.addr.clone())).collect();
    for node in &nodes {
        node.peers().set_members(&members);
    }
    let reason = tokio::time::timeout(DEADLINE, reason).await.expect("it stops").unwrap();
    assert!(reason.contains("a majority of the voters was put back to an older state"), "{reason}");
    assert_eq!(nodes[2].commands().len(), 60, "nothing of the other history is applied");
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_committed_log_differs_from_the_leaders_stops() {
    let nodes = a_node_stops_whose_committed_log_differs(NO_SNAPSHOTS, 5).await;
    let leader = eventually_leader(&nodes[..2]).await;
    write_some(leader, 60).await;
    same_commands(&nodes[..2], 75).await;
}

/// What differs has been purged, at the node that has it or at the leader, who sends a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stops_although_what_differs_is_purged() {
    for others_write in [5, 35] {
        a_node_stops_whose_committed_log_differs(10, others_write).await;
    }
}

/// The leader of a term forgets that it was elected, and helps to elect another one in the same term. The entries of both
/// have the same ids. False where it was elected itself, which the votes do not show.
async fn a_second_leader_of_a_term_is_elected() -> bool {
    let mut nodes = cluster(NO_SNAPSHOTS).await;
    write_some(&nodes[0], 10).await;
    same_commands(&nodes, 10).await;
    let (first, mut older) = (copy(&nodes[0]), vec![copy(&nodes[1]), copy(&nodes[2])]);
    nodes.remove(0).stop().await;
    let leader = eventually_leader(&nodes).await;
    leader.write("acknowledged").await;
    same_commands(&nodes, 11).await;
    let term = leader.group.replica().leading();
    let leader = nodes.iter().position(leads).unwrap();
    let (leader_id, follower_id) = (nodes[leader].id.0, nodes[1 - leader].id.0);
    let followed = copy(&nodes[1 - leader]);
    for node in nodes {
        node.stop().await;
    }

    let mut nodes = vec![start_again(first, 1).await, start_again(older.remove(leader), leader_id).await];
    link(&nodes).await;
    // A restarted node neither votes nor campaigns at first.
    sleep(ELECTIONS.timeout_max).await;
    let _ = nodes[0].group.replica().raft().trigger().elect(false).await;
    eventually_leader(&nodes).await.write("instead").await;
    same_commands(&nodes, 11).await;
    if nodes[0].group.replica().leading() != term {
        return false;
    }
    let follower = start_again(followed, follower_id).await;
    let stopped = follower.group.clone();
    let reason = tokio::spawn(async move { stopped.replica().until_failed().await });
    nodes.push(follower);
    let members: Vec<_> = nodes.iter().map(|node| (node.id, node.addr.clone())).collect();
    for node in &nodes {
        node.peers().set_members(&members);
    }
    let reason = tokio::time::timeout(DEADLINE, reason).await.expect("it stops").unwrap();
    assert!(reason.contains("have led in the same term"), "{reason}");
    assert!(!nodes[2].commands().contains(&Bytes::from("instead")), "{:?}", nodes[2].commands());
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hears_a_second_leader_of_its_term_stops() {
    for _ in 0..20 {
        if a_second_leader_of_a_term_is_elected().await {
            return;
        }
    }
    panic!("the schedule never came about");
}
