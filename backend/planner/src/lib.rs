//! Planners: from a request to a plan, by pure computation.
//!
//! A planner reads the replicated state and the leader's measurements, and answers with a draft: the steps, their
//! consequences, the risks, and the reasons why it cannot be done. It changes nothing. The facts of the state that it
//! read become the plan's footprint; the measurements are read again by the operation's first step, by the same rules
//! ([`preflight`]).
//!
//! Each goal has a file: its plan, its preflight, its steps with their titles and bounds, the steps that revert it and
//! the action that undoes it stand side by side.

mod activate_node;
mod add_node;
mod blocker;
mod change_voters;
mod draft;
mod drain_node;
mod fail_over_upstream;
mod quorum;
mod release_lock;
mod remove_node;
mod serving;
mod set_endpoint_state;
#[cfg(test)]
mod tests;
mod transfer_leadership;
mod undo;
mod warning;
mod words;

pub use transfer_leadership::successor;

use blocker::Blocker;
use ringmaster_cluster::{State, observations::Observations, plans::Draft, steps::Check};
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    id::GroupId,
    plan::Blocker as BlockerText,
};

/// The plan for `action`, or why there cannot be one.
pub fn plan(state: &State, observations: &Observations, action: Action) -> Result<Draft, Refusal> {
    let mut draft = draft(state, observations, action)?;
    if let Some(operation) = state.operations.in_scope(&draft.scope) {
        draft.blockers.push(Blocker::operation_running(operation).text());
    }
    Ok(draft)
}

fn draft(state: &State, observations: &Observations, action: Action) -> Result<Draft, Refusal> {
    match action.clone() {
        Action::TransferLeadership { group: GroupId::CLUSTER, to } => {
            transfer_leadership::plan(state, observations, action, to)
        }
        Action::TransferLeadership { group, .. } => Err(Refusal::new(
            Code::UnknownGroup,
            format!("there is no Raft group {group}; group 0 is the cluster group"),
        )),
        Action::AddNode { node } => add_node::plan(state, observations, action, node),
        Action::ChangeVoters { voters } => change_voters::plan(state, observations, action, voters),
        Action::RemoveNode { node } => remove_node::plan(state, observations, action, node),
        Action::DrainNode { node } => drain_node::plan(state, observations, action, node),
        Action::ActivateNode { node } => {
            activate_node::plan(state, observations, action, node, drain_node::steps(state, node))
        }
        Action::ReleaseLock { name, token } => release_lock::plan(state, observations, action, name, token),
        Action::SetEndpointState { upstream, endpoint, state: after } => {
            set_endpoint_state::plan(state, observations, action, upstream, endpoint, after)
        }
        Action::FailOverUpstream { upstream, to } => {
            fail_over_upstream::plan(state, observations, action, upstream, to)
        }
        Action::Undo { operation } => {
            undo::plan(state, operation, action, |undo| draft(state, observations, undo))
        }
    }
}

/// What blocks the plan by what holds now. An operation's first step asks.
pub fn preflight(state: &State, observations: &Observations, check: &Check) -> Vec<BlockerText> {
    let blockers = match check {
        Check::LeadershipTarget { node } => transfer_leadership::preflight(state, observations, *node),
        Check::Quorum { before, after } => change_voters::preflight(state, observations, before, after),
        Check::Drain { node } => drain_node::preflight(state, observations, *node),
        Check::EndpointState { upstream, endpoint, state: after } => {
            set_endpoint_state::preflight(state, upstream, endpoint, *after)
        }
        Check::Failover { upstream, to } => fail_over_upstream::preflight(state, upstream, to),
    };
    blockers.iter().map(Blocker::text).collect()
}
