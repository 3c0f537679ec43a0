//! Each leader's first command tells the history that it was elected.
//!
//! And while it leads, it lets time pass in the log when something is due there.

use crate::{
    clock,
    controllers::{PROPOSAL_DEADLINE, request},
    raft::cluster_group::ClusterGroup,
    state::command::Command,
};
use std::time::Duration;

/// How often the leader looks whether something is due, while an operation is under way.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it looks otherwise. What makes it leader, or begins an operation, is applied and seen at
/// once; this is for the proposal that was not taken.
const IDLE: Duration = Duration::from_secs(1);

pub async fn run(group: ClusterGroup) {
    let mut applied = group.published().watch();
    loop {
        if let Some((term, command)) = what_to_propose(&group) {
            let deadline = clock::now() + PROPOSAL_DEADLINE;
            if let Err(refusal) = group.propose_in(term, request(group.me()), command, deadline).await {
                tracing::debug!(%refusal, "the leader's own proposal was not taken; it looks again");
            }
        }
        let pause = if group.state().operations.current().is_some() { LOOK_EVERY } else { IDLE };
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
    let due = state.operations.current()?.due?;
    (group.cluster_time()? >= due).then_some((term, Command::Tick))
}
