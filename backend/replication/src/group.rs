//! A Raft group, by the types of its application.
//!
//! A [`RaftGroup`] proposes and reads, on any node. What only the leader can do travels to it over the peer link
//! ([`forward`]), and is tried again under the same request id while leadership moves, until a deadline. A request that
//! was sent and not answered by then may or may not have taken effect, and the refusal says so.

mod forward;

use self::forward::{Call, CallOf, Reply, ReplyOf};
use crate::{
    application::{Application, LeaderAnswer, QueryHandler},
    machine::decode_outcome,
    published::Published,
    registry::Member,
    replica::{RETRY_PAUSE, Replica, Submitted},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
};
use ringmaster_net::clock;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Instant,
};
use tokio::time::timeout;

/// A Raft group, on this node. Cheap to clone.
pub struct RaftGroup<A: Application>(Arc<Inner<A>>);

struct Inner<A: Application> {
    replica: Replica,
    published: Arc<Published<A>>,
    queries: OnceLock<Box<dyn QueryHandler<A>>>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Includes all that was acknowledged before the read began: the leader asks a quorum.
    #[default]
    Linearizable,
    /// The same as long as no clock runs faster than others by more than the lease allows for: the
    /// leader trusts its lease.
    Lease,
    /// The state that this node has applied.
    Stale,
}

impl<A: Application> RaftGroup<A> {
    pub(crate) fn new(replica: Replica, published: Arc<Published<A>>) -> Self {
        RaftGroup(Arc::new(Inner { replica, published, queries: OnceLock::new() }))
    }

    /// Answers the application's queries from now on, while this node leads. The first handler stays.
    pub fn set_query_handler(&self, handler: impl QueryHandler<A>) {
        let _ = self.0.queries.set(Box::new(handler));
    }

    /// This node's replica: status, clock, membership changes.
    pub fn replica(&self) -> &Replica {
        &self.0.replica
    }

    /// The state that this node has applied.
    pub fn state(&self) -> Arc<A::State> {
        self.0.published.state()
    }

    pub fn published(&self) -> &Arc<Published<A>> {
        &self.0.published
    }

    pub fn application(&self) -> &A {
        self.0.published.application()
    }

    /// Proposes a command, wherever the leader is. When this returns, the command is applied on this node too, unless
    /// the deadline came first: so a client can read here what it did.
    pub async fn propose(&self, command: A::Command, deadline: Instant) -> Result<A::Outcome, Refusal> {
        match self.call_leader(Call::Propose(command), deadline).await? {
            Reply::Applied { revision, outcome } => {
                self.await_local_apply(revision, &outcome, deadline).await
            }
            Reply::ReadIndex(_) | Reply::Answer(_) => Err(unexpected_reply()),
        }
    }

    /// Proposes a command that follows from leading in `term`, in that term alone: a later leader decides for itself.
    pub async fn propose_if_term(
        &self,
        term: u64,
        command: A::Command,
        deadline: Instant,
    ) -> Result<A::Outcome, Refusal> {
        match self.submit(command, Some(term), deadline).await {
            LeaderAnswer::Answer((revision, outcome)) => {
                self.await_local_apply(revision, &outcome, deadline).await
            }
            LeaderAnswer::Refused(refusal) => Err(refusal),
            LeaderAnswer::Unknown => Err(self.unanswered(true)),
            LeaderAnswer::NotLeader => Err(Refusal::new(
                Code::NoLeader,
                format!("node {} does not lead term {term} any more", self.0.replica.node()),
            )),
        }
    }

    /// Proposes a command on this node alone, for a query handler.
    pub async fn propose_here(&self, command: A::Command, deadline: Instant) -> LeaderAnswer<A::Outcome> {
        match self.submit(command, None, deadline).await {
            LeaderAnswer::Answer((_, outcome)) => decode_outcome::<A>(&outcome)
                .map_or_else(|_| LeaderAnswer::Refused(unexpected_reply()), LeaderAnswer::Answer),
            LeaderAnswer::Refused(refusal) => LeaderAnswer::Refused(refusal),
            LeaderAnswer::NotLeader => LeaderAnswer::NotLeader,
            LeaderAnswer::Unknown => LeaderAnswer::Unknown,
        }
    }

    /// Asks the leader's [`QueryHandler`].
    pub async fn query(&self, query: A::Query, deadline: Instant) -> Result<A::Answer, Refusal> {
        match self.call_leader(Call::Query(query), deadline).await? {
            Reply::Answer(answer) => Ok(answer),
            Reply::Applied { .. } | Reply::ReadIndex(_) => Err(unexpected_reply()),
        }
    }

    /// A state as fresh as asked for.
    pub async fn read(&self, consistency: Consistency, deadline: Instant) -> Result<Arc<A::State>, Refusal> {
        let lease = match consistency {
            Consistency::Stale => return Ok(self.state()),
            Consistency::Lease => true,
            Consistency::Linearizable => false,
        };
        match self.call_leader(Call::ReadIndex { lease }, deadline).await? {
            Reply::ReadIndex(revision) => {
                self.wait_applied(revision, deadline).await?;
                Ok(self.state())
            }
            Reply::Applied { .. } | Reply::Answer(_) => Err(unexpected_reply()),
        }
    }

    /// Waits until this node has applied `revision`.
    pub async fn wait_applied(&self, revision: Revision, deadline: Instant) -> Result<(), Refusal> {
        if self.0.replica.wait_applied(revision, deadline).await {
            return Ok(());
        }
        Err(Refusal::new(
            Code::NotReady,
            format!(
                "node {} has not applied revision {revision} in time; ask another node, or again",
                self.0.replica.node()
            ),
        ))
    }

    async fn await_local_apply(
        &self,
        revision: Revision,
        outcome: &[u8],
        deadline: Instant,
    ) -> Result<A::Outcome, Refusal> {
        // The command is done whether or not this node applies it in time.
        self.0.replica.wait_applied(revision, deadline).await;
        decode_outcome::<A>(outcome).map_err(|_| unexpected_reply())
    }

    /// Asks the present leader, until the deadline.
    async fn call_leader(&self, mut call: CallOf<A>, deadline: Instant) -> Result<ReplyOf<A>, Refusal> {
        let replica = &self.0.replica;
        tracing::debug!(request = call.request_id(), node = %replica.node(), "a request for the leader");
        let mut sent = false;
        // If the first attempt is ordered, it is ordered after this.
        let first_sent = replica.progress().applied().revision;
        loop {
            if sent {
                call.sent_again(first_sent);
            }
            let leader = replica.leader();
            let answer = match leader {
                Some(leader) if leader == replica.node() => self.handle_call(call.clone(), deadline).await,
                Some(leader) => forward::send_call::<A>(replica, leader, &call, deadline).await,
                None => LeaderAnswer::NotLeader,
            };
            match answer {
                LeaderAnswer::Answer(reply) => return Ok(reply),
                LeaderAnswer::Refused(refusal) => return Err(refusal),
                // A read has no effect that could be unknown.
                LeaderAnswer::Unknown => sent = !matches!(call, Call::ReadIndex { .. }),
                LeaderAnswer::NotLeader => {}
            }
            if clock::now() + RETRY_PAUSE >= deadline {
                return Err(self.unanswered(sent));
            }
            // The pause ends at once if leadership has moved.
            let _ = timeout(RETRY_PAUSE, replica.leader_other_than(leader)).await;
        }
    }

    /// Answers a call on this node, if it leads.
    async fn handle_call(&self, call: CallOf<A>, deadline: Instant) -> LeaderAnswer<ReplyOf<A>> {
        match call {
            Call::Propose(command) => self
                .submit(command, None, deadline)
                .await
                .map(|(revision, outcome)| Reply::Applied { revision, outcome }),
            Call::ReadIndex { lease } => match self.0.replica.read_index(lease, deadline).await {
                Some(revision) => LeaderAnswer::Answer(Reply::ReadIndex(revision)),
                None => LeaderAnswer::NotLeader,
            },
            Call::Query(query) => match self.0.queries.get() {
                Some(handler) => handler.answer(query, deadline).await.map(Reply::Answer),
                None => LeaderAnswer::NotLeader,
            },
        }
    }

    /// Submits a command on this node, if it leads: the revision at which it was applied, and its encoded outcome.
    async fn submit(
        &self,
        command: A::Command,
        if_term: Option<u64>,
        deadline: Instant,
    ) -> LeaderAnswer<(Revision, Bytes)> {
        let replica = &self.0.replica;
        let Some(turn) = replica.turn(if_term, deadline).await else { return LeaderAnswer::NotLeader };
        // An applied state is committed, so every member can read a command that it allows.
        let state = self.state();
        if let Err(refusal) = self.application().admit(&state, &command) {
            return LeaderAnswer::Refused(refusal);
        }
        let entry = self.application().encode(&state, command, turn.stamp);
        match replica.submit(turn, entry, deadline).await {
            Submitted::Applied { revision, outcome } => LeaderAnswer::Answer((revision, outcome)),
            Submitted::NotLeader => LeaderAnswer::NotLeader,
            Submitted::Unknown => LeaderAnswer::Unknown,
        }
    }

    /// Why a request has no answer: `sent` means that it may have taken effect.
    pub fn unanswered(&self, sent: bool) -> Refusal {
        let quorum = self.0.replica.quorum();
        let answering = format!(
            "{} answer node {}, and writes need {}",
            quorum.answering_in_words(),
            self.0.replica.node(),
            quorum.requirement()
        );
        if sent {
            Refusal::new(
                Code::OutcomeUnknown,
                format!(
                    "the request was sent and not answered, so it may still be done; {answering}; repeat it under the \
                     same Idempotency-Key to learn what became of it"
                ),
            )
        } else {
            Refusal::new(
                Code::NoLeader,
                format!("no leader took the request in time; nothing was changed; {answering}; try again"),
            )
        }
    }
}

impl<A: Application> Member for RaftGroup<A> {
    fn replica(&self) -> &Replica {
        &self.0.replica
    }

    fn handle_forwarded(&self, body: Bytes) -> BoxFuture<'static, Bytes> {
        let group = self.clone();
        Box::pin(async move {
            let answer = match forward::decode::<A>(&body) {
                Ok((call, deadline)) => {
                    tracing::debug!(request = call.request_id(), "a request was forwarded here");
                    group.handle_call(call, deadline).await
                }
                Err(error) => LeaderAnswer::Refused(Refusal::new(
                    Code::Internal,
                    format!(
                        "node {} does not understand the forwarded request: {error}",
                        group.0.replica.node()
                    ),
                )),
            };
            forward::encode(&answer)
        })
    }
}

impl<A: Application> Clone for RaftGroup<A> {
    fn clone(&self) -> Self {
        RaftGroup(self.0.clone())
    }
}

impl<A: Application> fmt::Debug for RaftGroup<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RaftGroup").field(&self.0.replica).finish()
    }
}

fn unexpected_reply() -> Refusal {
    Refusal::new(
        Code::Internal,
        "the leader gave an answer of another kind; do all nodes run the same version?",
    )
}
