//! Leadership moves through the one door, under load.

use reqwest::{Method, StatusCode};
use ringmaster_common::{
    action::Action,
    cluster::NodeStatus,
    id::{GroupId, NodeId, OperationId},
    operation::{Operation, OperationStatus, StepStatus},
};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Program, parse, problem},
    eventually,
    network::{self, Network},
    stream::agreement,
    writers::Writers,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn transfer(to: u64) -> Action {
    Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(to) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_moves_leadership_and_undo_moves_it_back() {
    let cluster = Cluster::start(3).await;
    let from = cluster.leader().await;
    let to = from % 3 + 1;
    let other = 6 - from - to;
    let writers = Writers::start(&cluster, 2);

    // Any node takes the request.
    let plan = eventually("a plan without blockers", SOON, async || {
        let plan = cluster.plan(other, &transfer(to)).await?;
        if plan.blockers.is_empty() { Ok(plan) } else { Err(format!("{:?}", plan.blockers)) }
    })
    .await;
    assert!(plan.undoable && plan.operation.is_none());
    assert_eq!(plan.impact.leader_after, Some(NodeId(to)));
    assert_eq!(plan.impact.failures_tolerated_before, 1);
    let facts: Vec<_> = plan.footprint.iter().map(|fact| fact.fact.as_str()).collect();
    assert_eq!(facts, ["leadership", "membership", &format!("node/{to}")]);

    let started = cluster.apply(other, &plan).await.expect("the plan is fresh");
    let operation = cluster.outcome(other, &started).await;
    assert_eq!(operation.status, OperationStatus::Succeeded, "{operation:?}");
    assert!(operation.steps.iter().all(|step| step.status == StepStatus::Succeeded), "{operation:?}");
    assert_eq!(cluster.leader().await, to);
    let gap = writers.stop().await.longest_gap;
    println!("the longest gap between two acknowledged writes was {gap:?}");
    assert!(gap < Duration::from_secs(2), "writes paused for {gap:?}");

    // Applied again, the plan answers with the same operation, and starts nothing.
    let again = cluster
        .send(from, Method::POST, &format!("/v1/plans/{}/apply", plan.id), Some(json!({})))
        .await
        .expect("any node answers");
    assert_eq!(again.status(), StatusCode::OK);
    let again: Operation = parse(again).await.expect("an operation");
    assert_eq!(again.id, operation.id);

    let undo =
        cluster.plan(other, &Action::Undo { operation: operation.id }).await.expect("it can be undone");
    let started = cluster.apply(other, &undo).await.expect("the plan is fresh");
    let undone = cluster.outcome(other, &started).await;
    assert_eq!(undone.status, OperationStatus::Succeeded, "{undone:?}");
    assert_eq!(cluster.leader().await, from);
    let first: Operation =
        cluster.get(to, &format!("/v1/operations/{}", operation.id)).await.expect("it is kept");
    assert_eq!(first.undone_by, Some(undone.id));

    let audit: Value = cluster.get(from, "/v1/audit?limit=1000").await.expect("the audit is listed");
    let applied = format!("apply plan {}", plan.id);
    let entries = audit["items"].as_array().expect("a list");
    assert_eq!(entries.iter().filter(|entry| entry["request"] == applied.as_str()).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_reverts_automatically_unless_it_is_kept() {
    let cluster = Cluster::start(3).await;
    let from = cluster.leader().await;
    let to = from % 3 + 1;
    for keep in [false, true] {
        let plan = cluster.plan(from, &transfer(to)).await.expect("a plan");
        let path = format!("/v1/plans/{}/apply", plan.id);
        let body = json!({ "keep_within_ms": 1500 });
        let started: Operation =
            parse(cluster.send(from, Method::POST, &path, Some(body)).await.expect("an answer"))
                .await
                .expect("it is applied");
        let waiting = cluster.outcome(from, &started).await;
        assert_eq!(waiting.status, OperationStatus::AwaitingKeep, "{waiting:?}");
        assert!(waiting.keep_until.is_some());
        assert_eq!(cluster.leader().await, to);
        if keep {
            let path = format!("/v1/operations/{}/keep", started.id);
            parse::<Operation>(cluster.send(from, Method::POST, &path, None).await.expect("an answer"))
                .await
                .expect("it is kept in time");
        }
        let expected = if keep { OperationStatus::Succeeded } else { OperationStatus::Reverted };
        eventually("the operation to end", SOON, async || {
            let now: Operation = cluster.get(to, &format!("/v1/operations/{}", started.id)).await?;
            if now.status == expected { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        assert_eq!(cluster.leader().await, if keep { to } else { from });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_plan_is_refused_and_names_what_changed() {
    let cluster = Cluster::start(3).await;
    let from = cluster.leader().await;
    let (second, third) = (from % 3 + 1, (from + 1) % 3 + 1);
    let old = cluster.plan(from, &transfer(second)).await.expect("a plan");
    let new = cluster.plan(from, &transfer(third)).await.expect("a plan");
    let started = cluster.apply(from, &new).await.expect("the plan is fresh");
    assert_eq!(cluster.outcome(from, &started).await.status, OperationStatus::Succeeded);

    let path = format!("/v1/plans/{}/apply", old.id);
    let refused =
        problem(cluster.send(second, Method::POST, &path, Some(json!({}))).await.expect("an answer")).await;
    assert_eq!((refused.status, refused.code.as_str()), (409, "plan_stale"), "{refused:?}");
    let facts: Vec<_> = refused.facts.iter().map(|fact| fact.fact.as_str()).collect();
    assert_eq!(facts, ["leadership"]);
    assert_eq!(cluster.leader().await, third, "a refused plan does nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_target_is_refused_before_anything_happens() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let dead = leader % 3 + 1;
    let fresh = cluster.plan(leader, &transfer(dead)).await.expect("a plan");
    cluster.node_mut(dead).kill();
    cluster.wait_status(leader, dead, NodeStatus::Down).await;

    let plan = cluster.plan(leader, &transfer(dead)).await.expect("a plan with blockers is a plan");
    let codes: Vec<_> = plan.blockers.iter().map(|blocker| blocker.code.as_str()).collect();
    assert!(codes.contains(&"node_not_up"), "{codes:?}");
    assert!(plan.blockers.iter().all(|blocker| !blocker.lifted_by.is_empty()));
    for (plan, code) in [(plan, "plan_blocked"), (fresh, "plan_stale")] {
        let path = format!("/v1/plans/{}/apply", plan.id);
        let refused =
            problem(cluster.send(leader, Method::POST, &path, None).await.expect("an answer")).await;
        assert_eq!(refused.code, code, "{refused:?}");
    }
    assert_eq!(cluster.leader().await, leader);
    cluster.put_setting(leader, "still", json!("here")).await.expect("the leader still takes writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_pauses_in_mid_transfer_fails_it_visibly() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let target = leader % 3 + 1;
    let plan = cluster.plan(leader, &transfer(target)).await.expect("a plan");
    cluster.node_mut(target).pause();
    // Applied before anybody notices the silence.
    let started = cluster.apply(leader, &plan).await.expect("the plan is fresh");
    let witness = 6 - leader - target;
    let operation = cluster.outcome(witness, &started).await;
    assert_eq!(operation.status, OperationStatus::Failed, "{operation:?}");
    assert!(operation.error.is_some());
    eventually("a leader that takes writes", SOON, async || {
        cluster.put_setting(witness, "after", json!(OperationId(1))).await.map(drop)
    })
    .await;
    cluster.node_mut(target).resume();
    cluster.leader().await;
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    /// For longer than a lease, and shorter than a step may take.
    Pause,
    /// Its messages are lost, for as long; it receives those of the others.
    Mute,
}

/// The target or the runner dies or stops for a while, a few milliseconds into the operation and so at
/// any of its steps: there is always an outcome within the deadline of a step, and a leader that
/// takes writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_with_any_fault_has_an_outcome_and_a_leader() {
    let faults = [(Fault::Kill, true), (Fault::Pause, true), (Fault::Kill, false), (Fault::Pause, false)];
    println!("{}", strike_in_transfers(Cluster::start(3).await, None, &faults, 16).await);
}

/// The same, with the target or the runner cut off one way.
#[test]
fn a_transfer_with_a_one_way_cut_has_an_outcome_and_a_leader() {
    if network::enter_for("who_is_cut_off_one_way_in_a_transfer_leaves_an_outcome_and_a_leader") {
        return;
    }
    // Threads inherit the namespace: there are none before it is entered.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let network = Network::create(3).expect("there are namespaces");
        let cluster = Cluster::start_on(Program::default(), &network.hosts()).await;
        let faults = [(Fault::Mute, true), (Fault::Mute, false)];
        println!("{}", strike_in_transfers(cluster, Some(&network), &faults, 8).await);
    });
}

/// Has these befall the target (true) or the runner (false) of one transfer after the other, later each time.
/// Tells what came of each.
async fn strike_in_transfers(
    mut cluster: Cluster,
    network: Option<&Network>,
    faults: &[(Fault, bool)],
    rounds: usize,
) -> String {
    const PAUSE: Duration = Duration::from_millis(1_200);
    const OUTCOME_WITHIN: Duration = Duration::from_secs(8);
    let load = Writers::start(&cluster, 2);
    let mut outcomes = String::new();
    for (round, (fault, hits_target)) in faults.iter().copied().cycle().take(rounds).enumerate() {
        let runner = cluster.leader().await;
        let target = runner % 3 + 1;
        let observer = 6 - runner - target;
        let victim = if hits_target { target } else { runner };
        let started = eventually("a transfer to start", SOON, async || {
            let plan = cluster.plan(observer, &transfer(target)).await?;
            match plan.blockers.first() {
                Some(blocker) => Err(blocker.detail.clone()),
                None => cluster.apply(observer, &plan).await,
            }
        })
        .await;
        let applied = Instant::now();
        tokio::time::sleep(Duration::from_millis((round / faults.len() * 4) as u64)).await;
        match fault {
            Fault::Kill => cluster.node_mut(victim).kill(),
            Fault::Pause => cluster.node_mut(victim).pause(),
            Fault::Mute => network.expect("it is muted in a network").mute(victim).expect("it can be"),
        }
        let path = format!("/v1/operations/{}?consistency=stale", started.id);
        let operation = eventually("an outcome", OUTCOME_WITHIN, async || {
            let now: Operation = cluster.get(observer, &path).await?;
            if now.status.is_final() { Ok(now) } else { Err(format!("{now:?}")) }
        })
        .await;
        let failed = operation.steps.iter().find(|step| step.status == StepStatus::Failed);
        let victim_is = if hits_target { "target" } else { "runner" };
        let step = failed.map_or("", |step| &step.name);
        let (status, after) = (operation.status.as_str(), applied.elapsed());
        outcomes += &format!("{fault:?} of {victim_is} after {after:?}: {status} {step}\n");
        match operation.status {
            OperationStatus::Succeeded => assert!(failed.is_none(), "{operation:#?}"),
            OperationStatus::Failed => assert!(operation.error.is_some(), "{operation:#?}"),
            other => panic!("{other:?} is no outcome of this"),
        }
        eventually("a leader that takes writes", SOON, async || {
            cluster.put_setting(observer, "round", json!(round)).await.map(drop)
        })
        .await;
        match fault {
            Fault::Kill => cluster.node_mut(victim).start(),
            Fault::Pause => {
                tokio::time::sleep(PAUSE.saturating_sub(applied.elapsed())).await;
                cluster.node_mut(victim).resume();
            }
            Fault::Mute => {
                tokio::time::sleep(PAUSE.saturating_sub(applied.elapsed())).await;
                network.expect("it was muted").unmute(victim).expect("it can be");
            }
        }
        cluster.wait_status(observer, victim, NodeStatus::Up).await;
    }
    let record = load.stop().await;
    cluster.leader().await;
    agreement(&cluster).await;
    for id in 1..=3 {
        record.check(&cluster, id).await;
    }
    outcomes
}

/// A target that lags is waited for, and given up within the step's bound, with the leader as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_catch_up_is_given_up() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let target = leader % 3 + 1;
    let plan = eventually("a plan without blockers", SOON, async || {
        let plan = cluster.plan(leader, &transfer(target)).await?;
        plan.blockers.is_empty().then_some(plan).ok_or_else(|| "blocked".to_owned())
    })
    .await;
    // It is heard of until a moment ago, so the preflight passes; but it takes no more entries.
    cluster.node_mut(target).pause();
    cluster.put_setting(leader, "behind", json!(1)).await.expect("two of three are enough");
    let started = cluster.apply(leader, &plan).await.expect("the plan is fresh");
    let operation = cluster.outcome(leader, &started).await;
    assert_eq!(operation.status, OperationStatus::Failed, "{operation:#?}");
    let failed =
        operation.steps.iter().find(|step| step.status == StepStatus::Failed).expect("a step failed");
    assert_eq!(failed.name, "catch_up", "{operation:#?}");
    assert_eq!(cluster.cluster(leader).await.expect("it answers").leader, Some(NodeId(leader)));
    cluster.node_mut(target).resume();
    cluster.wait_status(leader, target, NodeStatus::Up).await;
}
