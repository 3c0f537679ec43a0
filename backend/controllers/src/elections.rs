//! Each leader's first command tells the history that it was elected.
//!
//! And while it leads, it lets time pass in the log when something is due there.

use crate::{PROPOSAL_DEADLINE, request};
use ringmaster_cluster::command::Command;
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_net::clock;
use std::time::Duration;

/// How long it rests at the most. What makes it leader, or has a new thing be due, is applied and seen
/// at once; this is for the proposal that was not taken.
const IDLE: Duration = Duration::from_secs(1);
/// How long it rests at the least: what is due may have been proposed and not been taken.
const BREATH: Duration = Duration::from_millis(5);

pub async fn run(group: ClusterGroup) {
    let mut applied = group.published().watch();
    loop {
        group.until_leading().await;
        if let Some((term, command)) = what_to_propose(&group) {
            let deadline = clock::now() + PROPOSAL_DEADLINE;
            if let Err(refusal) = group.propose_in(term, request(group.me()), command, deadline).await {
                tracing::debug!(%refusal, "the leader's own proposal was not taken; it looks again");
            }
        }
        let pause = until_due(&group).map_or(IDLE, |left| left.clamp(BREATH, IDLE));
        // A closed channel means that the node is shutting down.
        if let Ok(Err(_)) = tokio::time::timeout(pause, applied.changed()).await {
            return;
        }
    }
}

/// What is to be proposed in which term.
fn what_to_propose(group: &ClusterGroup) -> Option<(u64, Command)> {
    let term = group.leading()?;
    let state = group.state();
    if state.election.as_ref().is_none_or(|election| election.term != term) {
        return Some((term, Command::RecordElection { term, leader: group.me() }));
    }
    (group.cluster_time()? >= state.next_due()?).then_some((term, Command::Tick))
}

/// How long nothing is due yet, for a leader where something will be.
fn until_due(group: &ClusterGroup) -> Option<Duration> {
    let due = group.state().next_due()?;
    Some(Duration::from_millis(due.0.saturating_sub(group.cluster_time()?.0)))
}
