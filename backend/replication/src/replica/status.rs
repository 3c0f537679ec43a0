//! This node's part in a group, as openraft reports it.

use super::Replica;
use crate::types::{LogId, TypeConfig};
use openraft::{Instant as _, RaftState, ServerState, async_runtime::WatchReceiver};
use ringmaster_common::{
    cluster::{Quorum, Role},
    id::NodeId,
    telemetry::Replication,
};
use std::time::Duration;

/// This node's part in a group, as openraft reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupStatus {
    pub role: Role,
    pub term: u64,
    pub leader: Option<NodeId>,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    /// For a leader: its followers.
    pub replication: Vec<Replication>,
    /// Why consensus has stopped for good, if it has.
    pub failed: Option<String>,
}

impl Replica {
    /// The voters that answer this node, itself among them.
    pub fn quorum(&self) -> Quorum {
        let links = self.peers().links();
        let answers = |voter: NodeId| {
            voter == self.node() || links.iter().any(|link| link.peer == voter && link.connected)
        };
        Quorum::of(&self.voter_sets(), answers)
    }

    /// How long ago this node last heard from a leader, if ever. A leader hears from itself when a quorum answers it.
    pub async fn silence_of_leader(&self) -> Option<Duration> {
        if self.role().0 == Role::Leader {
            let acked = self.raft().data_metrics().borrow_watched().last_quorum_acked?.into_inner();
            return Some(acked.elapsed());
        }
        let heard = |state: &RaftState<TypeConfig>| state.vote_last_modified();
        self.raft().with_raft_state(heard).await.ok().flatten().map(|heard| heard.elapsed())
    }

    /// Waits until consensus has stopped for good, and returns the reason.
    pub async fn until_failed(&self) -> String {
        let mut metrics = self.raft().server_metrics();
        let mut failure = self.failure().subscribe();
        tokio::select! {
            // openraft drops its end of the channel when it stops.
            () = async { while metrics.changed().await.is_ok() {} } => {}
            _ = failure.wait_for(Option::is_some) => {}
        }
        self.status().failed.unwrap_or_else(|| "it has stopped".to_owned())
    }

    /// Role, term and leader: cheaper than [`Self::status`].
    pub fn role(&self) -> (Role, u64, Option<NodeId>) {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        (role(metrics.state), metrics.vote.leader_id.term, metrics.current_leader)
    }

    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
        let last_log_index = metrics.last_log_index.unwrap_or(0);
        GroupStatus {
            role: role(metrics.state),
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log_index,
            committed_index: index(&metrics.local_committed),
            applied_index: index(&metrics.last_applied),
            snapshot_index: index(&metrics.snapshot),
            replication: metrics
                .replication
                .iter()
                .flatten()
                .filter(|(node, _)| **node != self.node())
                // A leader does not know the lag of followers that have not answered it yet.
                .filter_map(|(node, matched)| {
                    let matched_index = matched.as_ref()?.index;
                    let lag = last_log_index.saturating_sub(matched_index);
                    Some(Replication { node: *node, matched_index, lag })
                })
                .collect(),
            failed: self
                .failure()
                .borrow()
                .clone()
                .or_else(|| metrics.running_state.err().map(|error| error.to_string())),
        }
    }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        _ => Role::Follower,
    }
}
