//! What flows over `GET /v1/stream`.
//!
//! The first message is a [`ServerMessage::View`], or, where `?after=` could be honoured, at once
//! the events that follow it. Then comes one [`ServerMessage::Events`] for each revision that made
//! events; `prev` names the one before it, so that a gap can be seen. A client that falls behind
//! gets a fresh view instead of an unbounded queue.

use crate::{
    event::EventBatch,
    id::{Incarnation, NodeId, Revision},
    telemetry::Sample,
    view::ClusterView,
};
use serde::{Deserialize, Serialize};

/// The version of these messages; it stands in the first one.
pub const STREAM_FORMAT: u32 = 1;

/// From a node to a browser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// Who answers, before anything else.
    Hello { format: u32, node: NodeId, incarnation: Incarnation },
    View {
        #[serde(flatten)]
        view: Box<ClusterView>,
    },
    Events {
        /// The revision of the message before this one, or of the view.
        prev: Revision,
        #[serde(flatten)]
        batch: EventBatch,
    },
    Sample {
        #[serde(flatten)]
        sample: Box<Sample>,
    },
    /// This node is behind the revision that the client has; these are better.
    Behind { revision: Revision, try_urls: Vec<String> },
}
