//! Steps as data: the desired state that each step of an operation brings about.
//!
//! A planner writes them, the log carries them, and the leader's runner executes them. A step holds all that its
//! execution needs, so that no choice is left to the moment at which it runs. Executing a step twice is executing it
//! once.

use crate::traffic;
use ringmaster_common::{
    action::NewNode,
    id::{NodeId, Token},
    traffic::upstream::EndpointState,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepSpec {
    /// The planner's blockers are checked again, by what holds when the operation runs.
    Preflight(Check),
    /// These nodes have every entry that the log held when the step began.
    CatchUp { nodes: BTreeSet<NodeId> },
    /// One of `to` leads. Nothing is done where one does. Another leader than `from`, where it is given, upsets it.
    TransferLeadership { from: Option<NodeId>, to: BTreeSet<NodeId> },
    /// The node leads and commits a write.
    VerifyLeader { node: NodeId },
    /// The node is a member, as a learner.
    AddLearner { node: NewNode },
    /// The learner is a voter.
    PromoteLearner { node: NodeId },
    /// These nodes are the voters.
    ChangeVoters { voters: BTreeSet<NodeId> },
    /// The node is a member neither of consensus nor of the state.
    RemoveMember { node: NodeId },
    /// The node is draining.
    DrainNode { node: NodeId },
    /// The node is drained.
    MarkDrained { node: NodeId },
    /// The node is up.
    ActivateNode { node: NodeId },
    /// None of these tokens holds the lock.
    ReleaseLock { name: String, tokens: BTreeSet<Token> },
    /// The endpoint is in this state.
    SetEndpointState { upstream: String, endpoint: String, state: EndpointState },
    /// The upstream has no primary, and the nodes route by that. `to` takes over from `from`.
    ClearPrimary { upstream: String, from: Option<String>, to: String },
    /// The webhook, or the one that is configured by then, has confirmed that the old primary is fenced. Its epoch is
    /// known by then, where it is none here.
    FencePrimary {
        upstream: String,
        from: Option<String>,
        #[serde(default)]
        addr: Option<String>,
        #[serde(default)]
        epoch: Option<u64>,
        #[serde(default)]
        webhook: Option<String>,
    },
    /// The endpoint is the primary, in an epoch of its own.
    SetPrimary { upstream: String, endpoint: String },
    /// The primary is not unhealthy.
    VerifyPrimary { upstream: String, endpoint: String },
}

/// What a preflight step checks again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The node can take over leadership.
    LeadershipTarget { node: NodeId },
    /// Both the voters before and those after have a quorum.
    Quorum { before: BTreeSet<NodeId>, after: BTreeSet<NodeId> },
    /// The others keep a quorum without the node.
    Drain { node: NodeId },
    /// An endpoint keeps serving while this one is in `state`.
    EndpointState { upstream: String, endpoint: String, state: EndpointState },
    /// The endpoint can become the primary.
    Failover { upstream: String, to: String },
}

impl StepSpec {
    /// The step's name, as clients see it.
    pub fn name(&self) -> &'static str {
        match self {
            StepSpec::Preflight(_) => "preflight",
            StepSpec::CatchUp { .. } => "catch_up",
            StepSpec::TransferLeadership { .. } => "transfer_leadership",
            StepSpec::AddLearner { .. } => "add_learner",
            StepSpec::PromoteLearner { .. } | StepSpec::SetPrimary { .. } => "promote",
            StepSpec::ChangeVoters { .. } => "change_voters",
            StepSpec::RemoveMember { .. } => "remove_member",
            StepSpec::DrainNode { .. } | StepSpec::ClearPrimary { .. } => "drain",
            StepSpec::MarkDrained { .. } => "mark_drained",
            StepSpec::ActivateNode { .. } => "activate",
            StepSpec::ReleaseLock { .. } => "release_lock",
            StepSpec::SetEndpointState { .. } => "set_endpoint_state",
            StepSpec::FencePrimary { .. } => "fence",
            StepSpec::VerifyLeader { .. } | StepSpec::VerifyPrimary { .. } => "verify",
        }
    }

    /// Whether the step changes the voters, and finishes that itself.
    pub fn changes_voters(&self) -> bool {
        matches!(self, StepSpec::PromoteLearner { .. } | StepSpec::ChangeVoters { .. })
    }

    /// Whether the step only looks. An operation can be aborted as long as it has begun no other step.
    pub fn only_checks(&self) -> bool {
        matches!(self, StepSpec::Preflight(_) | StepSpec::CatchUp { .. })
    }

    /// The feature level at which all members know the step; 0 where they always did.
    pub fn level(&self) -> u32 {
        match self {
            StepSpec::SetEndpointState { .. }
            | StepSpec::ClearPrimary { .. }
            | StepSpec::FencePrimary { .. }
            | StepSpec::SetPrimary { .. }
            | StepSpec::VerifyPrimary { .. } => traffic::LEVEL,
            _ => 0,
        }
    }

    /// What the step may leave behind where it began and its operation failed, and what to do about it.
    pub fn left_behind(&self) -> Option<String> {
        match self {
            StepSpec::AddLearner { node } => Some(format!(
                "node {0} stays a member and continues to join if it is started; to remove it: ringmaster apply \
                 remove_node --node {0}",
                node.id
            )),
            StepSpec::ChangeVoters { .. } => Some(
                "the change of voters may still take effect; check the voters before you plan again"
                    .to_owned(),
            ),
            StepSpec::FencePrimary { upstream, .. } => Some(format!(
                "the fence may have taken effect, so {upstream} may have no primary; if it has none, fail it over again: \
                 ringmaster apply fail_over_upstream --upstream {upstream}"
            )),
            _ => None,
        }
    }
}
