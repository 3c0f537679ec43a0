//! Members, and how the cluster sees them.

use crate::{
    Timestamp,
    id::{NodeId, Revision},
    word::as_word,
};
use serde::{Deserialize, Serialize};

/// How many voters the cluster group has before further nodes become learners.
pub const VOTERS: usize = 3;
/// How many nodes a cluster holds.
pub const MAX_NODES: usize = 7;
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
    /// What each other member says of it, by observer.
    pub opinions: Vec<Opinion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum NodeStatus {
    /// Known, and not yet heard from.
    Joining,
    Up,
    /// A majority of the voters has not heard from it lately.
    Suspect,
    /// A majority of the voters has not heard from it for too long.
    Down,
    Draining,
    Drained,
    Left,
}

as_word!(NodeStatus: Joining Up Suspect Down Draining Drained Left);

/// What one member says of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Opinion {
    pub observer: NodeId,
    pub sees: Sees,
    pub since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum Sees {
    Alive,
    /// Silent for longer than `nodes.suspect_after_ms`.
    Suspect,
    /// Silent for longer than `nodes.down_after_ms`.
    Dead,
}

/// A node's part in a Raft group, as the node itself reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum Role {
    Leader,
    Follower,
    Learner,
    Candidate,
}

as_word!(Sees: Alive Suspect Dead);

as_word!(Role: Leader Follower Learner Candidate);

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

impl Sees {
    pub fn as_str(self) -> &'static str {
        match self {
            Sees::Alive => "alive",
            Sees::Suspect => "suspect",
            Sees::Dead => "dead",
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

/// How many of `voters` may fail with a majority left.
pub fn may_fail(voters: usize) -> usize {
    voters.saturating_sub(1) / 2
}

/// The body of `GET /v1/cluster`: what the answering node knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cluster {
    pub name: String,
    pub id: String,
    pub incarnation: crate::id::Incarnation,
    /// What all members can do.
    #[serde(default)]
    pub feature_level: u32,
    /// The revision that the answering node has applied.
    pub revision: Revision,
    pub term: u64,
    /// Who leads now, as far as the answering node knows.
    pub leader: Option<NodeId>,
    /// The node that answers.
    pub answered_by: NodeId,
    /// Whether this is a demo cluster, which offers chaos.
    pub demo: bool,
    pub quorum: Quorum,
    /// How many of the voters may fail from now on with the cluster still taking writes.
    pub may_fail: u64,
    /// An id that no node has or had: that of the next one to join.
    #[serde(default)]
    pub next_id: NodeId,
    pub nodes: Vec<NodeInfo>,
}

/// Whether enough voters answer for writes to be taken, as the answering node sees it now.
///
/// Without a quorum nothing can be agreed on, so what is agreed of the members is of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quorum {
    pub has: bool,
    pub voters: u64,
    /// The voters that the answering node has a connection to, and itself.
    pub answering: u64,
    /// How many writes need.
    pub needed: u64,
}

impl Quorum {
    pub fn new(voters: usize, answering: usize) -> Quorum {
        let needed = voters / 2 + 1;
        Quorum {
            has: answering >= needed,
            voters: voters as u64,
            answering: answering as u64,
            needed: needed as u64,
        }
    }
}

/// A member with its role: an item of `GET /v1/cluster` and `GET /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeInfo {
    #[serde(flatten)]
    pub node: Node,
    /// As last reported by the node; null where nothing was heard of it lately.
    pub role: Option<Role>,
    /// How many entries the node's log lacks, by the leader's count.
    pub lag: Option<u64>,
    /// From the answering node, in microseconds.
    pub rtt_us: Option<u64>,
    /// How old role, lag and round-trip time are.
    pub age_ms: Option<u64>,
    /// Whom it sees, as it last reported.
    pub links: Vec<crate::telemetry::Link>,
    pub can_lose: CanLose,
}

/// "Can I lose this node?"
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CanLose {
    pub answer: bool,
    /// Why, or why not, as a sentence.
    pub reason: String,
}

/// Whether the cluster still takes writes without `id`, from what is replicated about its members.
pub fn can_lose<'a>(id: NodeId, nodes: impl Iterator<Item = &'a Node>, leader: Option<NodeId>) -> CanLose {
    let mut voters = 0;
    let mut living_others = 0;
    let mut is_voter = false;
    let mut is_alive = true;
    let mut down = Vec::new();
    for node in nodes.filter(|node| node.voter) {
        voters += 1;
        if node.id == id {
            is_voter = true;
            is_alive = node.is_alive();
        } else if node.is_alive() {
            living_others += 1;
        } else {
            down.push(format!("node {} is {}", node.id, node.status.as_str()));
        }
    }
    if !is_voter {
        return CanLose { answer: true, reason: "yes: it does not vote".to_owned() };
    }
    let needed = voters / 2 + 1;
    let answer = living_others >= needed;
    let reason = if !answer && down.is_empty() {
        format!("no: writes need {needed} of {voters} voters, and {living_others} would be left")
    } else if !answer {
        format!("no: {}; writes need {needed} of {voters} voters", down.join(", "))
    } else if !is_alive {
        "it does not answer now, and the others are enough".to_owned()
    } else if leader == Some(id) {
        "yes, hand over first".to_owned()
    } else {
        "yes".to_owned()
    };
    CanLose { answer, reason }
}

impl Node {
    /// Whether the node has gone without a word, as far as most others can tell.
    pub fn is_lost(&self) -> bool {
        match self.status {
            NodeStatus::Down => true,
            NodeStatus::Draining | NodeStatus::Drained => {
                let dead = self.opinions.iter().filter(|opinion| opinion.sees == Sees::Dead).count();
                2 * dead > self.opinions.len()
            }
            NodeStatus::Joining | NodeStatus::Up | NodeStatus::Suspect | NodeStatus::Left => false,
        }
    }

    /// Whether the node answers. Of one whose status was ordered, its observers tell.
    pub fn is_alive(&self) -> bool {
        match self.status {
            NodeStatus::Up => true,
            NodeStatus::Draining | NodeStatus::Drained => {
                let silent = self.opinions.iter().filter(|opinion| opinion.sees > Sees::Alive).count();
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

    /// Replaces what `observer` says of the node. Opinions are kept in the order of observers.
    pub fn set_opinion(&mut self, observer: NodeId, sees: Sees, since: Timestamp) {
        let opinion = Opinion { observer, sees, since };
        match self.opinions.binary_search_by_key(&observer, |known| known.observer) {
            Ok(position) => self.opinions[position] = opinion,
            Err(position) => self.opinions.insert(position, opinion),
        }
    }

    /// Drops what a former member said of the node.
    pub fn forget_observer(&mut self, gone: NodeId) {
        self.opinions.retain(|opinion| opinion.observer != gone);
    }
}
