//! Replication: Raft groups for any [`application`]. The only code that imports openraft.
//!
//! A [`GroupHost`] runs the groups of a node over one journal and one link to each peer. A [`RaftGroup`] is the handle of
//! one group, by the types of its application; a [`Replica`] is the same without them.

mod acknowledged;
pub mod application;
#[cfg(test)]
mod cluster_tests;
mod compaction;
pub mod elections;
mod fast_election;
mod forks;
mod group;
mod host;
mod idle_ticks;
mod leader_clock;
mod log_store;
mod lost_entries;
mod machine;
mod network;
mod published;
pub mod recovery;
mod registry;
mod remembered;
mod replica;
mod service;
mod snapshot_file;
mod snapshot_store;
mod state_machine;
mod types;
mod wire;

pub use self::{
    group::{Consistency, RaftGroup},
    host::GroupHost,
    published::{Applied, Progress, Published},
    remembered::Remembered,
    replica::{GroupStatus, Replica},
};
