//! Consensus: the only code that imports openraft.

pub mod cluster_group;
#[cfg(test)]
mod cluster_tests;
pub mod elections;
mod leader_clock;
mod log_store;
mod network;
mod service;
mod snapshot_store;
pub mod start;
pub mod state_machine;
mod succession;
mod ticks;
mod types;
mod waiting_room;
mod wire;
