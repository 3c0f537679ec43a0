//! What only the leader can do, on its way there: from the node that has the client, over the peer link.
//!
//! It is forwarded once. The node that has the client looks for the leader, and goes on looking.

use super::ClusterGroup;
use bytes::Bytes;
use ringmaster_cluster::{
    command::{Command, Request, Response},
    traffic,
};
use ringmaster_common::{
    action::Action,
    duration::millis,
    error::{Code, Refusal},
    id::{GroupId, NodeId, Revision},
};
use ringmaster_net::clock;
use ringmaster_peer as peer;
use ringmaster_peer::{Channel, Lane, Service, Session, Trace};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// How long a single call to the leader may take before leadership is looked at again.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_500);

/// What other nodes forward to the leader.
pub const FORWARD: Channel = Channel(16);

/// What only the leader can do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Call {
    Propose {
        request: Request,
        command: Command,
    },
    Plan {
        request: Request,
        action: Action,
    },
    ReadIndex {
        lease: bool,
    },
    /// A registration goes on.
    Renew {
        upstream: String,
        endpoint: String,
    },
}

/// A call on its way to the leader, and how long whoever sent it will wait.
#[derive(Debug, Serialize, Deserialize)]
struct Forward<C> {
    left_ms: u64,
    call: C,
}

impl Call {
    /// It was sent before, after this revision, and perhaps carried out.
    pub(super) fn resent(&mut self, after: Revision) {
        if let Call::Propose { request, .. } | Call::Plan { request, .. } = self {
            request.resent_after = Some(after);
        }
    }

    /// The feature level at which all members can read it.
    pub(super) fn level(&self) -> u32 {
        match self {
            Call::Propose { command, .. } => command.level(),
            Call::Plan { action, .. } => traffic::level_of(action),
            Call::Renew { .. } => traffic::LEVEL,
            Call::ReadIndex { .. } => 0,
        }
    }

    pub(super) fn request_id(&self) -> &str {
        match self {
            Call::Propose { request, .. } | Call::Plan { request, .. } => &request.id,
            Call::ReadIndex { .. } | Call::Renew { .. } => "",
        }
    }

    /// What ties it to the request that caused it, on this node and the next.
    fn trace(&self) -> Trace {
        match self {
            Call::Propose { request, .. } | Call::Plan { request, .. } => trace_of(request),
            Call::ReadIndex { .. } | Call::Renew { .. } => Trace::default(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Response(Box<Response>),
    Refused(Refusal),
    ReadIndex(u64),
    /// Whether it does.
    Renewed(bool),
    /// Not led here, or not yet. Nothing was done.
    NotLeader,
    /// It may have been done or not.
    Unknown,
}

impl ClusterGroup {
    pub(super) async fn ask(&self, leader: NodeId, call: &Call, deadline: Instant) -> Answer {
        let left = deadline.saturating_duration_since(clock::now()).min(CALL_TIMEOUT);
        let body = encode(&Forward { left_ms: millis(left), call });
        let request = peer::Request {
            channel: FORWARD,
            group: GroupId::CLUSTER,
            trace: call.trace(),
            lane: Lane::Bulk,
            body,
        };
        let call = self.0.peers.call(leader, request, left);
        tokio::select! {
            biased;
            answer = call => match answer {
                Ok(answer) => rmp_serde::from_slice(&answer).unwrap_or(Answer::Unknown),
                Err(error) if error.may_have_been_served() => Answer::Unknown,
                Err(_) => Answer::NotLeader,
            },
            // One that was cut off will not answer; who leads instead learns of the request's id.
            () = self.leader_other_than(Some(leader)) => Answer::Unknown,
        }
    }

    /// What other nodes forward. It is not forwarded again: the node that has the client
    /// looks for the leader.
    async fn serve_forwarded(&self, body: &[u8]) -> Bytes {
        let answer = match rmp_serde::from_slice::<Forward<Call>>(body) {
            Ok(Forward { left_ms, call }) => {
                tracing::debug!(request = call.request_id(), "a request was forwarded here");
                let left = Duration::from_millis(left_ms).min(CALL_TIMEOUT);
                self.serve(call, clock::now() + left).await
            }
            Err(error) => Answer::Refused(Refusal::new(
                Code::Internal,
                format!("node {} does not understand the forwarded request: {error}", self.me()),
            )),
        };
        encode(&answer)
    }
}

/// The receiving end of [`FORWARD`]. The group comes later than the links that it needs.
#[derive(Clone, Debug, Default)]
pub struct Forwarded(Arc<OnceLock<ClusterGroup>>);

impl Forwarded {
    pub fn serve(&self, group: ClusterGroup) {
        // It is set once, when the node starts.
        let _ = self.0.set(group);
    }
}

impl Service for Forwarded {
    fn serves(&self, channel: Channel) -> bool {
        channel == FORWARD
    }

    fn connected(&self, _: NodeId) -> Box<dyn Session> {
        Box::new(self.clone())
    }
}

impl Session for Forwarded {
    fn receive(&mut self, request: peer::Incoming) {
        // Without a group yet, the request is dropped, and its asker tries again.
        let Some(group) = self.0.get().cloned() else { return };
        tracing::debug!(from = %request.from, trace = %request.trace, "a frame for the leader came");
        tokio::spawn(async move {
            let body = group.serve_forwarded(&request.body).await;
            request.answer.reply(body);
        });
    }
}

/// The trace of a request. Ids that nodes make up are UUIDs; others are hashed, so that a trace has one form.
fn trace_of(request: &Request) -> Trace {
    let id = uuid::Uuid::parse_str(&request.id).map(|id| id.as_u128());
    Trace(id.unwrap_or_else(|_| u128::from(crc32fast::hash(request.id.as_bytes()))))
}

fn encode(value: &impl Serialize) -> Bytes {
    rmp_serde::to_vec_named(value).expect("plain data encodes").into()
}
