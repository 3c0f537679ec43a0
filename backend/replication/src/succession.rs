//! Standing for election as soon as the lease of a leader is over whose connection was lost.
//!
//! Silence has many reasons, and all followers notice it at once: so openraft waits for a random time
//! after the lease. The end of a connection says more, and at once, because the kernel tells it when
//! a process dies. Who hears of it asks for a pre-vote when the lease is over.
//!
//! It is a hint and nothing else: a pre-vote is refused by whoever still has a lease from the leader,
//! this node first of all. So a leader that lives, and has lost a connection, is not disturbed, and
//! no lease ends early. What the hint misses, the ordinary time-outs see to.
//!
//! All followers hear of it, and would split the vote if they stood at the same moment. So they take
//! turns, in the order of their ids. Who was ordered to be drained takes none.

use super::{cluster_group::ClusterGroup, types::TypeConfig};
use openraft::{Instant, RaftState, errors::Fatal};
use ringmaster_common::id::NodeId;
use ringmaster_net::clock;
use ringmaster_peer::LinkChange;
use std::time::Duration;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::sleep,
};

/// How long an election takes, unless a disk is very slow: the next in turn waits for it.
const TURN: Duration = Duration::from_millis(50);
/// When a pre-vote is asked for again: others may have a lease that ends a little later.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Watches the links of this node, until there are none any more. A lease lasts for `lease`.
pub async fn run(group: ClusterGroup, mut links: broadcast::Receiver<LinkChange>, lease: Duration) {
    loop {
        match links.recv().await {
            Ok(LinkChange { peer, connected: false }) if group.leader() == Some(peer) => {
                if stand(&group, peer, lease).await.is_err() {
                    return;
                }
            }
            // What was missed is a hint that was missed.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Asks until somebody is voted for, or the turn is over. Fails if Raft has stopped.
async fn stand(group: &ClusterGroup, lost: NodeId, lease: Duration) -> Result<(), Fatal<TypeConfig>> {
    let state = group.state();
    let ordered_away = |id| state.membership.get(id).is_some_and(|node| node.status.is_ordered());
    let mut successors =
        state.membership.voters.iter().filter(|voter| **voter != lost && !ordered_away(**voter));
    let Some(turn) = successors.position(|voter| *voter == group.me()) else { return Ok(()) };
    let turn = u32::try_from(turn).expect("a cluster has few voters");

    // How long ago the leader was heard of. Raft answers when it has done what was asked before.
    let raft = group.raft();
    let standing = async || {
        let standing = |state: &RaftState<TypeConfig>| (*state.vote_ref(), state.vote_last_modified());
        raft.with_raft_state(standing).await.map(|(vote, heard)| (vote, heard.map(|heard| heard.elapsed())))
    };
    let until = clock::now() + lease + (turn + 1) * TURN;
    let (lost_vote, _) = standing().await?;
    loop {
        let (vote, silence) = standing().await?;
        if vote != lost_vote || clock::now() >= until {
            return Ok(());
        }
        let wait = lease + turn * TURN;
        match silence.and_then(|silence| wait.checked_sub(silence)) {
            // A lease is over when its last instant is.
            Some(left) => sleep(left + Duration::from_millis(1)).await,
            None => {
                raft.trigger().elect(true).await?;
                sleep(ASK_AGAIN).await;
            }
        }
    }
}
