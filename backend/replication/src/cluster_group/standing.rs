//! What openraft says of this node's part in the group, and what that means to planners.

use super::ClusterGroup;
use crate::types::{LogId, TypeConfig};
use openraft::{Instant as _, RaftState, ServerState, async_runtime::WatchReceiver};
use ringmaster_cluster::planner::{EndpointRates, Observations, PeerObservation};
use ringmaster_common::{
    cluster::{Quorum, Role},
    id::NodeId,
    telemetry::Replication,
};
use ringmaster_peer::LinkState;
use std::{collections::BTreeSet, fmt, sync::OnceLock, time::Duration};

/// What openraft says of this node's part in the group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupStatus {
    pub role: Role,
    pub term: u64,
    pub leader: Option<NodeId>,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    /// For a leader.
    pub replication: Vec<Replication>,
    /// Whether consensus has stopped for good, and why.
    pub failed: Option<String>,
}

/// Reads what proxies send to endpoints, once whoever composes the node has connected it: consensus knows neither
/// proxies nor telemetry.
#[derive(Default)]
pub(super) struct Meter(OnceLock<Box<dyn Fn() -> EndpointRates + Send + Sync>>);

impl Meter {
    fn read(&self) -> EndpointRates {
        self.0.get().map_or_else(EndpointRates::default, |read| read())
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

impl ClusterGroup {
    /// From now on planners know what endpoints get. The first to connect it stays.
    pub fn connect_meter(&self, read: impl Fn() -> EndpointRates + Send + Sync + 'static) {
        let _ = self.0.meter.0.set(Box::new(read));
    }

    /// What the leader measured, for planners and for the first step of an operation.
    pub fn observations(&self) -> Observations {
        let links = self.0.peers.links();
        let peers = self
            .status()
            .replication
            .iter()
            .map(|replication| {
                let silent =
                    links.iter().find(|link| link.peer == replication.node).and_then(|link| link.silent_for);
                let age = silent.unwrap_or(Duration::MAX);
                (replication.node, PeerObservation { lag: Some(replication.lag), age })
            })
            .collect();
        Observations { peers, endpoints: self.0.meter.read(), election_bound: 2 * self.0.lease }
    }

    /// Which voters answer this node now, itself among them.
    pub fn quorum(&self) -> Quorum {
        let (state, links) = (self.state(), self.0.peers.links());
        let answers = |voter: &NodeId| {
            *voter == self.me() || links.iter().any(|link| link.peer == *voter && link.connected)
        };
        let voters = &state.membership.voters;
        Quorum::new(voters.len(), voters.iter().filter(|voter| answers(voter)).count())
    }

    /// Which members answer: this node itself, who has a connection to it, and who does not but is known to live by
    /// `heard_elsewhere`, which is asked with how long it has been silent here.
    pub fn answering(&self, heard_elsewhere: impl Fn(Duration, NodeId) -> bool) -> BTreeSet<NodeId> {
        let answers = |link: &LinkState| {
            link.connected || heard_elsewhere(link.silent_for.unwrap_or(Duration::MAX), link.peer)
        };
        let links = self.0.peers.links();
        links.iter().filter(|link| answers(link)).map(|link| link.peer).chain([self.me()]).collect()
    }

    /// How long ago this node last heard of a leader, if it ever did. A leader has heard of itself when a
    /// quorum answered it.
    pub async fn silence_of_leader(&self) -> Option<Duration> {
        let raft = &self.0.raft;
        if self.standing().0 == Role::Leader {
            let acked = raft.data_metrics().borrow_watched().last_quorum_acked?.into_inner();
            return Some(acked.elapsed());
        }
        let heard = raft.with_raft_state(|state: &RaftState<TypeConfig>| state.vote_last_modified()).await;
        heard.ok().flatten().map(|heard| heard.elapsed())
    }

    /// Waits until consensus has stopped for good, and tells why.
    pub async fn until_failed(&self) -> String {
        let mut standing = self.0.raft.server_metrics();
        // Its end is the end of all news of it.
        while standing.changed().await.is_ok() {}
        self.status().failed.unwrap_or_else(|| "it has stopped".to_owned())
    }

    /// This node's part in the group, at the cost of a glance.
    pub fn standing(&self) -> (Role, u64, Option<NodeId>) {
        let metrics = self.0.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        (role(metrics.state), metrics.vote.leader_id.term, metrics.current_leader)
    }

    pub fn status(&self) -> GroupStatus {
        let metrics = self.0.raft.metrics().borrow_watched().clone();
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
                .filter(|(node, _)| **node != self.me())
                // Of whom this leader has not heard yet, it does not know how far behind they are.
                .filter_map(|(node, matched)| {
                    let matched_index = matched.as_ref()?.index;
                    let lag = last_log_index.saturating_sub(matched_index);
                    Some(Replication { node: *node, matched_index, lag })
                })
                .collect(),
            failed: metrics.running_state.err().map(|error| error.to_string()),
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
