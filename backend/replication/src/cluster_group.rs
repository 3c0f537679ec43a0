//! The cluster group: the one door to the replicated state.
//!
//! Whoever holds a [`ClusterGroup`], on any node, can propose, plan and read. What only the leader
//! can do travels to it over the peer link, and is tried again under the same request id while
//! leadership moves, until a deadline. A request that was sent and not answered by then may or may
//! not have taken effect, and the answer says so.

mod forward;
pub mod locks;
mod members;
mod registrations;
mod standing;

pub use self::forward::Forwarded;

use self::{
    forward::{Answer, Call},
    locks::Waiters,
    registrations::Renewals,
    standing::Meter,
};
use crate::{
    leader_clock::LeaderClock,
    state_machine::{Published, StateMachine},
    types::{Payload, TypeConfig},
};
use openraft::{
    Instant as _, Raft, ReadPolicy,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
    impls::ProgressResponder,
};
use ringmaster_cluster::version::Formats;
use ringmaster_cluster::{
    State,
    command::{ClusterTime, Command, Outcome, Record, Request, Response},
    planner,
};
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    id::{NodeId, Revision},
    operation::Operation,
    plan::Plan,
};
use ringmaster_net::clock;
use ringmaster_net::latencies::Latencies;
use ringmaster_peer::Peers;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{timeout, timeout_at};

/// How long to wait before asking again for the leader.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A leader reads under its lease but for the last part of it, one in so many: clocks of nodes may run
/// apart by that, and a thread may be held up.
const LEASE_MARGIN: u32 = 4;

pub type ClusterRaft = Raft<TypeConfig, StateMachine>;

#[derive(Clone)]
pub struct ClusterGroup(Arc<Inner>);

impl fmt::Debug for ClusterGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterGroup").field(&self.0.me).finish()
    }
}

struct Inner {
    me: NodeId,
    raft: ClusterRaft,
    published: Arc<Published>,
    peers: Peers,
    clock: LeaderClock,
    latencies: Latencies,
    waiters: Waiters,
    renewals: Renewals,
    meter: Meter,
    /// How long followers stand by a leader that they have heard.
    lease: Duration,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Sees all that was acknowledged before the read began: the leader asks a quorum.
    #[default]
    Linearizable,
    /// The same as long as no clock runs faster than others by more than the lease allows for: the
    /// leader trusts its lease.
    Lease,
    /// Whatever this node has applied.
    Stale,
}

impl ClusterGroup {
    pub fn new(
        me: NodeId,
        raft: ClusterRaft,
        published: Arc<Published>,
        peers: Peers,
        lease: Duration,
    ) -> Self {
        let (clock, latencies) = (LeaderClock::default(), Latencies::default());
        ClusterGroup(Arc::new(Inner {
            me,
            raft,
            published,
            peers,
            clock,
            latencies,
            waiters: Waiters::default(),
            renewals: Renewals::default(),
            meter: Meter::default(),
            lease,
        }))
    }

    pub fn me(&self) -> NodeId {
        self.0.me
    }

    pub(super) fn raft(&self) -> &ClusterRaft {
        &self.0.raft
    }

    /// What this node has applied.
    pub fn state(&self) -> Arc<State> {
        self.0.published.state()
    }

    pub fn published(&self) -> &Arc<Published> {
        &self.0.published
    }

    pub fn latencies(&self) -> &Latencies {
        &self.0.latencies
    }

    /// The term in which this node leads and has applied the first entry, if it does.
    pub fn leading(&self) -> Option<u64> {
        let term = self.0.raft.as_leader().ok()?.term();
        (self.0.published.applied().term == term).then_some(term)
    }

    /// Waits until this node leads, and tells in which term. Never done once Raft has stopped.
    pub async fn until_leading(&self) -> u64 {
        let mut applied = self.0.published.watch();
        let mut standing = self.0.raft.server_metrics();
        loop {
            if let Some(term) = self.leading() {
                return term;
            }
            let elected = standing.wait_until(|now| now.current_leader == Some(self.me()));
            // Elected, it leads once it has applied the first entry of its term.
            if elected.await.is_err() || applied.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Cluster time, while this node leads.
    pub fn cluster_time(&self) -> Option<ClusterTime> {
        let term = self.leading()?;
        let published = &self.0.published;
        self.0.clock.stamp(term, clock::now(), published.applied(), || published.state().clock)
    }

    /// Proposes a command, wherever the leader is. The answer is applied on this node too, so that
    /// whoever asked can read here what they did.
    pub async fn propose(
        &self,
        request: Request,
        command: Command,
        deadline: Instant,
    ) -> Result<Response, Refusal> {
        match self.at_leader(Call::Propose { request, command }, deadline).await? {
            Answer::Response(response) => self.seen_here(*response, deadline).await,
            _ => Err(out_of_protocol()),
        }
    }

    /// Proposes what follows from leading in `term`, and in no other: what the next leader should do,
    /// it finds out by itself.
    pub async fn propose_in(
        &self,
        term: u64,
        request: Request,
        command: Command,
        deadline: Instant,
    ) -> Result<Response, Refusal> {
        match self.propose_here(request, command, Some(term), deadline).await {
            Answer::Response(response) => self.seen_here(*response, deadline).await,
            Answer::Refused(refusal) => Err(refusal),
            Answer::Unknown => Err(self.unanswered(true)),
            Answer::ReadIndex(_) | Answer::Renewed(_) | Answer::NotLeader => Err(Refusal::new(
                Code::NoLeader,
                format!("node {} does not lead term {term} any more", self.me()),
            )),
        }
    }

    /// Has the leader make a plan.
    pub async fn plan(&self, request: Request, action: Action, deadline: Instant) -> Result<Plan, Refusal> {
        match self.at_leader(Call::Plan { request, action }, deadline).await? {
            Answer::Response(response) => match self.seen_here(*response, deadline).await?.outcome {
                Outcome::Plan(plan) => Ok(*plan),
                _ => Err(out_of_protocol()),
            },
            _ => Err(out_of_protocol()),
        }
    }

    /// Proposes what answers with an operation; tells whether this very request started it.
    pub async fn operate(
        &self,
        request: Request,
        command: Command,
        deadline: Instant,
    ) -> Result<(Operation, bool), Refusal> {
        match self.propose(request, command, deadline).await?.outcome {
            Outcome::Operation { operation, started } => Ok((*operation, started)),
            _ => Err(out_of_protocol()),
        }
    }

    /// A state as fresh as asked for.
    pub async fn read(&self, consistency: Consistency, deadline: Instant) -> Result<Arc<State>, Refusal> {
        let lease = match consistency {
            Consistency::Stale => return Ok(self.state()),
            Consistency::Lease => true,
            Consistency::Linearizable => false,
        };
        match self.at_leader(Call::ReadIndex { lease }, deadline).await? {
            Answer::ReadIndex(index) => {
                self.wait_applied(Revision(index), deadline).await?;
                Ok(self.state())
            }
            _ => Err(out_of_protocol()),
        }
    }

    /// Waits until this node has applied `revision`.
    pub async fn wait_applied(&self, revision: Revision, deadline: Instant) -> Result<(), Refusal> {
        let mut applied = self.0.published.watch();
        match timeout_at(deadline.into(), applied.wait_for(|applied| applied.revision >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refusal::new(
                Code::NotReady,
                format!(
                    "node {} has not applied revision {revision} in time; ask another node, or again",
                    self.me()
                ),
            )),
        }
    }

    async fn seen_here(&self, response: Response, deadline: Instant) -> Result<Response, Refusal> {
        // The command is done whether or not this node comes to see it in time.
        let _ = self.wait_applied(response.revision, deadline).await;
        match response.outcome {
            Outcome::Refused(refusal) => Err(refusal),
            _ => Ok(response),
        }
    }

    /// Refuses what not every member could read. This node may be late to hear that all can by now.
    fn check_level(&self, needed: u32) -> Result<(), Refusal> {
        let level = self.state().feature_level;
        if needed <= level {
            return Ok(());
        }
        Err(Refusal::new(
            Code::UpgradeUnfinished,
            format!(
                "the cluster is at feature level {level}, and this takes level {needed}; it rises by itself once every node runs a version that can do it"
            ),
        ))
    }

    /// Asks the leader, whoever that is by then, until the deadline.
    async fn at_leader(&self, mut call: Call, deadline: Instant) -> Result<Answer, Refusal> {
        tracing::debug!(request = call.request_id(), node = %self.me(), "a request for the leader");
        self.check_level(call.level())?;
        let mut sent = false;
        // Whatever becomes of the first attempt, it is ordered after this.
        let first_sent = self.0.published.applied().revision;
        loop {
            if sent {
                call.resent(first_sent);
            }
            let leader = self.leader();
            let answer = match leader {
                Some(leader) if leader == self.me() => self.serve(call.clone(), deadline).await,
                Some(leader) => self.ask(leader, &call, deadline).await,
                None => Answer::NotLeader,
            };
            match answer {
                Answer::Refused(refusal) => return Err(refusal),
                Answer::Unknown => sent = true,
                Answer::NotLeader => {}
                answer => return Ok(answer),
            }
            if clock::now() + RETRY_PAUSE >= deadline {
                return Err(self.unanswered(sent));
            }
            // Over at once, if leadership has moved on.
            let _ = timeout(RETRY_PAUSE, self.leader_other_than(leader)).await;
        }
    }

    async fn leader_other_than(&self, leader: Option<NodeId>) {
        let mut metrics = self.0.raft.server_metrics();
        // Without Raft there is no leader at all, and no news of one.
        if metrics.wait_until(|now| now.current_leader != leader).await.is_err() {
            std::future::pending().await
        }
    }

    fn unanswered(&self, sent: bool) -> Refusal {
        let quorum = self.quorum();
        let standing = format!(
            "{} of {} voters answer node {}, and {} are needed",
            quorum.answering,
            quorum.voters,
            self.me(),
            quorum.needed
        );
        if sent {
            Refusal::new(
                Code::OutcomeUnknown,
                format!(
                    "the request was sent and not answered, so it may still be done; {standing}; repeat it under the same Idempotency-Key to learn what became of it"
                ),
            )
        } else {
            Refusal::new(
                Code::NoLeader,
                format!("no leader took the request in time, and nothing was done; {standing}; try again"),
            )
        }
    }

    async fn serve(&self, call: Call, deadline: Instant) -> Answer {
        match call {
            Call::Propose { request, command } => self.propose_here(request, command, None, deadline).await,
            Call::Plan { request, action } => {
                if self.leading().is_none() {
                    return Answer::NotLeader;
                }
                let state = self.state();
                // Planned again, a repeat might be refused; it is answered as it was the first time.
                match state.requests.find(&request, Command::fingerprint_of_plan(&action)) {
                    Some(Ok(response)) => return Answer::Response(Box::new(response.as_ref().clone())),
                    Some(Err(refusal)) => return Answer::Refused(refusal),
                    None => {}
                }
                match planner::plan(&state, &self.observations(), action) {
                    Ok(draft) => {
                        let command = Command::CreatePlan { draft: Box::new(draft) };
                        self.propose_here(request, command, None, deadline).await
                    }
                    Err(refusal) => Answer::Refused(refusal),
                }
            }
            Call::Renew { upstream, endpoint } => self.renew_here(&upstream, &endpoint),
            Call::ReadIndex { lease: true } if let Some(index) = self.lease_read().await => {
                Answer::ReadIndex(index)
            }
            // A leader that is not sure of its lease asks.
            Call::ReadIndex { .. } => {
                let read = self.0.raft.get_read_log_id(ReadPolicy::ReadIndex);
                match timeout_at(deadline.into(), read).await {
                    Ok(Ok((read, _))) => Answer::ReadIndex(read.index()),
                    Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_)))) => {
                        Answer::NotLeader
                    }
                    // Without a quorum, there is no read that is not stale.
                    Ok(Err(_)) | Err(_) => Answer::NotLeader,
                }
            }
        }
    }

    /// The index to read at, where the lease was good for certain even after it was looked up.
    async fn lease_read(&self) -> Option<u64> {
        let (read, _) = self.0.raft.get_read_log_id(ReadPolicy::LeaseRead).await.ok()?;
        let acked = self.0.raft.data_metrics().borrow_watched().last_quorum_acked?.into_inner();
        (acked.elapsed() < self.0.lease / LEASE_MARGIN * (LEASE_MARGIN - 1)).then(|| read.index())
    }

    /// Stamps and submits, for the present term alone: what would be ordered in a later one is
    /// refused by openraft, because its stamp would be of another leader's clock.
    async fn propose_here(
        &self,
        request: Request,
        command: Command,
        only_in: Option<u64>,
        deadline: Instant,
    ) -> Answer {
        if let Err(refusal) = self.check_level(command.level()) {
            return Answer::Refused(refusal);
        }
        let raft = &self.0.raft;
        let Ok(leader) = raft.as_leader() else { return Answer::NotLeader };
        let term = leader.term();
        if only_in.is_some_and(|only| only != term) {
            return Answer::NotLeader;
        }
        let published = &self.0.published;
        // One that was just elected has something to do first; it takes milliseconds.
        let mut applied = published.watch();
        if !matches!(
            timeout_at(deadline.into(), applied.wait_for(|applied| applied.term >= term)).await,
            Ok(Ok(_))
        ) {
            return Answer::NotLeader;
        }
        let now = clock::now();
        let Some(stamp) = self.0.clock.stamp(term, now, published.applied(), || published.state().clock)
        else {
            return Answer::NotLeader;
        };
        // What this node has applied is committed: every member reads what that level says.
        let format = Formats::at(published.state().feature_level).record;
        let record = Record { format, stamp, wall: clock::wall(), request, command };
        self.0.latencies.proposed();
        let (responder, answer) = ProgressResponder::complete_only();
        let submitted = raft
            .write(Payload(record.encode()))
            .with_leader(leader.to_committed_leader_id())
            .responder(responder)
            .await;
        if submitted.is_err() {
            return Answer::NotLeader;
        }
        match timeout_at(deadline.into(), answer).await {
            Ok(Ok(Ok(written))) => {
                self.0.latencies.record(clock::now().saturating_duration_since(now));
                match Response::decode(&written.data) {
                    Ok(response) => Answer::Response(Box::new(response)),
                    Err(_) => Answer::Refused(out_of_protocol()),
                }
            }
            Ok(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => Answer::NotLeader,
            Ok(_) | Err(_) => Answer::Unknown,
        }
    }

    /// Whom this node takes for the leader.
    pub fn leader(&self) -> Option<NodeId> {
        self.0.raft.server_metrics().borrow_watched().current_leader
    }

    pub async fn shutdown(&self) {
        // The process ends next; there is nobody to tell of an error.
        let _ = self.0.raft.shutdown().await;
    }
}

fn out_of_protocol() -> Refusal {
    Refusal::new(
        Code::Internal,
        "the leader gave an answer of another kind; do all nodes run the same version?",
    )
}
