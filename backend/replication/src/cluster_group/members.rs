//! Who is in the group, and who votes: what openraft changes when an operation's step asks for it.

use super::{ClusterGroup, RETRY_PAUSE};
use openraft::{
    BasicNode, ChangeMembers,
    async_runtime::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use ringmaster_common::id::NodeId;
use std::collections::{BTreeMap, BTreeSet};

impl ClusterGroup {
    /// Everybody to keep a link with: the members that the state tells of, and those that consensus
    /// already counts, which may be more while the state is behind.
    pub fn members(&self) -> Vec<(NodeId, String)> {
        let metrics = self.0.raft.server_metrics().borrow_watched().clone();
        let counted =
            metrics.membership_config.membership().nodes().map(|(id, node)| (*id, node.addr.clone()));
        let state = self.state();
        let told = state.membership.iter().map(|node| (node.id, node.peer_addr.clone()));
        counted.chain(told).collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    /// Starts the group with this node as its only voter, unless it has ever been started.
    pub async fn bootstrap(&self, peer_addr: &str) -> Result<(), String> {
        if self.0.raft.is_initialized().await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        let members = [(self.me(), BasicNode::new(peer_addr))];
        self.0.raft.initialize(BTreeMap::from(members)).await.map_err(|error| error.to_string())
    }

    /// Asks openraft to hand the leadership over. That it did is seen by the election alone.
    pub async fn transfer(&self, to: NodeId) -> Result<(), String> {
        self.0.raft.trigger().transfer_leader(to).await.map_err(|error| error.to_string())
    }

    /// Adds a learner; nothing happens where it is a member already.
    pub async fn add_learner(&self, node: NodeId, peer_addr: &str) -> Result<(), String> {
        self.change_members(ChangeMembers::AddNodes([(node, BasicNode::new(peer_addr))].into())).await
    }

    /// Makes a learner a voter; nothing happens where it is one already.
    pub async fn promote(&self, node: NodeId) -> Result<(), String> {
        self.change_members(ChangeMembers::AddVoterIds([node].into())).await
    }

    /// Has these vote, and nobody else. Who no longer votes goes on as a learner.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), String> {
        self.change_members(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Lets a learner go; nothing happens where it is gone already.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), String> {
        let metrics = self.0.raft.server_metrics().borrow_watched().clone();
        if metrics.membership_config.membership().get_node(&node).is_none() {
            return Ok(());
        }
        self.change_members(ChangeMembers::RemoveNodes([node].into())).await
    }

    /// One change of members is made at a time: one that is under way, perhaps by a leader before
    /// this one, is waited for. So is leading again, where a quorum was silent for a moment; if another
    /// node leads by then, it goes on with this itself. The caller says for how long.
    async fn change_members(&self, change: ChangeMembers<NodeId, BasicNode>) -> Result<(), String> {
        loop {
            match self.0.raft.change_membership(change.clone(), true).await {
                Ok(_) => return Ok(()),
                Err(RaftError::APIError(
                    ClientWriteError::ForwardToLeader(_)
                    | ClientWriteError::ChangeMembershipError(
                        ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                    ),
                )) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Whether this node may stand for election.
    pub fn stand(&self, may: bool) {
        self.0.raft.runtime_config().elect(may);
    }
}
