//! The doors of a node: the HTTP API with its dashboard, DNS, and heartbeats of endpoints as lines of text.

pub mod demo_child;
pub mod dns;
pub mod heartbeat;
pub mod http;
