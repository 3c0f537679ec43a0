//! The doors of a node: the HTTP API with its dashboard, DNS, and lines of text by which endpoints say that they live.

pub mod demo_child;
pub mod dns;
pub mod heartbeat;
pub mod http;
