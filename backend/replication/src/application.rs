//! Applications: the state machines that Raft groups replicate.
//!
//! An [`Application`] is a set of functions over a state. The state lives in the group's state machine; the
//! application itself is shared by all tasks of the node, and may know things that are not replicated, such as the
//! clients of this node that wait.
//!
//! What always holds:
//! - `apply` is pure: the same entries in the same order give the same state on every node. It reads no clock,
//!   draws no random number, and cannot refuse: a refusal is an outcome like another.
//! - A state is cheap to clone, because its collections share structure. One clone is published after each batch of
//!   entries, and snapshots are written from a clone, beside `apply`.
//!
//! Deliberately absent: openraft. To it, a command and an outcome are bytes, so it is compiled once, however many
//! applications there are.

use bytes::Bytes;
use futures::future::BoxFuture;
use ringmaster_common::{
    Timestamp,
    error::Refusal,
    id::{NodeId, Revision},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeSet,
    fmt::Debug,
    io::{self, Read, Write},
    time::Instant,
};

/// A message that can travel between nodes.
pub trait Message: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static> Message for T {}

/// A message to the leader.
pub trait LeaderCall: Message {
    /// The id of the request that causes it, for logs and traces.
    fn request_id(&self) -> &str {
        ""
    }

    /// Called before it is sent again. If an earlier attempt was ordered, it was ordered after `revision`.
    fn sent_again(&mut self, revision: Revision) {
        let _ = revision;
    }
}

/// See the module.
pub trait Application: Debug + Send + Sync + Sized + 'static {
    /// A change to the state, with the request that asks for it.
    type Command: LeaderCall;
    /// The result of a command.
    type Outcome: Message;
    /// A question that only the leader answers, besides proposals and reads.
    type Query: LeaderCall;
    /// The answer to a [`Self::Query`].
    type Answer: Message;
    type State: Clone + Debug + Default + Send + Sync + 'static;
    /// A notification for waiters on this node; no part of the state.
    type Notice: Send + Sync + 'static;

    /// Refuses a command that must not be ordered, such as one that not every member could read. The leader asks, with
    /// the state that it has applied.
    fn admit(&self, state: &Self::State, command: &Self::Command) -> Result<(), Refusal> {
        let _ = (state, command);
        Ok(())
    }

    /// Encodes the log entry of a command. The leader calls it, with the state that it has applied.
    fn encode(&self, state: &Self::State, command: Self::Command, stamp: Stamp) -> Bytes;

    /// Applies the next entry. An error means that this version cannot read the entry: the node stops, because to
    /// skip an entry would make its state differ from that of the others.
    fn apply(&self, state: &mut Self::State, entry: Entry<'_>) -> io::Result<Effect<Self>>;

    /// The time of the last entry that was applied, in milliseconds of the group's clock.
    fn clock_ms(&self, state: &Self::State) -> u64;

    /// Writes a snapshot of a state. It runs on a thread of its own.
    fn write_snapshot(&self, state: &Self::State, to: &mut dyn Write) -> io::Result<()>;

    /// Reads what [`Self::write_snapshot`] wrote. It runs on a thread of its own.
    fn read_snapshot(&self, from: &mut dyn Read) -> io::Result<Self::State>;

    /// Delivers the notices of a batch of entries, once the state that they speak of is published.
    fn notify(&self, notices: Vec<Self::Notice>) {
        let _ = notices;
    }

    /// A snapshot has replaced the state: the notices of the entries that it covers will not come.
    fn replaced(&self) {}

    /// Whether a node may stand for election.
    fn may_lead(&self, state: &Self::State, node: NodeId) -> bool {
        let _ = (state, node);
        true
    }
}

/// When a command was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds of the group's clock (see [`crate::leader_clock`]).
    pub clock_ms: u64,
    /// The leader's wall clock, for people to read. It decides nothing.
    pub wall: Timestamp,
}

/// A committed log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub index: u64,
    pub body: Body<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A leader's first entry.
    Blank,
    /// The members of the group have changed.
    Membership { voters: BTreeSet<NodeId>, learners: BTreeSet<NodeId> },
    /// The bytes of [`Application::encode`].
    Command(&'a [u8]),
}

/// The result of an entry.
#[derive(Debug)]
pub struct Effect<A: Application> {
    pub outcome: A::Outcome,
    pub notices: Vec<A::Notice>,
    /// Whether controllers follow it. What clients write at a high rate, no controller follows.
    pub concerns_controllers: bool,
}

/// Answers an application's queries, on the leader.
pub trait QueryHandler<A: Application>: Send + Sync + 'static {
    fn answer(&self, query: A::Query, deadline: Instant) -> BoxFuture<'_, LeaderAnswer<A::Answer>>;
}

/// A node's answer to a call that only a leader can serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaderAnswer<T> {
    Answer(T),
    Refused(Refusal),
    /// This node does not lead, or not yet. Nothing was done.
    NotLeader,
    /// It may have been done or not.
    Unknown,
}

impl<T> LeaderAnswer<T> {
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> LeaderAnswer<U> {
        match self {
            LeaderAnswer::Answer(answer) => LeaderAnswer::Answer(map(answer)),
            LeaderAnswer::Refused(refusal) => LeaderAnswer::Refused(refusal),
            LeaderAnswer::NotLeader => LeaderAnswer::NotLeader,
            LeaderAnswer::Unknown => LeaderAnswer::Unknown,
        }
    }
}
