//! Fast elections: a follower campaigns as soon as the lease of a leader is over whose connection was lost.
//!
//! Silence has many reasons, and all followers notice it at once: so openraft waits for a random time after the lease.
//! The end of a connection says more, and at once, because the kernel reports it when a process dies. A node that sees
//! it asks for a pre-vote when the lease is over.
//!
//! It is a hint and nothing else: every node that still has a lease from the leader refuses the pre-vote, this node
//! first of all. So a leader that lives, and has lost a connection, is not disturbed, and no lease ends early. The
//! ordinary time-outs find what the hint misses.
//!
//! All followers see it, and would split the vote if they campaigned at the same moment. So they take turns, in the
//! order of their ids, beginning elsewhere for each group: the groups of a dead leader go to different nodes. A node
//! that the application does not let lead (one that is being drained) takes no turn.

use crate::{replica::Replica, types::TypeConfig};
use openraft::{Instant, RaftState, errors::Fatal};
use ringmaster_common::id::{GroupId, NodeId};
use ringmaster_net::clock;
use ringmaster_peer::LinkChange;
use std::time::Duration;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::sleep,
};

/// How long an election takes, unless a disk is very slow: the next in turn waits for it.
const TURN: Duration = Duration::from_millis(50);
/// The pause before a pre-vote is asked for again: other nodes may have a lease that ends a little later.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Watches the links of this node, until there are none any more. A lease lasts for `lease`.
pub async fn run(replica: Replica, mut links: broadcast::Receiver<LinkChange>, lease: Duration) {
    loop {
        match links.recv().await {
            Ok(LinkChange { peer, connected: false }) if replica.leader() == Some(peer) => {
                if campaign(&replica, peer, lease).await.is_err() {
                    return;
                }
            }
            // A change that was missed is a hint that was missed.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Asks until a node is voted for, or the turn is over. Fails if Raft has stopped.
async fn campaign(replica: &Replica, lost: NodeId, lease: Duration) -> Result<(), Fatal<TypeConfig>> {
    let successors = replica.voters().into_iter().filter(|voter| *voter != lost && replica.may_lead(*voter));
    let Some(turn) = turn(successors.collect(), replica.node(), replica.group()) else { return Ok(()) };

    // How long ago the leader was heard. Raft answers when it has done what was asked before.
    let raft = replica.raft();
    let last_vote = async || {
        let vote = |state: &RaftState<TypeConfig>| (*state.vote_ref(), state.vote_last_modified());
        raft.with_raft_state(vote).await.map(|(vote, heard)| (vote, heard.map(|heard| heard.elapsed())))
    };
    let until = clock::now() + lease + (turn + 1) * TURN;
    let (lost_vote, _) = last_vote().await?;
    loop {
        let (vote, silence) = last_vote().await?;
        if vote != lost_vote || clock::now() >= until {
            return Ok(());
        }
        let wait = lease + turn * TURN;
        match silence.and_then(|silence| wait.checked_sub(silence)) {
            // A lease is over when its last instant is.
            Some(remaining) => sleep(remaining + Duration::from_millis(1)).await,
            None => {
                raft.trigger().elect(true).await?;
                sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

/// When it is a node's turn among the successors, which are in the order of their ids.
fn turn(successors: Vec<NodeId>, node: NodeId, group: GroupId) -> Option<u32> {
    let position = successors.iter().position(|successor| *successor == node)? as u64;
    let count = successors.len() as u64;
    let turn = (position + count - group.0 % count) % count;
    Some(u32::try_from(turn).expect("a group has few voters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_successor_has_a_turn_of_its_own_and_groups_begin_elsewhere() {
        let successors = [2, 3, 5].map(NodeId);
        let turns = |group| successors.map(|node| turn(successors.to_vec(), node, GroupId(group)));
        assert_eq!(turns(0), [Some(0), Some(1), Some(2)]);
        assert_eq!(turns(1), [Some(2), Some(0), Some(1)]);
        assert_eq!(turns(5), [Some(1), Some(2), Some(0)]);
        assert_eq!(turn(successors.to_vec(), NodeId(7), GroupId(1)), None);
    }
}
