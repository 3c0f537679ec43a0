//! Requests: the id under which a command comes, and the client or node that sent it.

use ringmaster_common::id::{NodeId, Revision};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The id under which a command comes, and its sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// A repeat under the same id is answered with the first outcome.
    pub id: String,
    pub actor: Actor,
    /// Whether the client chose the id, and so may repeat the request itself.
    pub repeatable: bool,
    /// The hash of what the client sent, where it may repeat the request: the same id with another one is refused.
    /// Computed once, by the node that received it ([`fingerprint`]).
    #[serde(default)]
    pub fingerprint: Option<u32>,
    /// Where it is sent again, by the client or by the node that has the client: its first attempt is ordered after
    /// this, if at all.
    #[serde(default)]
    pub resent_after: Option<Revision>,
}

impl Request {
    /// It is sent again, after an attempt that is ordered after `revision`. The client may have sent it before that.
    pub fn sent_again(&mut self, revision: Revision) {
        self.resent_after = Some(self.resent_after.map_or(revision, |first| first.min(revision)));
    }
}

/// The fingerprint of a request, from the bytes that the client sent: method, path, preconditions, body.
pub fn fingerprint(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        // With its length, so that nothing can move from one part into the next.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

/// The sender of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// An operator or another client; its commands are audited.
    Operator(String),
    /// A controller on this node.
    Node(NodeId),
    /// openraft itself, which writes entries of its own.
    Consensus,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Operator(name) => f.write_str(name),
            Actor::Node(node) => write!(f, "node {node}"),
            Actor::Consensus => f.write_str("consensus"),
        }
    }
}
