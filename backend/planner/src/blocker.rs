//! The reasons why a plan cannot be applied: each with a stable code, the detail, and how to lift it.

use crate::{
    quorum::Voters,
    words::{GROUP, nodes},
};
use ringmaster_cluster::{membership::MAX_DEPARTED, plans::FactKey};
use ringmaster_common::{
    action::Action,
    cluster::{MAX_NODES, Node, NodeStatus},
    error::{Code, Refusal},
    id::{NodeId, OperationId},
    operation::{Operation, OperationStatus},
    plan,
    traffic::{health::Verdict, upstream::EndpointState},
};
use std::time::Duration;

/// How many entries a node may lack and still be handed leadership. It catches up from there well within the time that
/// the step has.
pub const MAX_TRANSFER_LAG: u64 = 1_000;

#[derive(Clone, Debug, PartialEq)]
pub enum Blocker {
    AlreadyLeader {
        node: NodeId,
    },
    NotAVoter {
        node: NodeId,
    },
    NodeNotUp {
        node: NodeId,
        status: NodeStatus,
        reason: String,
        lifted_by: String,
    },
    NodeSilent {
        node: NodeId,
        silent_for: Duration,
    },
    NodeBehind {
        node: NodeId,
        lag: u64,
    },
    NodeUnobserved {
        node: NodeId,
    },
    NodeLostEntries {
        node: NodeId,
    },
    UnknownNode {
        node: NodeId,
    },
    AlreadyDrained {
        node: NodeId,
        status: NodeStatus,
    },
    NotDrained {
        node: NodeId,
        status: NodeStatus,
    },
    /// Once `node` is stopped, the others are too few.
    QuorumNeedsNode {
        node: NodeId,
        left: usize,
        needed: usize,
        voters: usize,
    },
    NoQuorumBefore {
        voters: Voters,
        alive: usize,
        needed: usize,
    },
    NoQuorumAfter {
        voters: Voters,
        alive: usize,
        needed: usize,
    },
    /// The leader has to hand over, and no other voter can lead.
    NoSuccessor {
        leader: NodeId,
        stays_voter: bool,
    },
    LastVoter,
    VotersUnchanged {
        voters: Voters,
    },
    IdInUse {
        node: NodeId,
        known: String,
    },
    IdDeparted {
        node: NodeId,
    },
    AddressInUse {
        node: NodeId,
        addr: String,
        other: NodeId,
    },
    TooManyNodes {
        node: NodeId,
    },
    TooManyDeparted {
        node: NodeId,
    },
    OperationRunning {
        operation: OperationId,
        action: Action,
        awaits_keep: bool,
    },
    AlreadyInState {
        upstream: String,
        endpoint: String,
        state: EndpointState,
    },
    NoEndpointLeft {
        upstream: String,
        endpoint: String,
        route: String,
        is_primary: bool,
    },
    NotActiveStandby {
        upstream: String,
    },
    AlreadyPrimary {
        upstream: String,
        endpoint: String,
    },
    EndpointNotReady {
        upstream: String,
        endpoint: String,
        state: EndpointState,
    },
    EndpointNotHealthy {
        upstream: String,
        endpoint: String,
        verdict: Verdict,
        detail: Option<String>,
    },
    /// The upstream or its endpoint was not found.
    TrafficRefused {
        upstream: String,
        refusal: Refusal,
    },
}

impl Blocker {
    pub fn operation_running(operation: &Operation) -> Blocker {
        Blocker::OperationRunning {
            operation: operation.id,
            action: operation.action.clone(),
            awaits_keep: operation.status == OperationStatus::AwaitingKeep,
        }
    }

    pub fn node_not_up(node: &Node, lifted_by: impl Into<String>) -> Blocker {
        Blocker::NodeNotUp {
            node: node.id,
            status: node.status,
            reason: node.status_reason.clone(),
            lifted_by: lifted_by.into(),
        }
    }

    /// One stable word.
    pub fn code(&self) -> &str {
        match self {
            Blocker::AlreadyLeader { .. } => "already_leader",
            Blocker::NotAVoter { .. } => "not_a_voter",
            Blocker::NodeNotUp { .. } => "node_not_up",
            Blocker::NodeSilent { .. } => "node_silent",
            Blocker::NodeBehind { .. } => "node_behind",
            Blocker::NodeUnobserved { .. } => "node_unobserved",
            Blocker::NodeLostEntries { .. } => "node_lost_entries",
            Blocker::UnknownNode { .. } => Code::UnknownNode.as_str(),
            Blocker::AlreadyDrained { .. } => "already_drained",
            Blocker::NotDrained { .. } => "not_drained",
            Blocker::QuorumNeedsNode { .. } | Blocker::NoQuorumAfter { .. } => "would_lose_quorum",
            Blocker::NoQuorumBefore { .. } => "no_quorum",
            Blocker::NoSuccessor { .. } => "no_successor",
            Blocker::LastVoter => "last_voter",
            Blocker::VotersUnchanged { .. } => "no_change",
            Blocker::IdInUse { .. } => "id_in_use",
            Blocker::IdDeparted { .. } => "id_departed",
            Blocker::AddressInUse { .. } => "address_in_use",
            Blocker::TooManyNodes { .. } => "too_many_nodes",
            Blocker::TooManyDeparted { .. } => "too_many_departed",
            Blocker::OperationRunning { .. } => Code::OperationRunning.as_str(),
            Blocker::AlreadyInState { .. } => "already_in_state",
            Blocker::NoEndpointLeft { .. } => "no_endpoint_left",
            Blocker::NotActiveStandby { .. } => "not_active_standby",
            Blocker::AlreadyPrimary { .. } => "already_primary",
            Blocker::EndpointNotReady { .. } => "endpoint_not_ready",
            Blocker::EndpointNotHealthy { .. } => "endpoint_not_healthy",
            Blocker::TrafficRefused { refusal, .. } => refusal.code.as_str(),
        }
    }

    /// As clients see it.
    pub fn text(&self) -> plan::Blocker {
        plan::Blocker {
            code: self.code().to_owned(),
            detail: self.detail(),
            subject: self.subject(),
            lifted_by: self.lifted_by(),
        }
    }

    fn detail(&self) -> String {
        match self {
            Blocker::AlreadyLeader { node } => format!("node {node} is the leader already"),
            Blocker::NotAVoter { node } => format!("node {node} is a learner; only a voter can lead"),
            Blocker::NodeNotUp { node, status, reason, .. } => {
                format!("node {node} is {}: {reason}", status.as_str())
            }
            Blocker::NodeSilent { node, silent_for } => {
                format!("node {node} has been silent for {} ms", silent_for.as_millis())
            }
            Blocker::NodeBehind { node, lag } => {
                format!("node {node} lacks {lag} entries, more than {MAX_TRANSFER_LAG}")
            }
            Blocker::NodeUnobserved { node } => {
                format!("the leader has not measured yet how many entries node {node} lacks")
            }
            Blocker::NodeLostEntries { node } => {
                format!("node {node} has lost log entries that it had acknowledged")
            }
            Blocker::UnknownNode { node } => format!("node {node} is no longer a member"),
            Blocker::AlreadyDrained { node, status } => format!("node {node} is already {}", status.as_str()),
            Blocker::NotDrained { node, status } => {
                format!("node {node} is {}, not drained", status.as_str())
            }
            Blocker::QuorumNeedsNode { node, left, needed, voters } => format!(
                "once node {node} is stopped, {left} of {voters} voters would be up and not drained, and writes need \
                 {needed}"
            ),
            Blocker::NoQuorumBefore { voters, alive, needed } => {
                too_few("of today's voters", voters, *alive, *needed)
            }
            Blocker::NoQuorumAfter { voters, alive, needed } => {
                too_few("of the new voters", voters, *alive, *needed)
            }
            Blocker::NoSuccessor { leader, stays_voter: true } => {
                format!("node {leader} leads, and no other voter can lead now")
            }
            Blocker::NoSuccessor { leader, stays_voter: false } => {
                format!("node {leader} leads and would no longer vote, and no remaining voter can lead now")
            }
            Blocker::LastVoter => "it is the last voter; removing it would destroy the cluster".to_owned(),
            Blocker::VotersUnchanged { voters } => {
                let (noun, verb) = if voters.len() == 1 { ("voter", "is") } else { ("voters", "are") };
                format!("the {noun} {verb} already {}", nodes(voters.iter().copied()))
            }
            Blocker::IdInUse { node, known } => format!("node {node} is a member already; {known}"),
            Blocker::IdDeparted { node } => {
                format!("node {node} was a member before, and ids are never reused")
            }
            Blocker::AddressInUse { addr, other, .. } => {
                format!("{addr} is the peer address of node {other}")
            }
            Blocker::TooManyNodes { .. } => format!("a cluster has at most {MAX_NODES} nodes"),
            Blocker::TooManyDeparted { .. } => format!(
                "a cluster remembers at most {MAX_DEPARTED} former nodes, so that none of them rejoins by mistake"
            ),
            Blocker::OperationRunning { operation, action, awaits_keep: true } => {
                format!("operation {operation} waits to be kept ({action})")
            }
            Blocker::OperationRunning { operation, action, awaits_keep: false } => {
                format!("operation {operation} is running ({action})")
            }
            Blocker::AlreadyInState { upstream, endpoint, state } => {
                format!("endpoint {endpoint} of {upstream} is already in state {}", state.as_str())
            }
            Blocker::NoEndpointLeft { upstream, endpoint, route, is_primary: true } => format!(
                "{endpoint} is the primary of {upstream}, the others are standbys, and route {route} leads to it"
            ),
            Blocker::NoEndpointLeft { upstream, route, is_primary: false, .. } => {
                format!("no other endpoint of {upstream} is serving, and route {route} leads to it")
            }
            Blocker::NotActiveStandby { upstream } => {
                format!("{upstream} is not active-standby: all its endpoints serve")
            }
            Blocker::AlreadyPrimary { upstream, endpoint } => {
                format!("{endpoint} is the primary of {upstream} already")
            }
            Blocker::EndpointNotReady { endpoint, state, .. } => {
                format!("{endpoint} is in state {}", state.as_str())
            }
            Blocker::EndpointNotHealthy { endpoint, verdict, detail, .. } => {
                let detail = detail.as_ref().map_or_else(String::new, |detail| format!(": {detail}"));
                format!("the health of {endpoint} is {}{detail}", verdict.as_str())
            }
            Blocker::TrafficRefused { refusal, .. } => refusal.detail.clone(),
        }
    }

    fn lifted_by(&self) -> String {
        match self {
            Blocker::AlreadyLeader { .. } => "choose another node".to_owned(),
            Blocker::NotAVoter { .. } => "make it a voter".to_owned(),
            Blocker::NodeNotUp { lifted_by, .. } => lifted_by.clone(),
            Blocker::NodeSilent { node, .. } => format!("wait until node {node} answers again"),
            Blocker::NodeBehind { node, .. } | Blocker::NodeLostEntries { node } => {
                format!("wait until node {node} has caught up, then plan again")
            }
            Blocker::NodeUnobserved { .. } => "plan again in a moment".to_owned(),
            Blocker::UnknownNode { .. } | Blocker::TrafficRefused { .. } => "plan again".to_owned(),
            Blocker::AlreadyDrained { node, .. } => format!("activate node {node} to end the drain"),
            Blocker::NotDrained { .. } | Blocker::AlreadyInState { .. } => {
                "nothing has to be done".to_owned()
            }
            Blocker::QuorumNeedsNode { .. } => "bring back or activate another voter, or add one".to_owned(),
            Blocker::NoQuorumBefore { .. } | Blocker::NoQuorumAfter { .. } => {
                "bring the nodes that are down back, or choose voters that are up".to_owned()
            }
            Blocker::NoSuccessor { stays_voter: true, .. } => {
                "wait until another voter is up and has caught up".to_owned()
            }
            Blocker::NoSuccessor { stays_voter: false, .. } => {
                "keep a voter that is up and has caught up, or wait until one is".to_owned()
            }
            Blocker::LastVoter => "make another node a voter first".to_owned(),
            Blocker::VotersUnchanged { .. } => "choose other voters".to_owned(),
            Blocker::IdInUse { .. } => "start the node with another id".to_owned(),
            Blocker::IdDeparted { .. } => {
                "start the node with another id and an empty data directory".to_owned()
            }
            Blocker::AddressInUse { .. } => {
                "give the node an address of its own, or remove the other node".to_owned()
            }
            Blocker::TooManyNodes { .. } => "remove a node first".to_owned(),
            Blocker::TooManyDeparted { .. } => "start a new cluster".to_owned(),
            Blocker::OperationRunning { operation, awaits_keep: true, .. } => {
                format!("keep or abort operation {operation}")
            }
            Blocker::OperationRunning { operation, awaits_keep: false, .. } => {
                format!("wait for the outcome of operation {operation}")
            }
            Blocker::NoEndpointLeft { is_primary: true, .. } => {
                "make another endpoint the primary first (fail_over_upstream)".to_owned()
            }
            Blocker::NoEndpointLeft { is_primary: false, .. } => {
                "make another endpoint ready and healthy, or delete the routes that lead here".to_owned()
            }
            Blocker::NotActiveStandby { .. } => {
                "configure active_standby, if only one endpoint may serve; or set endpoints to drain"
                    .to_owned()
            }
            Blocker::AlreadyPrimary { .. } => "name another endpoint".to_owned(),
            Blocker::EndpointNotReady { .. } => "set it to ready first (set_endpoint_state)".to_owned(),
            Blocker::EndpointNotHealthy { .. } => {
                "wait until its checks pass, or name another endpoint".to_owned()
            }
        }
    }

    fn subject(&self) -> String {
        match self {
            Blocker::AlreadyLeader { node }
            | Blocker::NotAVoter { node }
            | Blocker::NodeNotUp { node, .. }
            | Blocker::NodeSilent { node, .. }
            | Blocker::NodeBehind { node, .. }
            | Blocker::NodeUnobserved { node }
            | Blocker::NodeLostEntries { node }
            | Blocker::UnknownNode { node }
            | Blocker::AlreadyDrained { node, .. }
            | Blocker::NotDrained { node, .. }
            | Blocker::QuorumNeedsNode { node, .. }
            | Blocker::NoSuccessor { leader: node, .. }
            | Blocker::IdInUse { node, .. }
            | Blocker::IdDeparted { node }
            | Blocker::AddressInUse { node, .. }
            | Blocker::TooManyNodes { node }
            | Blocker::TooManyDeparted { node } => FactKey::Node(*node).to_string(),
            Blocker::NoQuorumBefore { .. }
            | Blocker::NoQuorumAfter { .. }
            | Blocker::LastVoter
            | Blocker::VotersUnchanged { .. } => GROUP.to_owned(),
            Blocker::OperationRunning { operation, .. } => FactKey::Operation(*operation).to_string(),
            Blocker::AlreadyInState { upstream, .. }
            | Blocker::NoEndpointLeft { upstream, .. }
            | Blocker::NotActiveStandby { upstream }
            | Blocker::AlreadyPrimary { upstream, .. }
            | Blocker::EndpointNotReady { upstream, .. }
            | Blocker::EndpointNotHealthy { upstream, .. }
            | Blocker::TrafficRefused { upstream, .. } => FactKey::Upstream(upstream.clone()).to_string(),
        }
    }
}

fn too_few(which: &str, voters: &Voters, alive: usize, needed: usize) -> String {
    format!(
        "{alive} {which} ({}) {} alive, and {needed} are needed: writes would stop",
        nodes(voters.iter().copied()),
        if alive == 1 { "is" } else { "are" }
    )
}
