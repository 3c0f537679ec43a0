//! Steps that change the members and the voters.
//!
//! Consensus is changed by openraft, one change at a time; the state by a command beside it. Either may have been done
//! by a runner that could not report it, so both are done again, and doing them twice is doing them once.

use super::Execution;
use ringmaster_cluster::command::Command;
use ringmaster_common::{
    action::NewNode,
    error::{Code, Refusal},
    id::NodeId,
};
use std::collections::BTreeSet;

impl Execution<'_> {
    pub(super) async fn add_learner(&self, node: &NewNode) -> Result<String, Refusal> {
        self.propose(Command::AdmitNode { node: node.clone() }).await?;
        self.group.add_learner(node.id, &node.peer_addr).await.map_err(refused)?;
        Ok(format!("node {} is a learner", node.id))
    }

    pub(super) async fn promote_learner(&self, node: NodeId) -> Result<String, Refusal> {
        self.group.promote(node).await.map_err(refused)?;
        Ok(format!("node {node} is a voter"))
    }

    pub(super) async fn change_voters(&self, voters: &BTreeSet<NodeId>) -> Result<String, Refusal> {
        self.group.change_voters(voters.clone()).await.map_err(refused)?;
        Ok(match voters.len() {
            1 => "there is 1 voter".to_owned(),
            count => format!("there are {count} voters"),
        })
    }

    pub(super) async fn remove_member(&self, node: NodeId) -> Result<String, Refusal> {
        self.group.remove_learner(node).await.map_err(refused)?;
        self.propose(Command::DismissNode { node }).await?;
        Ok(format!("node {node} is no longer a member"))
    }
}

fn refused(error: String) -> Refusal {
    Refusal::new(Code::MembershipRefused, error)
}
