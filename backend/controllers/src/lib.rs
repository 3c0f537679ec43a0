//! Loops that observe the world, compute, and propose.
//!
//! They act on the leader alone, and hold no state that cannot be lost: the next leader's loops find
//! in the replicated state all that they need.

pub mod elections;
pub mod endpoint_health;
pub mod failover;
pub mod features;
pub mod health;
pub mod operations;
pub mod registrations;

use ringmaster_cluster::command::{Actor, Request};
use ringmaster_common::id::NodeId;
use std::time::Duration;

/// How long a controller waits for its proposal. It looks again after that anyway.
const PROPOSAL_DEADLINE: Duration = Duration::from_secs(2);

/// How long a controller rests where nothing is to be done.
const REST: Duration = Duration::from_secs(1);

/// A request of a controller on this node.
fn request(me: NodeId) -> Request {
    Request {
        id: uuid::Uuid::new_v4().to_string(),
        actor: Actor::Node(me),
        repeatable: false,
        resent_after: None,
    }
}
