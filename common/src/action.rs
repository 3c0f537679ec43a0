//! Actions: the changes that an operator can request. Every action goes through a plan.

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
    /// Transfers the leadership of a Raft group to another voter.
    TransferLeadership {
        #[serde(default)]
        group: GroupId,
        to: NodeId,
    },
    /// Adds a running process as a learner; it is promoted to voter if there are fewer than three.
    AddNode { node: NewNode },
    /// Changes the voters of the cluster group. Former voters become learners.
    ChangeVoters { voters: BTreeSet<NodeId> },
    /// Removes a node permanently. If it was a voter, a learner replaces it if possible.
    RemoveNode { node: NodeId },
    /// Moves all work away from a node, so that it can be stopped without an interruption.
    DrainNode { node: NodeId },
    /// Ends the drain of a node.
    ActivateNode { node: NodeId },
    /// Releases a lock on behalf of all its holders, or of the holder with this token.
    ReleaseLock {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Token>,
    },
    /// Sets an endpoint's state: ready, drain or maintenance.
    SetEndpointState { upstream: String, endpoint: String, state: EndpointState },
    /// Fails over an active-standby upstream to this endpoint, or to the first ready and healthy standby.
    FailOverUpstream {
        upstream: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// Undoes a finished operation.
    Undo { operation: OperationId },
}

/// A process that is to become a member.
// Generated clients have a `NewNode` of their own, which makes a `Node`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = JoiningNode))]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    pub id: NodeId,
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub name: String,
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub zone: String,
    pub weight: u32,
    /// The address for HTTP requests, `host:port`.
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub api_addr: String,
    /// The address for peer connections, `host:port`.
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub peer_addr: String,
    /// The URL of its dashboard as browsers reach it.
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub public_url: String,
}

impl Action {
    /// The values of the `type` field.
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

    /// The arguments of `ringmaster apply` and `ringmaster plan`.
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

/// A short form for lists and the audit.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::TransferLeadership { group: GroupId::CLUSTER, to } => {
                write!(f, "transfer leadership to node {to}")
            }
            Action::TransferLeadership { group, to } => {
                write!(f, "transfer leadership of group {group} to node {to}")
            }
            Action::AddNode { node } => write!(f, "add node {} ({})", node.id, node.name),
            Action::ChangeVoters { voters } => {
                write!(f, "change the voters to nodes {}", listed(voters, ", "))
            }
            Action::RemoveNode { node } => write!(f, "remove node {node}"),
            Action::DrainNode { node } => write!(f, "drain node {node}"),
            Action::ActivateNode { node } => write!(f, "activate node {node}"),
            Action::ReleaseLock { name, token: None } => write!(f, "force-release lock {name}"),
            Action::ReleaseLock { name, token: Some(token) } => {
                write!(f, "force-release lock {name} (token {token})")
            }
            Action::SetEndpointState { upstream, endpoint, state } => match state {
                EndpointState::Ready => write!(f, "make {endpoint} of {upstream} ready"),
                EndpointState::Drain => write!(f, "drain {endpoint} of {upstream}"),
                EndpointState::Maintenance => {
                    write!(f, "put {endpoint} of {upstream} into maintenance")
                }
            },
            Action::FailOverUpstream { upstream, to: None } => write!(f, "fail over upstream {upstream}"),
            Action::FailOverUpstream { upstream, to: Some(to) } => {
                write!(f, "fail over upstream {upstream} to {to}")
            }
            Action::Undo { operation } => write!(f, "undo operation {operation}"),
        }
    }
}

/// Quotes for a shell. Names contain no NUL, the only character that cannot be quoted.
fn quoted(name: &str) -> Cow<'_, str> {
    shlex::try_quote(name).unwrap_or(Cow::Borrowed(name))
}

fn listed(nodes: &BTreeSet<NodeId>, separator: &str) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(separator)
}
