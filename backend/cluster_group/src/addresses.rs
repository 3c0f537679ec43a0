//! Members that were moved to other addresses while no node could learn of it.
//!
//! The operator names their new peer addresses when the nodes are started. That is enough for an election; then each
//! moved node has the cluster know its addresses, and what the operator named has no meaning any more.

use crate::ClusterGroup;
use ringmaster_cluster::command::{Command, NodeAddresses};
use ringmaster_common::{error::Refusal, id::NodeId};
use ringmaster_net::clock;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How long the cluster may take to learn of new addresses before the node tries again.
const PROPOSAL_DEADLINE: Duration = Duration::from_secs(3);

/// What the operator named and the cluster does not know yet.
#[derive(Debug, Default)]
pub(crate) struct MovedMembers(Mutex<BTreeMap<NodeId, String>>);

impl MovedMembers {
    pub(crate) fn new(moved: BTreeMap<NodeId, String>) -> MovedMembers {
        MovedMembers(Mutex::new(moved))
    }

    /// Puts the new addresses into `members`, except for those that the cluster has learnt meanwhile.
    pub(crate) fn replace_in(&self, members: &mut BTreeMap<NodeId, String>) {
        let mut moved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moved.retain(|id, addr| members.get(id) != Some(addr));
        for (id, addr) in moved.iter() {
            if let Some(known) = members.get_mut(id) {
                known.clone_from(addr);
            }
        }
    }
}

impl ClusterGroup {
    /// Has the cluster know this node under these addresses.
    pub async fn announce_addresses(&self, to: NodeAddresses) -> Result<(), Refusal> {
        let command = Command::RelocateNode { node: self.me(), to };
        let deadline = clock::now() + PROPOSAL_DEADLINE;
        self.propose(self.own_request(), command, deadline).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(texts: [&str; 2]) -> BTreeMap<NodeId, String> {
        (1..).map(NodeId).zip(texts.map(str::to_owned)).collect()
    }

    #[test]
    fn an_address_counts_until_the_cluster_knows_it() {
        let moved =
            MovedMembers::new([(NodeId(2), "new".to_owned()), (NodeId(9), "unknown".to_owned())].into());
        let of = |texts| {
            let mut members = members(texts);
            moved.replace_in(&mut members);
            members
        };
        assert_eq!(of(["one", "old"]), members(["one", "new"]), "a stranger is not added");
        assert_eq!(of(["one", "new"]), members(["one", "new"]));
        assert_eq!(of(["one", "newer"]), members(["one", "newer"]), "it was moved again");
    }
}
