//! The types that Ringmaster's server and its clients share: names, API types, events, the view and
//! its fold, and stream messages.
//!
//! This crate is the same for every target, WASM included: it reads no clock, opens no socket and knows nothing
//! of Raft's log.
//! Log commands are deliberately absent, so that the log and the API can evolve apart.
//!
//! Wall-clock times are [`Timestamp`]s, RFC 3339 in UTC in JSON; they are for people to read and
//! decide nothing. Durations are integers of milliseconds named `…_ms`, unless another unit is in
//! the name.

pub mod action;
pub mod cluster;
pub mod demo;
pub mod duration;
pub mod error;
pub mod event;
pub mod headers;
pub mod id;
pub mod keyed_list;
pub mod lock;
mod node;
pub mod operation;
pub mod origin;
pub mod page;
pub mod placement;
pub mod plan;
mod quorum;
pub mod ring;
pub mod setting;
pub mod stream;
mod string_enum;
pub mod telemetry;
pub mod timestamp;
pub mod traffic;
pub mod view;

pub use timestamp::Timestamp;
