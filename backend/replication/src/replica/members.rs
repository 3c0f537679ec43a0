//! The members of a group, and its voters.

use super::{RETRY_PAUSE, Replica};
use openraft::{
    BasicNode, ChangeMembers,
    async_runtime::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use ringmaster_common::id::NodeId;
use std::collections::{BTreeMap, BTreeSet};

impl Replica {
    /// The members that consensus counts, with their peer addresses. They may be ahead of the applied state.
    pub fn members(&self) -> BTreeMap<NodeId, String> {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().map(|(id, node)| (*id, node.addr.clone())).collect()
    }

    pub fn voters(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft().server_metrics();
        metrics.borrow_watched().membership_config.membership().voter_ids().collect()
    }

    /// The sets of voters of each of which a majority is needed. There are two while a change of voters is under way: those
    /// before it and those after it.
    pub fn voter_sets(&self) -> Vec<BTreeSet<NodeId>> {
        let metrics = self.raft().server_metrics();
        metrics.borrow_watched().membership_config.membership().get_joint_config().clone()
    }

    /// Finishes a change of voters that was left halfway. False where there is none.
    pub async fn finish_voter_change(&self) -> Result<bool, String> {
        match self.voter_sets().as_slice() {
            [_, .., after] => self.change_voters(after.clone()).await.map(|()| true),
            _ => Ok(false),
        }
    }

    /// Starts the group with these voters, unless it has ever been started.
    pub async fn initialize(&self, voters: &[(NodeId, String)]) -> Result<(), String> {
        if self.raft().is_initialized().await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        let voters: BTreeMap<_, _> = voters.iter().map(|(id, addr)| (*id, BasicNode::new(addr))).collect();
        self.raft().initialize(voters).await.map_err(|error| error.to_string())
    }

    /// Asks openraft to hand the leadership over. Only the election shows that it did.
    pub async fn transfer(&self, to: NodeId) -> Result<(), String> {
        self.raft().trigger().transfer_leader(to).await.map_err(|error| error.to_string())
    }

    /// Adds a learner, unless the node is a member already.
    pub async fn add_learner(&self, node: NodeId, peer_addr: &str) -> Result<(), String> {
        self.change_members(ChangeMembers::AddNodes([(node, BasicNode::new(peer_addr))].into())).await
    }

    /// Makes a learner a voter, unless it is one already.
    pub async fn promote(&self, node: NodeId) -> Result<(), String> {
        self.change_members(ChangeMembers::AddVoterIds([node].into())).await
    }

    /// Makes exactly these members the voters. A former voter stays as a learner.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), String> {
        self.change_members(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Gives the members these addresses. False where they have them already.
    pub async fn update_addresses(&self, addresses: &BTreeMap<NodeId, String>) -> Result<bool, String> {
        let known = self.members();
        let differs = |(id, addr): &(&NodeId, &String)| known.get(*id).is_some_and(|known| known != *addr);
        let moved: BTreeMap<_, _> =
            addresses.iter().filter(differs).map(|(id, addr)| (*id, BasicNode::new(addr))).collect();
        if moved.is_empty() {
            return Ok(false);
        }
        self.change_members(ChangeMembers::SetNodes(moved)).await.map(|()| true)
    }

    /// Removes a learner, unless it is gone already.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), String> {
        if !self.members().contains_key(&node) {
            return Ok(());
        }
        self.change_members(ChangeMembers::RemoveNodes([node].into())).await
    }

    /// One change is made at a time: this waits for one that is under way, perhaps of a leader before this one. It also
    /// waits where a quorum was silent for a moment. If another node leads by then, that node continues the change. The
    /// caller sets the deadline.
    async fn change_members(&self, change: ChangeMembers<NodeId, BasicNode>) -> Result<(), String> {
        loop {
            match self.raft().change_membership(change.clone(), true).await {
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
}
