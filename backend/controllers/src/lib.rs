//! Controllers: loops that observe the world, compute, and propose.
//!
//! Each runs on the leader alone, and computes with a pure function; [`reconcile`] is the loop that they share. They
//! hold no state that must not be lost: the controllers of the next leader find all they need in the replicated state.
//!
//! Deliberately absent: a controller never writes to the state directly and never acts for a term in which its node
//! does not lead. Steps of operations are run by [`operations`].

mod election_recorder;
mod endpoint_health;
mod expiry;
mod failover;
mod failure_detector;
mod feature_level;
pub mod operations;
mod reconcile;
mod registration_expiry;
mod voter_change;

use ringmaster_cluster::command::{Actor, Request};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::id::NodeId;
use ringmaster_net::supervisor::Supervisor;
use ringmaster_peer::Peers;
use ringmaster_telemetry::Telemetry;
use std::{sync::Arc, time::Duration};

/// How long a controller waits for its proposal. It looks again after that anyway.
const PROPOSAL_DEADLINE: Duration = Duration::from_secs(2);

/// How long a controller rests where there is nothing to do and nothing changes.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Starts all controllers of a node.
pub fn start(supervisor: &Supervisor, group: &ClusterGroup, telemetry: &Arc<Telemetry>, peers: &Peers) {
    let (group, telemetry) = (|| group.clone(), || telemetry.clone());
    supervisor.spawn_loop("election-recorder", election_recorder::run(group()));
    supervisor.spawn_loop("expiry", expiry::run(group()));
    supervisor.spawn_loop("failure-detector", failure_detector::run(group(), telemetry()));
    supervisor.spawn_loop("endpoint-health", endpoint_health::run(group(), telemetry()));
    supervisor.spawn_loop("registration-expiry", registration_expiry::run(group()));
    supervisor.spawn_loop("failover", failover::run(group()));
    supervisor.spawn_loop("voter-change", voter_change::run(group()));
    supervisor.spawn_loop("operations", operations::run(group(), telemetry()));
    supervisor.spawn_loop("feature-level", feature_level::run(group(), peers.clone()));
}

/// A request of a controller on this node.
fn request(me: NodeId) -> Request {
    Request {
        id: uuid::Uuid::new_v4().to_string(),
        actor: Actor::Node(me),
        repeatable: false,
        fingerprint: None,
        resent_after: None,
    }
}
