//! What an operator may ask for. Every action goes through a plan.

use crate::{
    id::{GroupId, NodeId, OperationId, Token},
    traffic::upstream::EndpointState,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeSet, fmt};

/// A request for a change, as it is put into a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Hands the leadership of a Raft group to another of its voters.
    TransferLeadership {
        #[serde(default)]
        group: GroupId,
        to: NodeId,
    },
    /// Makes a running process a member: first a learner, and once it has caught up a voter.
    AddNode { node: NewNode },
    /// Changes who votes in the cluster group. Who no longer votes goes on as a learner.
    ChangeVoters { voters: BTreeSet<NodeId> },
    /// Takes a node out of the cluster for good. Where it voted, a learner takes its place if one can.
    RemoveNode { node: NodeId },
    /// Has others do what a node does, so that it can be stopped without anybody noticing.
    DrainNode { node: NodeId },
    /// Ends a drain.
    ActivateNode { node: NodeId },
    /// Takes a lock away from whoever holds it, or from the one holder with this token.
    ReleaseLock {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Token>,
    },
    /// Says what an endpoint of an upstream gets: requests, nothing new, or nothing at all.
    SetEndpointState { upstream: String, endpoint: String, state: EndpointState },
    /// Has another endpoint of an active-standby upstream be the primary: this one, or the first that can.
    FailOverUpstream {
        upstream: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// Takes back what a finished operation did.
    Undo { operation: OperationId },
}

/// A process that asks to become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    pub id: NodeId,
    pub name: String,
    pub zone: String,
    pub weight: u32,
    /// Where it takes HTTP requests, as `host:port`.
    pub api_addr: String,
    /// Where it takes peer connections, as `host:port`.
    pub peer_addr: String,
    /// The address of its dashboard, as browsers reach it.
    pub public_url: String,
}

impl Action {
    /// The names that the `type` field takes.
    pub const TYPES: &[&str] = &[
        "transfer_leadership",
        "add_node",
        "change_voters",
        "remove_node",
        "drain_node",
        "activate_node",
        "release_lock",
        "set_endpoint_state",
        "fail_over_upstream",
        "undo",
    ];

    /// The value of the `type` field.
    pub fn type_name(&self) -> &'static str {
        match self {
            Action::TransferLeadership { .. } => "transfer_leadership",
            Action::AddNode { .. } => "add_node",
            Action::ChangeVoters { .. } => "change_voters",
            Action::RemoveNode { .. } => "remove_node",
            Action::DrainNode { .. } => "drain_node",
            Action::ActivateNode { .. } => "activate_node",
            Action::ReleaseLock { .. } => "release_lock",
            Action::SetEndpointState { .. } => "set_endpoint_state",
            Action::FailOverUpstream { .. } => "fail_over_upstream",
            Action::Undo { .. } => "undo",
        }
    }

    /// What follows `ringmaster apply` or `ringmaster plan` on a command line.
    pub fn cli_arguments(&self) -> String {
        match self {
            Action::TransferLeadership { group, to } => {
                format!("transfer_leadership --group {group} --to {to}")
            }
            Action::AddNode { node } => format!(
                "add_node --id {} --name {} --zone {} --weight {} --api-addr {} --peer-addr {} --public-url {}",
                node.id, node.name, node.zone, node.weight, node.api_addr, node.peer_addr, node.public_url
            ),
            Action::ChangeVoters { voters } => {
                format!("change_voters --voters {}", listed(voters, ","))
            }
            Action::RemoveNode { node } => format!("remove_node --node {node}"),
            Action::DrainNode { node } => format!("drain_node --node {node}"),
            Action::ActivateNode { node } => format!("activate_node --node {node}"),
            Action::ReleaseLock { name, token: None } => format!("release_lock --name {}", quoted(name)),
            Action::ReleaseLock { name, token: Some(token) } => {
                format!("release_lock --name {} --token {token}", quoted(name))
            }
            Action::SetEndpointState { upstream, endpoint, state } => format!(
                "set_endpoint_state --upstream {upstream} --endpoint {endpoint} --state {}",
                state.as_str()
            ),
            Action::FailOverUpstream { upstream, to: None } => {
                format!("fail_over_upstream --upstream {upstream}")
            }
            Action::FailOverUpstream { upstream, to: Some(to) } => {
                format!("fail_over_upstream --upstream {upstream} --to {to}")
            }
            Action::Undo { operation } => format!("undo --operation {operation}"),
        }
    }
}

/// In a few words, for lists and the audit.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::TransferLeadership { group: GroupId::CLUSTER, to } => {
                write!(f, "hand the cluster group to node {to}")
            }
            Action::TransferLeadership { group, to } => write!(f, "hand group {group} to node {to}"),
            Action::AddNode { node } => write!(f, "add node {} ({})", node.id, node.name),
            Action::ChangeVoters { voters } => write!(f, "have nodes {} vote", listed(voters, ", ")),
            Action::RemoveNode { node } => write!(f, "remove node {node}"),
            Action::DrainNode { node } => write!(f, "drain node {node}"),
            Action::ActivateNode { node } => write!(f, "activate node {node}"),
            Action::ReleaseLock { name, token: None } => write!(f, "release lock {name}"),
            Action::ReleaseLock { name, token: Some(token) } => {
                write!(f, "release lock {name} (token {token})")
            }
            Action::SetEndpointState { upstream, endpoint, state } => {
                write!(f, "set endpoint {endpoint} of {upstream} to {}", state.as_str())
            }
            Action::FailOverUpstream { upstream, to: None } => write!(f, "fail over upstream {upstream}"),
            Action::FailOverUpstream { upstream, to: Some(to) } => {
                write!(f, "fail over upstream {upstream} to {to}")
            }
            Action::Undo { operation } => write!(f, "undo operation {operation}"),
        }
    }
}

/// As a shell takes it. Names hold no NUL, the only thing that cannot be quoted.
fn quoted(name: &str) -> Cow<'_, str> {
    shlex::try_quote(name).unwrap_or(Cow::Borrowed(name))
}

fn listed(nodes: &BTreeSet<NodeId>, separator: &str) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(separator)
}
