//! Calls to the leader, from the node that has the client, over the peer link.
//!
//! A call is forwarded once: the node that has the client looks for the leader, and keeps looking.

use crate::{
    application::{Application, LeaderAnswer, LeaderCall},
    replica::Replica,
    wire,
};
use bytes::Bytes;
use ringmaster_common::{
    duration::millis,
    id::{NodeId, Revision},
};
use ringmaster_net::clock;
use ringmaster_peer::{Lane, Request, Trace};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How long a single call to the leader may take before leadership is looked at again.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A call that only the leader can serve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Call<C, Q> {
    Propose(C),
    ReadIndex { lease: bool },
    Query(Q),
}

/// The leader's reply to a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply<T> {
    /// The outcome is decoded where the client is.
    Applied {
        revision: Revision,
        outcome: Bytes,
    },
    ReadIndex(Revision),
    Answer(T),
}

pub type CallOf<A> = Call<<A as Application>::Command, <A as Application>::Query>;
pub type ReplyOf<A> = Reply<<A as Application>::Answer>;

/// A call on its way to the leader, and how long the sender will wait.
#[derive(Debug, Serialize, Deserialize)]
struct Forward<C> {
    remaining_ms: u64,
    call: C,
}

impl<C: LeaderCall, Q: LeaderCall> Call<C, Q> {
    pub fn request_id(&self) -> &str {
        match self {
            Call::Propose(command) => command.request_id(),
            Call::Query(query) => query.request_id(),
            Call::ReadIndex { .. } => "",
        }
    }

    pub fn sent_again(&mut self, revision: Revision) {
        match self {
            Call::Propose(command) => command.sent_again(revision),
            Call::Query(query) => query.sent_again(revision),
            Call::ReadIndex { .. } => {}
        }
    }
}

/// Sends a call to the leader, and waits for its answer.
pub async fn send_call<A: Application>(
    replica: &Replica,
    leader: NodeId,
    call: &CallOf<A>,
    deadline: Instant,
) -> LeaderAnswer<ReplyOf<A>> {
    let remaining = deadline.saturating_duration_since(clock::now()).min(CALL_TIMEOUT);
    let request = Request {
        channel: wire::FORWARD,
        group: replica.group(),
        trace: trace(call.request_id()),
        lane: Lane::Bulk,
        body: encode(&Forward { remaining_ms: millis(remaining), call }),
    };
    let call = replica.peers().call(leader, request, remaining);
    tokio::select! {
        biased;
        answer = call => match answer {
            Ok(answer) => rmp_serde::from_slice(&answer).unwrap_or(LeaderAnswer::Unknown),
            Err(error) if error.may_have_been_served() => LeaderAnswer::Unknown,
            Err(_) => LeaderAnswer::NotLeader,
        },
        // A leader that is cut off will not answer; the next one learns the request's id.
        () = replica.leader_other_than(Some(leader)) => LeaderAnswer::Unknown,
    }
}

/// A forwarded call, and until when the sender waits.
pub fn decode<A: Application>(body: &[u8]) -> Result<(CallOf<A>, Instant), rmp_serde::decode::Error> {
    let Forward { remaining_ms, call } = rmp_serde::from_slice(body)?;
    let remaining = Duration::from_millis(remaining_ms).min(CALL_TIMEOUT);
    Ok((call, clock::now() + remaining))
}

pub fn encode(value: &impl Serialize) -> Bytes {
    rmp_serde::to_vec_named(value).expect("plain data encodes").into()
}

/// Ties the frame to the request that causes it, on this node and the next. Ids that nodes make up are UUIDs; others are
/// hashed, so that a trace has one form.
fn trace(request_id: &str) -> Trace {
    if request_id.is_empty() {
        return Trace::default();
    }
    let id = uuid::Uuid::parse_str(request_id).map(|id| id.as_u128());
    Trace(id.unwrap_or_else(|_| u128::from(crc32fast::hash(request_id.as_bytes()))))
}
