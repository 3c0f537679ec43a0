//! Groups that leave a node.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_leaves_a_node_keeps_its_vote_alone() {
    let nodes = cluster(10).await;
    for _ in 0..30 {
        nodes[0].write("before").await;
    }
    same_commands(&nodes, 30).await;
    let (gone, journal) = (&nodes[2], nodes[2].host.journal());
    nodes[0].group.replica().change_voters([NodeId(1), NodeId(2)].into()).await.unwrap();
    nodes[0].group.replica().remove_learner(NodeId(3)).await.unwrap();
    let vote = journal.read(GROUP, |log| log.vote.clone());
    gone.host.drop_group(GROUP).await.unwrap();
    let left = journal.read(GROUP, |log| (log.vote.clone(), log.next_index()));
    assert_eq!(left, (vote, None));
    assert!(gone.group.replica().snapshots().load().unwrap().is_none());
    let request = wire::encode(&VoteRequest::<TypeConfig>::new(Vote::new(99, NodeId(1)), None)).unwrap();
    let request = Request {
        channel: wire::VOTE,
        group: GROUP,
        trace: Trace::default(),
        lane: Lane::Bulk,
        body: request,
    };
    let refused = failure(nodes[0].peers().call(gone.id, request, DEADLINE).await);
    assert_eq!(refused.code, FailureCode::UnknownGroup);

    // It may come back, and gets all from the leader.
    let again = gone.host.open(GROUP, Recorder::default(), 10).await.unwrap();
    nodes[0].group.replica().add_learner(NodeId(3), &gone.addr).await.unwrap();
    nodes[0].write("after").await;
    eventually("all of it", || again.state().commands.len() == 31).await;
    again.replica().shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_leaves_a_node_leaves_no_task() {
    let node = TestNode::start(1, Duration::ZERO, NO_SNAPSHOTS).await;
    node.host.drop_group(GROUP).await.unwrap();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    // Tasks end a moment after they were asked to.
    sleep(Duration::from_millis(200)).await;
    let before = alive();
    for _ in 0..4 {
        node.host.open(GROUP, Recorder::default(), NO_SNAPSHOTS).await.unwrap();
        assert!(alive() > before);
        node.host.drop_group(GROUP).await.unwrap();
    }
    eventually("as many tasks as before", || alive() <= before).await;
}
