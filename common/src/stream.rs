//! What flows over `GET /v1/stream`.
//!
//! The first message is a [`ServerMessage::View`], or, where `?after=` could be honoured, at once
//! the events that follow it. Then comes one [`ServerMessage::Events`] for each revision that made
//! events; `prev` names the one before it, so that a gap can be seen. A client that falls behind
//! gets a fresh view instead of an unbounded queue.
//!
//! The query string says where the client left off (`after`, `incarnation`), what it wants to be
//! told ([`Follow`]) and how messages are written ([`Form`]).

use crate::{
    event::EventBatch,
    id::{Incarnation, NodeId, Revision},
    telemetry::Sample,
    view::ClusterView,
};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// The version of these messages; it stands in the first one.
pub const STREAM_FORMAT: u32 = 1;

/// How messages are written: the `form` of the query string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// `json`: text messages, each a JSON object.
    #[default]
    Json,
    /// `packed`: binary messages, each the same object as MessagePack, in raw DEFLATE.
    Packed,
}

/// What a client wants to be told: the `follow` of the query string, `events,samples` by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// The view, and the events that change it.
    pub events: bool,
    /// What is measured.
    pub samples: bool,
}

impl Default for Follow {
    fn default() -> Self {
        Follow { events: true, samples: true }
    }
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Form::Json),
            "packed" => Ok(Form::Packed),
            other => Err(format!("form is json or packed, not {other:?}")),
        }
    }
}

impl FromStr for Follow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut follow = Follow { events: false, samples: false };
        for topic in text.split(',') {
            match topic {
                "events" => follow.events = true,
                "samples" => follow.samples = true,
                other => return Err(format!("follow names events, samples or both, not {other:?}")),
            }
        }
        Ok(follow)
    }
}

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
