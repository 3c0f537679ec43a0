//! The receiving side: what a node offers to its peers.
//!
//! A [`Service`] is asked for a [`Session`] when a peer connects. The session gets the requests of
//! that connection one by one in the order in which the peer made them, and is dropped when the
//! connection ends; what it keeps between requests, it keeps for this connection alone. It answers
//! each through its [`Answer`], when and in whatever order it likes.

use super::{
    frame::{Channel, Failure, FailureCode, Frame, Kind, Lane, MAX_BODY_BYTES, Trace},
    outgoing::Outgoing,
};
use bytes::Bytes;
use ringmaster_common::id::{GroupId, NodeId};
use std::fmt;
use tokio::sync::OwnedSemaphorePermit;

pub trait Service: Send + Sync + 'static {
    /// Whether requests of `channel` are for this service. The first service that says so has it.
    fn serves(&self, channel: Channel) -> bool;

    /// A peer has connected.
    fn connected(&self, from: NodeId) -> Box<dyn Session>;
}

pub trait Session: Send + 'static {
    /// Takes a request. This runs on the task that reads the connection: what takes longer than
    /// decoding and handing on belongs on another task.
    fn receive(&mut self, request: Incoming);
}

/// A request from a peer. A cast is a request whose answer goes nowhere.
#[derive(Debug)]
pub struct Incoming {
    pub from: NodeId,
    pub channel: Channel,
    pub group: GroupId,
    pub trace: Trace,
    pub body: Bytes,
    pub answer: Answer,
}

/// The way back to the caller. Dropped unused, it answers that there was no answer.
pub struct Answer {
    to: Option<Return>,
    /// The request counts against the bound of its link until this is dropped.
    _permit: OwnedSemaphorePermit,
}

struct Return {
    outgoing: Outgoing,
    lane: Lane,
    channel: Channel,
    group: GroupId,
    id: u64,
    trace: Trace,
}

impl Answer {
    pub(super) fn new(request: &Frame, outgoing: &Outgoing, permit: OwnedSemaphorePermit) -> Answer {
        let to = (request.kind == Kind::Request).then(|| Return::new(request, outgoing));
        Answer { to, _permit: permit }
    }

    pub fn reply(mut self, body: Bytes) {
        let Some(to) = self.to.take() else { return };
        if body.len() > MAX_BODY_BYTES {
            let detail = format!("the answer of {} bytes does not fit into a frame", body.len());
            to.fail(&Failure::new(FailureCode::Unanswered, detail));
        } else {
            to.send(Kind::Reply, body);
        }
    }

    pub fn fail(mut self, failure: &Failure) {
        if let Some(to) = self.to.take() {
            to.fail(failure);
        }
    }

    /// [`Answer::reply`] or [`Answer::fail`].
    pub fn with(self, result: Result<Bytes, Failure>) {
        match result {
            Ok(body) => self.reply(body),
            Err(failure) => self.fail(&failure),
        }
    }
}

impl Return {
    pub(super) fn new(request: &Frame, outgoing: &Outgoing) -> Return {
        Return {
            outgoing: outgoing.clone(),
            lane: request.lane,
            channel: request.channel,
            group: request.group,
            id: request.id,
            trace: request.trace,
        }
    }

    fn fail(self, failure: &Failure) {
        let body = postcard::to_stdvec(failure).expect("a word and a sentence can be encoded");
        self.send(Kind::Failure, Bytes::from(body));
    }

    fn send(self, kind: Kind, body: Bytes) {
        let Return { outgoing, lane, channel, group, id, trace } = self;
        let frame = Frame { kind, lane, channel, group, id, trace, body };
        // A queue that is full or closed belongs to a connection that is lost: the caller learns of it by that, or by
        // its time-out.
        if outgoing.push(&frame).is_err() {
            tracing::debug!(id, "an answer was dropped: its connection takes no more");
        }
    }
}

/// Refuses a request that no session sees.
pub(super) fn refuse(request: &Frame, outgoing: &Outgoing, failure: &Failure) {
    if request.kind == Kind::Request {
        Return::new(request, outgoing).fail(failure);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            to.fail(&Failure::new(FailureCode::Unanswered, "the request was dropped"));
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("id", &self.to.as_ref().map(|to| to.id)).finish()
    }
}
