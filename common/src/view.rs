//! The view: the replicated state as clients see it, and the fold that keeps it current.
//!
//! What always holds: for every state and every command, the view of the applied state equals the
//! view before it, folded with the events that applying returned. The server proves it by property
//! tests; the browser relies on it.
//!
//! The view holds facts of the cluster group alone. The current leader, lag and round-trip times are
//! telemetry ([`crate::telemetry`]) and deliberately absent.

mod parts;

pub use parts::{FurtherEndpoints, ViewPart, json_bytes};

use crate::{
    cluster::Node,
    event::{Event, EventBatch},
    id::{Incarnation, NodeId, Revision},
    keyed_list::KeyedList,
    operation::Operation,
    setting::Setting,
    traffic::{
        route::Route,
        upstream::{Endpoint, Upstream},
    },
};
use serde::{Deserialize, Serialize};

/// How many of the latest operations the view holds. Those that are unfinished stay in it, however old they are.
pub const VIEW_OPERATIONS: usize = 50;

/// The state of the cluster group, as every browser holds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterView {
    pub name: String,
    pub id: String,
    pub incarnation: Incarnation,
    /// The feature level that all members support.
    #[serde(default)]
    pub feature_level: u32,
    pub revision: Revision,
    /// The latest election in the log.
    pub elected: Option<Election>,
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Node>))]
    pub nodes: KeyedList<Node>,
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Setting>))]
    pub settings: KeyedList<Setting>,
    /// The latest 50 operations, and all that are unfinished.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Operation>))]
    pub operations: KeyedList<Operation>,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Upstream>))]
    pub upstreams: KeyedList<Upstream>,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Route>))]
    pub routes: KeyedList<Route>,
    /// How many audit entries there have ever been.
    pub audit_count: u64,
}

/// An election and its winner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Election {
    pub term: u64,
    pub leader: NodeId,
    pub at: crate::Timestamp,
    pub revision: Revision,
}

/// A digest of the whole replicated state of one node, to compare nodes that have applied the same entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StateDigest {
    /// The last entry that the node has applied.
    pub revision: Revision,
    /// SHA-256 of the state's canonical encoding, in hexadecimal digits.
    pub digest: String,
}

impl ClusterView {
    /// Brings the view from the revision before `batch` to that of `batch`.
    pub fn fold(&mut self, batch: &EventBatch) {
        for event in &batch.events {
            self.fold_one(batch, event);
        }
        self.revision = batch.revision;
    }

    fn fold_one(&mut self, batch: &EventBatch, event: &Event) {
        match event {
            Event::ClusterCreated { name, id, incarnation, feature_level } => {
                self.name.clone_from(name);
                self.id.clone_from(id);
                self.incarnation = *incarnation;
                self.feature_level = *feature_level;
            }
            Event::FeatureLevelRaised { level } => self.feature_level = *level,
            Event::ClusterRecovered { incarnation, .. } => self.incarnation = *incarnation,
            Event::NodeJoined { node } => {
                self.nodes.put(node.clone());
            }
            Event::NodeLeft { node: gone } => {
                self.nodes.remove(gone);
                for node in self.nodes.values_mut() {
                    node.forget_observer(*gone);
                }
                for endpoint in
                    self.upstreams.values_mut().flat_map(|upstream| &mut upstream.config.endpoints)
                {
                    endpoint.health.forget_observer(*gone);
                }
            }
            Event::NodeStatusChanged { node, to, reason, .. } => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.set_status(*to, reason, batch.at, batch.revision);
                }
            }
            Event::NodeMoved { node, api_addr, peer_addr, public_url } => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.set_addresses(api_addr, peer_addr, public_url);
                }
            }
            Event::OpinionChanged { observer, subject, sees } => {
                if let Some(node) = self.nodes.get_mut(subject) {
                    node.set_opinion(*observer, *sees, batch.at);
                }
            }
            Event::MembershipChanged { voters, .. } => {
                for node in self.nodes.values_mut() {
                    node.voter = voters.contains(&node.id);
                }
            }
            Event::LeaderElected { term, leader } => {
                self.elected =
                    Some(Election { term: *term, leader: *leader, at: batch.at, revision: batch.revision });
            }
            Event::SettingChanged { setting } => {
                self.settings.put(setting.clone());
            }
            Event::SettingRemoved { key } => {
                self.settings.remove(key);
            }
            Event::OperationStarted { operation } => {
                self.operations.put(operation.as_ref().clone());
                self.hide_oldest_ended();
            }
            Event::StepChanged { operation, position, step } => {
                if let Some(operation) = self.operations.get_mut(operation) {
                    if let Some(slot) = operation.steps.get_mut(*position as usize) {
                        slot.clone_from(step);
                    }
                    operation.revision = batch.revision;
                }
            }
            Event::StepsAdded { operation, steps } => {
                if let Some(operation) = self.operations.get_mut(operation) {
                    operation.steps.extend_from_slice(steps);
                    operation.revision = batch.revision;
                }
            }
            Event::OperationChanged { operation, status, error, ended_at, keep_until } => {
                if let Some(operation) = self.operations.get_mut(operation) {
                    operation.status = *status;
                    operation.error.clone_from(error);
                    operation.ended_at = *ended_at;
                    operation.keep_until = *keep_until;
                    operation.revision = batch.revision;
                }
            }
            Event::OperationUndone { operation, by } => {
                if let Some(operation) = self.operations.get_mut(operation) {
                    operation.undone_by = Some(*by);
                    operation.revision = batch.revision;
                }
            }
            Event::UpstreamPut { upstream } => {
                self.upstreams.put(upstream.as_ref().clone());
            }
            Event::UpstreamRemoved { upstream } => {
                self.upstreams.remove(upstream);
            }
            Event::EndpointPut { upstream, endpoint } => {
                if let Some(upstream) = self.upstreams.get_mut(upstream) {
                    upstream.put_endpoint(endpoint.clone());
                    if endpoint.registered.is_none() {
                        upstream.configured(batch.revision, batch.at, &batch.actor);
                    }
                }
            }
            Event::EndpointRemoved { upstream, endpoint, .. } => {
                if let Some(upstream) = self.upstreams.get_mut(upstream)
                    && upstream.remove_endpoint(endpoint).is_some_and(|gone| gone.registered.is_none())
                {
                    upstream.configured(batch.revision, batch.at, &batch.actor);
                }
            }
            Event::EndpointStateChanged { upstream, endpoint, state } => {
                if let Some(endpoint) = self.endpoint_mut(upstream, endpoint) {
                    endpoint.set_state(*state, batch.at);
                }
            }
            Event::EndpointHealthChanged { upstream, endpoint, health } => {
                if let Some(endpoint) = self.endpoint_mut(upstream, endpoint) {
                    endpoint.health.clone_from(health);
                }
            }
            Event::PrimaryChanged { upstream, primary, .. } => {
                if let Some(upstream) = self.upstreams.get_mut(upstream) {
                    upstream.primary = Some(primary.clone());
                }
            }
            Event::RoutePut { route } => {
                self.routes.put(route.as_ref().clone());
            }
            Event::RouteRemoved { route } => {
                self.routes.remove(route);
            }
            Event::Audited { count } => self.audit_count = *count,
            // Plans are asked for one at a time; the view does not hold them.
            Event::PlanCreated { .. } => {}
        }
    }

    fn hide_oldest_ended(&mut self) {
        if self.operations.values().len() > VIEW_OPERATIONS
            && let Some(id) =
                self.operations.values().find(|known| known.status.is_final()).map(|known| known.id)
        {
            self.operations.remove(&id);
        }
    }

    fn endpoint_mut(&mut self, upstream: &str, endpoint: &str) -> Option<&mut Endpoint> {
        self.upstreams.get_mut(upstream)?.endpoint_mut(endpoint)
    }
}
