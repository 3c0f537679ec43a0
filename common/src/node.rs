//! A member of the cluster: its addresses, its status and the opinions of the other members.

use crate::{
    Timestamp,
    id::{NodeId, Revision},
    string_enum::string_enum,
};
use serde::{Deserialize, Serialize};

/// The longest name of a node or zone, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Node {
    pub id: NodeId,
    pub name: String,
    pub zone: String,
    pub weight: u32,
    pub api_addr: String,
    pub peer_addr: String,
    pub public_url: String,
    pub status: NodeStatus,
    /// Why the node has this status, as a sentence.
    pub status_reason: String,
    pub status_since: Timestamp,
    /// The revision that last changed the status.
    pub status_revision: Revision,
    /// Whether it votes in the cluster group.
    pub voter: bool,
    /// The opinion of each other member, by observer.
    pub opinions: Vec<Opinion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum NodeStatus {
    /// Added, and not yet heard from.
    Joining,
    Up,
    /// A majority of the voters has not received a message from it recently.
    Suspect,
    /// A majority of the voters has not received a message from it for longer than the limit.
    Down,
    Draining,
    Drained,
    Left,
}

string_enum!(NodeStatus: Joining Up Suspect Down Draining Drained Left);

/// The opinion of one member about another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Opinion {
    pub observer: NodeId,
    pub sees: Liveness,
    pub since: Timestamp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum Liveness {
    #[default]
    Alive,
    /// Silent for longer than `nodes.suspect_after_ms`.
    Suspect,
    /// Silent for longer than `nodes.down_after_ms`.
    Dead,
}

/// A node's part in a Raft group, as the node itself reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum Role {
    Leader,
    #[default]
    Follower,
    Learner,
    Candidate,
}

string_enum!(Liveness: Alive Suspect Dead);

string_enum!(Role: Leader Follower Learner Candidate);

impl NodeStatus {
    /// Whether an operator ordered it, rather than the failure detector.
    pub fn is_ordered(self) -> bool {
        matches!(self, NodeStatus::Draining | NodeStatus::Drained | NodeStatus::Left)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            NodeStatus::Joining => "joining",
            NodeStatus::Up => "up",
            NodeStatus::Suspect => "suspect",
            NodeStatus::Down => "down",
            NodeStatus::Draining => "draining",
            NodeStatus::Drained => "drained",
            NodeStatus::Left => "left",
        }
    }
}

impl Liveness {
    pub fn as_str(self) -> &'static str {
        match self {
            Liveness::Alive => "alive",
            Liveness::Suspect => "suspect",
            Liveness::Dead => "dead",
        }
    }
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Learner => "learner",
            Role::Candidate => "candidate",
        }
    }
}

impl Node {
    /// Whether a majority of the observers takes the node for dead.
    pub fn is_lost(&self) -> bool {
        match self.status {
            NodeStatus::Down => true,
            NodeStatus::Draining | NodeStatus::Drained => {
                let dead = self.opinions.iter().filter(|opinion| opinion.sees == Liveness::Dead).count();
                2 * dead > self.opinions.len()
            }
            NodeStatus::Joining | NodeStatus::Up | NodeStatus::Suspect | NodeStatus::Left => false,
        }
    }

    /// Whether the node answers. For a status that an operator ordered, the observers' opinions decide.
    pub fn is_alive(&self) -> bool {
        match self.status {
            NodeStatus::Up => true,
            NodeStatus::Draining | NodeStatus::Drained => {
                let silent = self.opinions.iter().filter(|opinion| opinion.sees > Liveness::Alive).count();
                2 * silent < self.opinions.len() || self.opinions.is_empty()
            }
            NodeStatus::Joining | NodeStatus::Suspect | NodeStatus::Down | NodeStatus::Left => false,
        }
    }

    /// Changes the status, and remembers since when and why.
    pub fn set_status(&mut self, status: NodeStatus, reason: &str, at: Timestamp, revision: Revision) {
        self.status = status;
        reason.clone_into(&mut self.status_reason);
        self.status_since = at;
        self.status_revision = revision;
    }

    /// Replaces the opinion of `observer`. Opinions are ordered by observer.
    pub fn set_opinion(&mut self, observer: NodeId, sees: Liveness, since: Timestamp) {
        let opinion = Opinion { observer, sees, since };
        match self.opinions.binary_search_by_key(&observer, |known| known.observer) {
            Ok(position) => self.opinions[position] = opinion,
            Err(position) => self.opinions.insert(position, opinion),
        }
    }

    /// Sets the addresses under which the node is reached.
    pub fn set_addresses(&mut self, api_addr: &str, peer_addr: &str, public_url: &str) {
        for (field, value) in [
            (&mut self.api_addr, api_addr),
            (&mut self.peer_addr, peer_addr),
            (&mut self.public_url, public_url),
        ] {
            value.clone_into(field);
        }
    }

    /// Removes the opinion of a former member.
    pub fn forget_observer(&mut self, gone: NodeId) {
        self.opinions.retain(|opinion| opinion.observer != gone);
    }
}
