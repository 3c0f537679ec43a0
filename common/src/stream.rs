//! The messages of `GET /v1/stream`.
//!
//! The first message is a [`ServerMessage::View`], or a [`ServerMessage::Resumed`] if the history still holds the
//! revision of `?after=`. Then one [`ServerMessage::Events`] follows for each revision with events; `prev` names the
//! revision before it, so that a client detects a gap. A client that falls behind gets a fresh view instead of an
//! unbounded queue.
//!
//! No message is larger than [`MAX_MESSAGE_BYTES`], because WebSocket clients refuse messages of a megabyte or more by
//! default. A larger view comes in parts: the [`ServerMessage::View`] says how many [`ServerMessage::ViewPart`]s
//! follow at once, and has empty lists. Large events and traffic metrics are split as well; [`Assembler`] puts all of
//! them together again.
//!
//! Messages are JSON text, unless the client asks for the WebSocket subprotocol [`PACKED`]: then each is
//! the same object as MessagePack, in raw DEFLATE, in a binary message. Collections that can grow without bound are
//! in the view as a count alone; a client follows the part that it shows ([`ClientMessage`]).

mod assembler;

pub use assembler::{Assembler, Interrupted};

use crate::{
    error::Problem,
    event::{AuditEntry, EventBatch},
    id::{Incarnation, NodeId, Revision},
    lock::{Lock, LockCounts},
    page::Page,
    telemetry::Sample,
    traffic::live::UpstreamMetrics,
    view::{ClusterView, ViewPart},
};
use serde::{Deserialize, Serialize};

/// The version of these messages, sent in the first one.
pub const STREAM_FORMAT: u32 = 1;

/// The subprotocol for messages as JSON, the default.
pub const JSON: &str = "ringmaster.json.v1";
/// The subprotocol for messages as MessagePack in raw DEFLATE.
pub const PACKED: &str = "ringmaster.packed.v1";
/// The largest message of a node, in bytes of JSON.
pub const MAX_MESSAGE_BYTES: usize = 512 << 10;
/// The maximum number of entries of a topic in its first message.
pub const MAX_FOLLOWED: usize = 200;

/// From a client to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientMessage {
    Follow {
        topic: Topic,
        /// Audit: the number of latest entries in the first message. Locks: the size of the page.
        #[serde(default)]
        limit: Option<usize>,
        /// Locks: only names that start with this.
        #[serde(default)]
        prefix: String,
        /// Locks: only names after this one.
        #[serde(default)]
        after: Option<String>,
        /// Locks: only those with waiters.
        #[serde(default)]
        contended: bool,
        /// Traffic: the upstream whose endpoints are included.
        #[serde(default)]
        upstream: Option<String>,
    },
    Unfollow {
        topic: Topic,
    },
}

/// Topics that a client may follow beside the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Telemetry. Every client follows it until it unfollows it.
    Samples,
    /// The entries of the audit.
    Audit,
    /// A page of the locks in use. Following another page ends the one before.
    Locks,
    /// The metrics of all nodes' proxies, once a second. Following another upstream ends the one before.
    Traffic,
}

/// From a node to a browser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    View {
        format: u32,
        /// The sending node.
        node: NodeId,
        /// How many `view_part` messages follow with the items of the lists, which are empty here. Absent where the
        /// view is whole.
        #[serde(default, skip_serializing_if = "is_zero")]
        parts: u32,
        #[serde(flatten)]
        view: Box<ClusterView>,
    },
    /// Some items of the view whose header came before. Nothing else is sent between the header and the last part.
    ViewPart {
        #[serde(flatten)]
        part: Box<ViewPart>,
    },
    /// The stream continues after the client's revision.
    Resumed {
        format: u32,
        node: NodeId,
        incarnation: Incarnation,
        /// The id of the cluster, so that a client that did not name one sees that it is another.
        #[serde(default)]
        cluster: String,
    },
    /// The events of one revision, or some of them: see `part`.
    Events {
        /// The revision of the message before this one, or of the view.
        prev: Revision,
        #[serde(flatten)]
        split: Split,
        #[serde(flatten)]
        batch: EventBatch,
    },
    Sample {
        #[serde(flatten)]
        sample: Box<Sample>,
        #[serde(default)]
        locks: LockCounts,
    },
    /// New entries of the audit, oldest first, for clients that follow it.
    Audit { entries: Vec<AuditEntry> },
    /// The page of locks that the client follows, whenever one of them changed.
    Locks {
        /// When any lock changed last.
        revision: Revision,
        #[serde(flatten)]
        page: Page<Lock>,
    },
    /// The metrics of upstreams with recent requests at each node's proxy, as last reported. Endpoints are included
    /// for the upstream that the client named.
    Traffic {
        #[serde(flatten)]
        split: Split,
        metrics: Vec<UpstreamMetrics>,
    },
    /// A message of the client was refused. The stream continues.
    Problem { problem: Problem },
    /// This node is behind the revision that the client has; these are better. The stream ends after it.
    Behind {
        revision: Revision,
        try_urls: Vec<String>,
        /// The id of the cluster. Where it is not the client's, the revisions of the two cannot be compared: start
        /// anew, without `after`.
        #[serde(default)]
        cluster: String,
        #[serde(default)]
        incarnation: Incarnation,
    },
}

/// Which part a message is of one that was too large. Parts follow each other at once; a client has the revision of
/// events once it has the last part. Absent where the message is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Split {
    /// The number of this part, from 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub part: u32,
    /// How many parts there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parts: u32,
}

impl Split {
    /// Whether nothing is missing after this part.
    pub fn is_last(self) -> bool {
        self.part == self.parts
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl ServerMessage {
    /// The value of the `type` field.
    pub fn kind(&self) -> &'static str {
        match self {
            ServerMessage::View { .. } => "view",
            ServerMessage::ViewPart { .. } => "view_part",
            ServerMessage::Resumed { .. } => "resumed",
            ServerMessage::Events { .. } => "events",
            ServerMessage::Sample { .. } => "sample",
            ServerMessage::Audit { .. } => "audit",
            ServerMessage::Locks { .. } => "locks",
            ServerMessage::Traffic { .. } => "traffic",
            ServerMessage::Problem { .. } => "problem",
            ServerMessage::Behind { .. } => "behind",
        }
    }
}
