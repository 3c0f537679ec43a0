//! Steps that change who is a member and who votes.
//!
//! What consensus holds is changed by openraft, one change at a time; what the state holds, by a
//! command beside it. Either may have been done by a runner that did not live to report it, so both
//! are done again, and doing them twice is doing them once.

use super::out_of_place;
use crate::{PROPOSAL_DEADLINE, request};
use ringmaster_cluster::{
    command::Command,
    operations::RunningStep,
    plans::{Goal, StepKind},
};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::error::{Code, Refusal};
use ringmaster_net::clock;

pub(super) async fn bring_about(
    group: &ClusterGroup,
    term: u64,
    step: &RunningStep,
) -> Result<String, Refusal> {
    let refused = |error: String| Refusal::new(Code::MembershipRefused, error);
    match (step.kind, &step.goal) {
        (StepKind::Join, Goal::AddNode { node, .. }) => {
            propose(group, term, Command::AdmitNode { node: node.clone() }).await?;
            group.add_learner(node.id, &node.peer_addr).await.map_err(refused)?;
            Ok(format!("node {} is a learner", node.id))
        }
        (StepKind::Promote, Goal::AddNode { node, .. }) => {
            group.promote(node.id).await.map_err(refused)?;
            Ok(format!("node {} votes", node.id))
        }
        (
            StepKind::ChangeVoters,
            Goal::ChangeVoters { after, .. } | Goal::RemoveNode { voters: Some((_, after)), .. },
        ) => {
            group.change_voters(after.clone()).await.map_err(refused)?;
            Ok(format!("{} vote", after.len()))
        }
        (StepKind::Leave, Goal::RemoveNode { node, .. }) => {
            group.remove_learner(*node).await.map_err(refused)?;
            propose(group, term, Command::DismissNode { node: *node }).await?;
            Ok(format!("node {node} is no longer a member"))
        }
        _ => Err(out_of_place(step)),
    }
}

async fn propose(group: &ClusterGroup, term: u64, command: Command) -> Result<(), Refusal> {
    group.propose_in(term, request(group.me()), command, clock::now() + PROPOSAL_DEADLINE).await.map(drop)
}
