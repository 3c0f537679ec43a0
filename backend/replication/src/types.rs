//! openraft's types as this project uses them.
//!
//! One set of types serves every Raft group. To openraft a command and its response are bytes:
//! the leader encodes a command once, and it travels through log and network untouched.

use bytes::Bytes;
use openraft::{BasicNode, impls::leader_id_std, type_config::alias};
use ringmaster_common::id::NodeId;
use serde::{Deserialize, Serialize};
use std::fmt;

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Payload,
        R = Bytes,
        NodeId = NodeId,
        Node = BasicNode,
        Term = u64,
        // Terms as in the Raft paper: one leader a term.
        LeaderId = leader_id_std::LeaderId<u64, NodeId>,
);

pub type LogId = alias::LogIdOf<TypeConfig>;
pub type Vote = alias::VoteOf<TypeConfig>;
pub type Entry = alias::EntryOf<TypeConfig>;
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;

/// An encoded command.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
