//! Finishes changes of voters that were left halfway, and has consensus know the addresses of members that were moved.
//!
//! A change of voters takes two entries: the first makes both the voters before and those after it needed, the second only
//! those after it. A step that runs out of time after the first leaves the group so: it works, and tolerates fewer
//! failures than its voters suggest. The leader finishes the change, unless a step is about to.

use crate::{
    IDLE_INTERVAL, PROPOSAL_DEADLINE,
    reconcile::{self, Controller, Leadership, NextLook},
};
use ringmaster_cluster::State;
use ringmaster_cluster_group::ClusterGroup;
use tokio::time::timeout;

pub async fn run(group: ClusterGroup) {
    let changes = group.published().watch_control();
    reconcile::run(group, changes, VoterChange).await;
}

struct VoterChange;

impl Controller for VoterChange {
    async fn reconcile(&mut self, leadership: &Leadership) -> NextLook {
        if leadership.voter_sets().len() > 1 && !has_step(&leadership.state()) {
            match timeout(PROPOSAL_DEADLINE, leadership.finish_voter_change()).await {
                Ok(Ok(true)) => tracing::info!("a change of voters that was left halfway is finished"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::info!(error, "a change of voters is not finished yet"),
                Err(_) => tracing::info!("a change of voters is not finished yet; the leader tries again"),
            }
        }
        if !has_step(&leadership.state()) {
            match timeout(PROPOSAL_DEADLINE, leadership.update_addresses()).await {
                Ok(Ok(true)) => tracing::info!("consensus knows the members' new addresses"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::info!(error, "consensus does not know the members' new addresses yet")
                }
                Err(_) => tracing::info!(
                    "consensus does not know the members' new addresses yet; the leader tries again"
                ),
            }
        }
        NextLook::within(IDLE_INTERVAL)
    }
}

/// Whether a step changes the voters now.
fn has_step(state: &State) -> bool {
    state.operations.running_steps().any(|step| step.spec.changes_voters())
}
