//! Outcomes: what became of a command, as it is answered to its sender and to each repeat.

use crate::encoding::encode;
use bytes::Bytes;
use ringmaster_common::{
    error::Refusal,
    id::Revision,
    lock::LockGrant,
    operation::Operation,
    plan::Plan,
    setting::Setting,
    traffic::{
        import::Imported,
        route::Route,
        upstream::{EndpointDetail, Upstream},
    },
};
use serde::{Deserialize, Serialize};

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Where the log holds the command that was carried out; for a repeat, the first one.
    pub revision: Revision,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Refused(Refusal),
    /// A PUT or a registration: the resource as this write stored it.
    Stored(Box<Stored>),
    Imported(Imported),
    Plan(Box<Plan>),
    LockGranted(LockGrant),
    /// The request waits in the queue; its node is notified of the grant.
    LockQueued,
    /// An operator took the lock away from its holders. The holder that was granted it next, if any.
    LockForced {
        next: Option<LockGrant>,
    },
    /// `started`: this very command started it.
    Operation {
        operation: Box<Operation>,
        started: bool,
    },
}

/// A resource at the moment at which a write stored it. Another write may have changed it since; the answer to this
/// one, and to each of its repeats, stays the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    pub resource: Resource,
    /// The version that its ETag names.
    pub version: Revision,
    /// Whether there was nothing under this name before.
    pub created: bool,
}

/// A resource as clients are shown it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    Setting(Setting),
    Upstream(Upstream),
    Endpoint(EndpointDetail),
    Route(Route),
}

impl Outcome {
    pub(crate) fn stored(resource: Resource, version: Revision, created: bool) -> Outcome {
        Outcome::Stored(Box::new(Stored { resource, version, created }))
    }
}

impl Response {
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Response, rmp_serde::decode::Error> {
        rmp_serde::from_slice(bytes)
    }
}
