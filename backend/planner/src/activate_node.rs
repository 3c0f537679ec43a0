//! Ending a drain.

use crate::{
    blocker::Blocker,
    draft::{ENTRY_WITHIN, draft, find, step, texts_of_blockers},
};
use ringmaster_cluster::{
    State,
    observations::Observations,
    plans::{Draft, DraftStep, FactKey},
    steps::StepSpec,
};
use ringmaster_common::{action::Action, cluster::NodeStatus, error::Refusal, id::NodeId, plan::Scope};

pub fn plan(
    state: &State,
    observations: &Observations,
    action: Action,
    id: NodeId,
    revert: Vec<DraftStep>,
) -> Result<Draft, Refusal> {
    let node = find(state, id)?;
    let mut blockers = Vec::new();
    if !matches!(node.status, NodeStatus::Draining | NodeStatus::Drained) {
        blockers.push(Blocker::NotDrained { node: id, status: node.status });
    }
    Ok(Draft {
        steps: steps(id),
        revert: Some(revert),
        undo: Some(Action::DrainNode { node: id }),
        summary: format!("Node {id} ({}) may become leader again.", node.name),
        blockers: texts_of_blockers(&blockers),
        ..draft(state, observations, action, Scope::Cluster, [FactKey::Node(id)])
    })
}

pub fn steps(node: NodeId) -> Vec<DraftStep> {
    vec![step(StepSpec::ActivateNode { node }, format!("Mark node {node} as active"), ENTRY_WITHIN)]
}
