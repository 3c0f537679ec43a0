//! Automatic failover, once the countdown of an active-standby upstream has run out.
//!
//! The countdown is in the state, so a new leader continues it. At its end the leader does the same as an operator: it
//! makes a plan, and applies it unless it has blockers. A failover that did not succeed is tried again after a pause.

use crate::{
    IDLE_INTERVAL,
    reconcile::{self, Controller, Leadership, NextLook},
};
use ringmaster_cluster::{
    State,
    command::{ClusterTime, Command, Outcome},
};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{action::Action, error::Refusal};
use ringmaster_net::clock;
use ringmaster_planner as planner;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How often the leader looks while a countdown runs.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The shortest time between two looks.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// How long an upstream is left alone after a failover was started, or was refused.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

pub async fn run(group: ClusterGroup) {
    let changes = group.published().watch_control();
    reconcile::run(group, changes, Failover::default()).await;
}

#[derive(Default)]
struct Failover {
    attempts: Attempts,
}

impl Controller for Failover {
    async fn reconcile(&mut self, leadership: &Leadership) -> NextLook {
        let state = leadership.state();
        let due = leadership.cluster_time().map_or_else(Vec::new, |now| due(&state, now));
        for upstream in self.attempts.open(&due, clock::now()) {
            match fail_over(leadership, upstream.clone()).await {
                Ok(true) => self.attempts.record(upstream, clock::now()),
                // A blocker may be gone at the next look.
                Ok(false) => {}
                Err(refusal) => {
                    tracing::info!(upstream, %refusal, "the automatic failover was not started");
                    self.attempts.record(upstream, clock::now());
                }
            }
        }
        // A countdown begins with an entry, so it is seen as a change.
        let interval = if state.upstreams.counts_down() { POLL_INTERVAL } else { IDLE_INTERVAL };
        NextLook::within(interval).not_before(MIN_PAUSE)
    }
}

/// When each upstream was last failed over, or was to be. It holds upstreams that are due, and no others.
#[derive(Default)]
struct Attempts(BTreeMap<String, Instant>);

impl Attempts {
    /// The upstreams among those that are due that were not tried lately.
    fn open(&mut self, due: &[String], now: Instant) -> Vec<String> {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < RETRY_PAUSE;
        self.0.retain(|name, at| due.contains(name) && is_recent(at));
        due.iter().filter(|name| !self.0.contains_key(*name)).cloned().collect()
    }

    fn record(&mut self, upstream: String, now: Instant) {
        self.0.insert(upstream, now);
    }
}

/// The upstreams whose countdown has run out. The plan of one with an unfinished operation is blocked until that ends.
fn due(state: &State, now: ClusterTime) -> Vec<String> {
    state.upstreams.due_to_fail_over(now).map(|due| due.name.clone()).collect()
}

/// Whether it was started; false where the plan has blockers.
async fn fail_over(leadership: &Leadership, upstream: String) -> Result<bool, Refusal> {
    let action = Action::FailOverUpstream { upstream, to: None };
    let draft = planner::plan(&leadership.state(), &leadership.observations(), action)?;
    if !draft.blockers.is_empty() {
        return Ok(false);
    }
    let planned = leadership.propose(Command::CreatePlan { draft: Box::new(draft) }).await?;
    if let Outcome::Plan(plan) = planned.outcome {
        leadership.propose(Command::StartOperation { plan: plan.id, keep_within_ms: None }).await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_is_tried_again_after_a_pause() {
        let (mut attempts, start) = (Attempts::default(), clock::now());
        let (both, one) = (["cache".to_owned(), "db".to_owned()], ["db".to_owned()]);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(attempts.open(&both, at(0)), both);
        attempts.record("cache".to_owned(), at(0));
        assert_eq!(attempts.open(&both, at(9)), one);
        assert_eq!(attempts.open(&both, at(10)), both, "the pause is over");
        attempts.record("cache".to_owned(), at(10));
        // An upstream that was not due in between begins anew.
        assert_eq!(attempts.open(&one, at(11)), one);
        assert_eq!(attempts.open(&both, at(12)), both);
    }
}
