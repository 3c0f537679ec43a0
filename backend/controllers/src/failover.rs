//! Failing over without being asked: where the countdown of an active-standby upstream has run out.
//!
//! The countdown is in the state, so a new leader goes on with it. At its end the leader does what an operator would: it
//! plans, and applies the plan if nothing forbids it. What did not succeed is tried again after a pause.

use crate::{PROPOSAL_DEADLINE, REST, request};
use ringmaster_cluster::{
    command::{Command, Outcome},
    planner,
};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{action::Action, error::Refusal};
use ringmaster_net::clock;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How often the leader looks while a countdown runs. It looks when something was applied, too, four times as often
/// at the most.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// After a try that did not succeed, it waits this long before the next.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

pub async fn run(group: ClusterGroup) {
    let mut applied = group.published().watch_control();
    let mut tried = BTreeMap::<String, Instant>::new();
    loop {
        let term = group.until_leading().await;
        let state = group.state();
        if let Some(now) = group.cluster_time() {
            let due: Vec<_> = state.upstreams.due_to_fail_over(now).map(|due| due.name.clone()).collect();
            tried.retain(|name, at| {
                due.contains(name) && clock::now().saturating_duration_since(*at) < TRY_AGAIN_AFTER
            });
            // One operation runs at a time; the others' turn comes after it.
            if state.operations.current().is_none()
                && let Some(name) = due.into_iter().find(|name| !tried.contains_key(name))
            {
                match fail_over(&group, term, name.clone()).await {
                    Ok(true) => drop(tried.insert(name, clock::now())),
                    // Something forbids it as yet; the plan would say what.
                    Ok(false) => {}
                    Err(refusal) => {
                        tracing::info!(upstream = name, %refusal, "the leader's own failover was not started");
                        tried.insert(name, clock::now());
                    }
                }
            }
        }
        // A countdown that begins is applied first.
        let pause = if state.upstreams.counts_down() { LOOK_EVERY } else { REST };
        match tokio::time::timeout(pause, applied.changed()).await {
            Ok(Err(_)) => return,
            // What is applied comes in bursts; a look costs little, and still one in so long is enough.
            Ok(Ok(())) => tokio::time::sleep(LOOK_EVERY / 4).await,
            Err(_) => {}
        }
    }
}

/// Whether it was started; not where something forbids it.
async fn fail_over(group: &ClusterGroup, term: u64, upstream: String) -> Result<bool, Refusal> {
    let action = Action::FailOverUpstream { upstream, to: None };
    let draft = planner::plan(&group.state(), &group.observations(), action)?;
    if !draft.blockers.is_empty() {
        return Ok(false);
    }
    let propose = async |command| {
        group.propose_in(term, request(group.me()), command, clock::now() + PROPOSAL_DEADLINE).await
    };
    let planned = propose(Command::CreatePlan { draft: Box::new(draft) }).await?;
    if let Outcome::Plan(plan) = planned.outcome {
        propose(Command::StartOperation { plan: plan.id, keep_within_ms: None }).await?;
    }
    Ok(true)
}
