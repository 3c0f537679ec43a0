//! Telemetry: what each node measures, and the latest reports of the other nodes.
//!
//! Nothing here is agreed on and nothing goes through Raft. Each node reports to each other node over the peer links, so
//! that any of them can show all of them to a browser. A report is shown with its source and age; the next report
//! replaces a lost one.
//!
//! Where two nodes cannot reach each other, a third that receives reports of both relays the latest ones, so that the
//! leader learns what every node sees. A report is relayed once: by a node that had it from its source.
//!
//! Deliberately absent: decisions. Controllers and planners draw conclusions from reports.

mod checkpoint;
mod data_plane;
mod digests;
mod measure;
mod message;
mod receiver;
mod reports;
mod sender;
mod store;
#[cfg(test)]
mod tests;

pub use self::{
    data_plane::DataPlane,
    digests::run as compare_states,
    measure::resident_bytes,
    receiver::{Receiver, TELEMETRY},
    reports::NodeOpinions,
    sender::run,
    store::{StreamCount, Telemetry},
};
