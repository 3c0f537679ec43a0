//! Events: the facts that applying a log entry produced.
//!
//! The view is nothing but the fold of these, so an event carries all that the fold needs.

use crate::{
    Timestamp,
    action::Action,
    cluster::{Liveness, Node, NodeStatus},
    error::Refusal,
    id::{Incarnation, NodeId, OperationId, PlanId, Revision},
    operation::{Operation, OperationStatus, Step},
    setting::Setting,
    traffic::{
        health::{EndpointHealth, Verdict},
        route::Route,
        upstream::{Endpoint, EndpointState, Primary, Upstream},
    },
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// All events of one revision, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventBatch {
    pub revision: Revision,
    /// When the leader stamped the entry, by its wall clock.
    pub at: Timestamp,
    /// The requester.
    pub actor: String,
    /// The id of the request that caused the events, as in logs and in the audit.
    pub request_id: String,
    pub events: Vec<Event>,
}

/// A fact. In JSON, `type` names the variant among its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    ClusterCreated {
        name: String,
        id: String,
        incarnation: Incarnation,
        feature_level: u32,
    },
    /// All members support this level.
    FeatureLevelRaised {
        level: u32,
    },
    /// The cluster had lost its quorum, and was recovered from what `node` had on disk. The other former members are
    /// refused from now on.
    ClusterRecovered {
        incarnation: Incarnation,
        node: NodeId,
        /// The last revision that the node had. What the others had acknowledged after it is lost.
        last_revision: Revision,
        former_members: Vec<NodeId>,
    },
    NodeJoined {
        node: Node,
    },
    /// The node is no longer a member, and its id is never reused.
    NodeLeft {
        node: NodeId,
    },
    NodeStatusChanged {
        node: NodeId,
        from: NodeStatus,
        to: NodeStatus,
        reason: String,
    },
    /// The node was started with other addresses.
    NodeMoved {
        node: NodeId,
        api_addr: String,
        peer_addr: String,
        public_url: String,
    },
    OpinionChanged {
        observer: NodeId,
        subject: NodeId,
        sees: Liveness,
    },
    MembershipChanged {
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
    },
    LeaderElected {
        term: u64,
        leader: NodeId,
    },
    SettingChanged {
        setting: Setting,
    },
    /// A setting was deleted. One that Ringmaster knows has its default again.
    SettingRemoved {
        key: String,
    },
    PlanCreated {
        plan: PlanId,
        action: Action,
        blocked: bool,
    },
    OperationStarted {
        operation: Box<Operation>,
    },
    /// The step at position `step` is now this one.
    StepChanged {
        operation: OperationId,
        position: u32,
        step: Step,
    },
    /// Steps were added at the end: those of a revert.
    StepsAdded {
        operation: OperationId,
        steps: Vec<Step>,
    },
    OperationChanged {
        operation: OperationId,
        status: OperationStatus,
        error: Option<Refusal>,
        ended_at: Option<Timestamp>,
        keep_until: Option<Timestamp>,
    },
    OperationUndone {
        operation: OperationId,
        by: OperationId,
    },
    /// An upstream was created or configured.
    UpstreamPut {
        upstream: Box<Upstream>,
    },
    UpstreamRemoved {
        upstream: String,
    },
    /// An endpoint was configured, or registered itself.
    EndpointPut {
        upstream: String,
        endpoint: Endpoint,
    },
    EndpointRemoved {
        upstream: String,
        endpoint: String,
        reason: String,
    },
    EndpointStateChanged {
        upstream: String,
        endpoint: String,
        state: EndpointState,
    },
    /// The opinion of a node or the verdict of the cluster changed.
    EndpointHealthChanged {
        upstream: String,
        endpoint: String,
        health: EndpointHealth,
    },
    PrimaryChanged {
        upstream: String,
        primary: Primary,
        reason: String,
    },
    RoutePut {
        route: Box<Route>,
    },
    RouteRemoved {
        route: String,
    },
    /// An entry was added to the audit; `count` is the number of all entries ever made.
    Audited {
        count: u64,
    },
}

/// A request of an operator, and its outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Counts from 1, without gaps.
    pub number: u64,
    pub revision: Revision,
    pub at: Timestamp,
    pub actor: String,
    pub request_id: String,
    /// The request in a few words.
    pub request: String,
    /// The refusal; null for an accepted request.
    pub refused: Option<Refusal>,
    /// The operation that it started or changed.
    pub operation: Option<OperationId>,
}

/// The event as a sentence, for timelines.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::ClusterCreated { name, .. } => write!(f, "cluster {name} was created"),
            Event::FeatureLevelRaised { level } => write!(f, "the cluster is at feature level {level}"),
            Event::ClusterRecovered { incarnation, node, last_revision, former_members } => write!(
                f,
                "the cluster was recovered from node {node} at revision {last_revision}, as incarnation {incarnation}; the \
                 members before were {}",
                list(former_members)
            ),
            Event::NodeJoined { node } => write!(f, "node {} ({}) joined", node.id, node.name),
            Event::NodeLeft { node } => write!(f, "node {node} left the cluster"),
            Event::NodeStatusChanged { node, to, reason, .. } => {
                write!(f, "node {node} is {}: {reason}", to.as_str())
            }
            Event::NodeMoved { node, api_addr, peer_addr, .. } => {
                write!(f, "node {node} is at {api_addr} (API) and {peer_addr} (peers) from now on")
            }
            Event::OpinionChanged { observer, subject, sees } => {
                write!(f, "node {observer} sees node {subject} {}", sees.as_str())
            }
            Event::MembershipChanged { voters, learners } if learners.is_empty() => {
                write!(f, "the voters are now {}", list(voters))
            }
            Event::MembershipChanged { voters, learners } => {
                write!(f, "the voters are now {}, the learners {}", list(voters), list(learners))
            }
            Event::LeaderElected { term, leader } => write!(f, "node {leader} leads term {term}"),
            Event::SettingChanged { setting } => {
                write!(f, "setting {} is now {}", setting.key, setting.value)
            }
            Event::SettingRemoved { key } => write!(f, "setting {key} was deleted"),
            Event::PlanCreated { plan, action, blocked: false } => write!(f, "plan {plan}: {action}"),
            Event::PlanCreated { plan, action, blocked: true } => {
                write!(f, "plan {plan}: {action}; it is blocked")
            }
            Event::OperationStarted { operation } => {
                write!(f, "operation {} started: {}", operation.id, operation.action)
            }
            Event::StepChanged { operation, step, .. } => {
                write!(f, "operation {operation}, {}: {}", step.name, step.status.as_str())?;
                match &step.detail {
                    Some(detail) => write!(f, "; {detail}"),
                    None => Ok(()),
                }
            }
            Event::StepsAdded { operation, .. } => write!(f, "operation {operation} is being reverted"),
            Event::OperationChanged { operation, status, error: Some(error), .. } => {
                write!(f, "operation {operation} {}: {}", status.as_str(), error.detail)
            }
            Event::OperationChanged { operation, status, error: None, .. } => {
                write!(f, "operation {operation} {}", status.as_str().replace('_', " "))
            }
            Event::OperationUndone { operation, by } => {
                write!(f, "operation {operation} was undone by operation {by}")
            }
            Event::UpstreamPut { upstream } => {
                let endpoints = match upstream.config.endpoints.len() {
                    1 => "1 endpoint".to_owned(),
                    count => format!("{count} endpoints"),
                };
                write!(f, "upstream {} is configured: {endpoints}", upstream.name)
            }
            Event::UpstreamRemoved { upstream } => write!(f, "upstream {upstream} was removed"),
            Event::EndpointPut { upstream, endpoint } => {
                let what = if endpoint.registered.is_some() { "registered itself" } else { "is" };
                write!(
                    f,
                    "endpoint {} of {upstream} {what} at {}, with weight {}",
                    endpoint.id, endpoint.addr, endpoint.weight
                )
            }
            Event::EndpointRemoved { upstream, endpoint, reason } => {
                write!(f, "endpoint {endpoint} of {upstream} was removed: {reason}")
            }
            Event::EndpointStateChanged { upstream, endpoint, state } => {
                let state = match state {
                    EndpointState::Ready => "ready",
                    EndpointState::Drain => "draining",
                    EndpointState::Maintenance => "in maintenance",
                };
                write!(f, "endpoint {endpoint} of {upstream} is {state}")
            }
            Event::EndpointHealthChanged { upstream, endpoint, health } => {
                write!(f, "endpoint {endpoint} of {upstream}")?;
                let from = |verdict| {
                    let observers = health.opinions.iter().filter(move |opinion| opinion.verdict == verdict);
                    observers.map(|opinion| opinion.observer).collect::<Vec<_>>()
                };
                let (failing, passing) = (from(Verdict::Unhealthy), from(Verdict::Healthy));
                let verdict = health.verdict.as_str();
                let nodes =
                    |ids: &[NodeId]| format!("node{} {}", if ids.len() == 1 { "" } else { "s" }, list(ids));
                match (failing.as_slice(), passing.as_slice()) {
                    ([], []) => write!(f, " is {verdict}"),
                    ([], passing) => write!(f, " is {verdict}: passing from {}", nodes(passing)),
                    (failing, []) => write!(f, " is {verdict}: failing from {}", nodes(failing)),
                    (failing, passing) => write!(
                        f,
                        ": failing from {}, passing from {}; it counts as {verdict}",
                        nodes(failing),
                        nodes(passing)
                    ),
                }
            }
            Event::PrimaryChanged {
                upstream,
                primary: Primary { endpoint: Some(endpoint), epoch, .. },
                reason,
            } => {
                write!(f, "endpoint {endpoint} is primary of {upstream} in epoch {epoch}: {reason}")
            }
            Event::PrimaryChanged { upstream, primary: Primary { endpoint: None, .. }, reason } => {
                write!(f, "{upstream} has no primary: {reason}")
            }
            Event::RoutePut { route } => {
                let host = route.spec.host.as_deref().unwrap_or_default();
                write!(
                    f,
                    "route {} sends {host}{} to {}",
                    route.name, route.spec.path_prefix, route.spec.upstream
                )
            }
            Event::RouteRemoved { route } => write!(f, "route {route} was removed"),
            Event::Audited { count } => write!(f, "audit entry {count}"),
        }
    }
}

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_check_is_named_before_the_verdict_follows_it() {
        let sentence = |verdict: &str, opinions: &[(u64, &str)]| {
            let opinions: Vec<_> = opinions
                .iter()
                .map(|(observer, verdict)| {
                    serde_json::json!({
                        "observer": observer, "verdict": verdict, "since": "2026-01-01T00:00:00Z", "detail": "",
                    })
                })
                .collect();
            let health = serde_json::json!({ "verdict": verdict, "since": null, "opinions": opinions });
            let health = serde_json::from_value(health).expect("a health");
            let (upstream, endpoint) = ("web".to_owned(), "web-1".to_owned());
            Event::EndpointHealthChanged { upstream, endpoint, health }.to_string()
        };
        assert_eq!(
            sentence("healthy", &[(1, "unhealthy"), (2, "healthy"), (3, "healthy")]),
            "endpoint web-1 of web: failing from node 1, passing from nodes 2, 3; it counts as healthy"
        );
        assert_eq!(
            sentence("unhealthy", &[(1, "unhealthy"), (2, "unhealthy")]),
            "endpoint web-1 of web is unhealthy: failing from nodes 1, 2"
        );
        assert_eq!(
            sentence("healthy", &[(1, "healthy")]),
            "endpoint web-1 of web is healthy: passing from node 1"
        );
        assert_eq!(sentence("unknown", &[]), "endpoint web-1 of web is unknown");
    }
}
