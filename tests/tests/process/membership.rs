//! Members come and go, and who votes changes, under load and with the quorum in mind.

use reqwest::{Method, StatusCode};
use ringmaster_common::{
    action::Action,
    cluster::{NodeStatus, Role},
    error::Code,
    event::AuditEntry,
    id::{GroupId, NodeId},
    operation::{Operation, OperationStatus},
    page::Page,
    plan::Plan,
};
use ringmaster_tests::{SOON, cluster::Cluster, eventually, stream::agreement, writers::Writers};
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};

fn voters(ids: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

/// Plans and applies, at a node that runs, until that takes: what was measured may be a moment old.
async fn carry_out(cluster: &Cluster, at: u64, action: &Action) -> Operation {
    let started = eventually(&format!("to {action}"), SOON, async || {
        let plan = cluster.plan(at, action).await?;
        match plan.blockers.first() {
            Some(blocker) => Err(blocker.detail.clone()),
            None => cluster.apply(at, &plan).await,
        }
    })
    .await;
    let operation = cluster.outcome(at, &started).await;
    assert_eq!(operation.status, OperationStatus::Succeeded, "{operation:#?}");
    operation
}

async fn voting(cluster: &Cluster, at: u64) -> BTreeSet<NodeId> {
    let body = cluster.cluster(at).await.expect("the node answers");
    body.nodes.iter().filter(|info| info.node.voter).map(|info| info.node.id).collect()
}

fn blocked_by(plan: &Plan, code: &str) -> bool {
    plan.blockers.iter().any(|blocker| blocker.code == code)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_join_and_vote_and_two_leave_under_load() {
    let mut cluster = Cluster::start(3).await;
    let load = Writers::start(&cluster, 4);
    for id in [4, 5] {
        cluster.add();
        cluster.wait_status(3, id, NodeStatus::Up).await;
    }
    carry_out(&cluster, 3, &Action::ChangeVoters { voters: voters(1..=5) }).await;
    assert_eq!(voting(&cluster, 3).await, voters(1..=5));

    // One of the two leads, or did: leadership moves automatically.
    for id in [1, 2] {
        carry_out(&cluster, 3, &Action::RemoveNode { node: NodeId(id) }).await;
        let status = cluster.node_mut(id).process().wait(SOON);
        assert!(!status.success(), "a removed node does not pretend that all is well");
        let log = cluster.node(id).log();
        assert!(log.contains(&format!("node {id} was removed from the cluster")), "{log}");
        cluster.node_mut(id).kill();
    }
    let leader = cluster.leader().await;
    assert!(leader > 2, "node {leader} leads");
    assert_eq!(voting(&cluster, 3).await, voters(3..=5));
    let body = cluster.cluster(4).await.expect("it answers");
    assert_eq!(body.next_id, NodeId(6), "the ids of former members are not given again");

    let record = load.stop().await;
    println!("{} writes were acknowledged, {} are unknown", record.acknowledgements, record.unknowns);
    assert!(record.acknowledgements > 100, "there was load");
    for id in 3..=5 {
        record.check(&cluster, id).await;
    }
    agreement(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced_and_does_no_harm_when_it_comes_back() {
    let mut cluster = Cluster::start(3).await;
    cluster.node_mut(3).kill();
    cluster.wait_status(1, 3, NodeStatus::Down).await;
    cluster.add();
    cluster.wait_status(1, 4, NodeStatus::Up).await;

    let plan = cluster.plan(1, &Action::RemoveNode { node: NodeId(3) }).await.expect("a plan");
    assert!(plan.summary.contains("Node 4 (test-4) takes its place"), "{}", plan.summary);
    assert!(plan.warnings.iter().any(|warning| warning.code == "final") && !plan.undoable);
    carry_out(&cluster, 1, &Action::RemoveNode { node: NodeId(3) }).await;
    assert_eq!(voting(&cluster, 1).await, voters([1, 2, 4]));
    cluster.put_setting(4, "after", json!(1)).await.expect("two of three voters are old ones");

    // With its data, the refusal says that it was removed; without, that ids are never reused.
    let term = cluster.cluster(1).await.expect("it answers").term;
    cluster.node_mut(3).start();
    assert!(!cluster.node_mut(3).process().wait(SOON).success());
    cluster.node_mut(3).kill();
    assert!(cluster.node(3).log().contains("was removed from the cluster"), "{}", cluster.node(3).log());
    cluster.wipe(3);
    cluster.node_mut(3).start();
    eventually("the wiped node to be refused", SOON, async || {
        let log = cluster.node(3).log();
        if log.contains("ids are never reused") { Ok(()) } else { Err(log) }
    })
    .await;
    cluster.put_setting(2, "after", json!(2)).await.expect("the cluster takes writes");
    let body = cluster.cluster(1).await.expect("it answers");
    assert_eq!(body.term, term, "what came back caused no election");
    assert!(body.nodes.iter().all(|info| info.node.id != NodeId(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_leader_hands_over_and_leads_no_more_until_it_is_activated() {
    let mut cluster = Cluster::start(3).await;
    let drained = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != drained).collect();
    let load = Writers::start(&cluster, 2);
    let operation = carry_out(&cluster, drained, &Action::DrainNode { node: NodeId(drained) }).await;
    let gap = load.stop().await.longest_gap;
    assert!(gap < Duration::from_secs(2), "writes paused for {gap:?}");
    cluster.wait_status(others[0], drained, NodeStatus::Drained).await;
    let leader = cluster.leader().await;
    assert_ne!(leader, drained);

    // It does not stand when there is an election, and no node transfers leadership to it.
    let plan = cluster
        .plan(drained, &Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(drained) })
        .await
        .expect("a plan");
    assert!(blocked_by(&plan, "node_not_up"), "{:?}", plan.blockers);
    cluster.node_mut(leader).kill();
    let next = others.iter().copied().find(|id| *id != leader).expect("there are two others");
    assert_eq!(cluster.leader().await, next);
    cluster.put_setting(drained, "key", json!(1)).await.expect("the drained node votes and forwards");

    // A second one cannot be spared while one is drained and one is down.
    let plan = cluster.plan(next, &Action::DrainNode { node: NodeId(next) }).await.expect("a plan");
    assert!(blocked_by(&plan, "would_lose_quorum"), "{:?}", plan.blockers);

    cluster.node_mut(leader).start();
    cluster.wait_status(next, leader, NodeStatus::Up).await;
    carry_out(&cluster, next, &Action::Undo { operation: operation.id }).await;
    cluster.wait_status(next, drained, NodeStatus::Up).await;
    let back = Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(drained) };
    carry_out(&cluster, next, &back).await;
    assert_eq!(cluster.leader().await, drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_would_lose_the_quorum_is_refused() {
    let mut cluster = Cluster::start(3).await;
    cluster.node_mut(3).kill();
    cluster.wait_status(1, 3, NodeStatus::Down).await;
    for action in [
        Action::RemoveNode { node: NodeId(2) },
        Action::DrainNode { node: NodeId(2) },
        Action::ChangeVoters { voters: voters([1, 3]) },
    ] {
        let plan = cluster.plan(1, &action).await.expect("a plan");
        assert!(blocked_by(&plan, "would_lose_quorum"), "{action}: {:?}", plan.blockers);
        let path = format!("/v1/plans/{}/apply", plan.id);
        let answer = cluster.send(1, Method::POST, &path, Some(json!({}))).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{action}");
    }
    assert_eq!(voting(&cluster, 2).await, voters(1..=3));
    let audit: Page<AuditEntry> = cluster.get(2, "/v1/audit").await.expect("the audit");
    let blocked =
        |entry: &&AuditEntry| entry.refused.as_ref().is_some_and(|refusal| refusal.code == Code::PlanBlocked);
    assert_eq!(audit.items.iter().filter(blocked).count(), 3, "refusals are audited: {audit:?}");
}

/// The runner is killed at some moment of the change, at any step: there is an outcome,
/// all agree on who votes, and the cluster takes writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_voters_outlives_its_runner() {
    let mut cluster = Cluster::start(5).await;
    for round in 0..4u64 {
        let leader = cluster.leader().await;
        let at = leader % 5 + 1;
        let five = voting(&cluster, at).await.len() == 5;
        // The leader stays, or has to hand over, in turns.
        let keep: Vec<u64> = (1..=5).filter(|id| round % 2 == 0 || *id != leader).take(3).collect();
        let target = if five { voters(keep) } else { voters(1..=5) };
        let action = Action::ChangeVoters { voters: target.clone() };
        let started = eventually("the change to start", SOON, async || {
            let plan = cluster.plan(at, &action).await?;
            match plan.blockers.first() {
                Some(blocker) => Err(blocker.detail.clone()),
                None => cluster.apply(at, &plan).await,
            }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        cluster.node_mut(leader).kill();
        let operation = cluster.outcome(at, &started).await;
        println!("killed after {} ms: {:?}", round * 7, operation.status);
        cluster.put_setting(at, "round", json!(round)).await.expect("the cluster takes writes");
        cluster.node_mut(leader).start();
        cluster.wait_status(at, leader, NodeStatus::Up).await;
        if operation.status == OperationStatus::Succeeded {
            assert_eq!(voting(&cluster, at).await, target);
        } else {
            assert!(operation.error.is_some(), "{operation:#?}");
            // An unfinished change can be finished by asking again.
            carry_out(&cluster, at, &action).await;
            assert_eq!(voting(&cluster, at).await, target);
        }
    }
    eventually("every node to know its part", SOON, async || {
        let body = cluster.cluster(1).await?;
        let wrong = body.nodes.iter().find(|info| {
            let votes = matches!(info.role, Some(Role::Leader | Role::Follower));
            info.node.voter != votes
        });
        wrong.map_or(Ok(()), |info| Err(format!("{info:?}")))
    })
    .await;
}
