//! The cluster group: the one door to the replicated state.
//!
//! Whoever holds a [`ClusterGroup`], on any node, can propose, plan and read. What only the leader
//! can do travels to it over the peer link, and is tried again under the same request id while
//! leadership moves, until a deadline. A request that was sent and not answered by then may or may
//! not have taken effect, and the answer says so.

use crate::{
    clock,
    peer::{self, Channel, Lane, Peers, Service, Session, Trace},
    raft::{
        leader_clock::LeaderClock,
        state_machine::{Published, StateMachine},
        types::{Payload, TypeConfig},
    },
    state::{
        State,
        command::{ClusterTime, Command, Outcome, RECORD_FORMAT, Record, Request, Response},
        planner::{self, Observations, PeerObservation},
    },
    telemetry::Latencies,
};
use bytes::Bytes;
use openraft::{
    BasicNode, ChangeMembers, Raft, ReadPolicy, ServerState,
    async_runtime::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, LinearizableReadError, RaftError},
    impls::ProgressResponder,
};
use ringmaster_common::{
    action::Action,
    cluster::Role,
    duration::millis,
    error::{Code, Refusal},
    id::{GroupId, NodeId, Revision},
    operation::Operation,
    plan::Plan,
    telemetry::Replication,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::time::{timeout, timeout_at};

/// How long to wait before asking again for the leader.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// How long a single call to the leader may take before leadership is looked at again.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_500);

/// What other nodes forward to the leader.
pub const FORWARD: Channel = Channel(16);

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
    election_bound: Duration,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Sees all that was acknowledged before the read began: the leader asks a quorum.
    Linearizable,
    /// The same as long as no clock runs faster than others by more than the lease allows for: the
    /// leader trusts its lease.
    Lease,
    /// Whatever this node has applied.
    Stale,
}

/// What openraft says of this node's part in the group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupStatus {
    pub role: Role,
    pub term: u64,
    pub leader: Option<NodeId>,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    /// For a leader.
    pub replication: Vec<Replication>,
    /// Whether consensus has stopped for good, and why.
    pub failed: Option<String>,
}

/// What only the leader can do.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Call {
    Propose { request: Request, command: Command },
    Plan { request: Request, action: Action },
    ReadIndex { lease: bool },
}

/// A call on its way to the leader, and how long whoever sent it will wait.
#[derive(Debug, Serialize, Deserialize)]
struct Forward<C> {
    left_ms: u64,
    call: C,
}

impl Call {
    /// It was sent before, after this revision, and perhaps carried out.
    fn resent(&mut self, after: Revision) {
        if let Call::Propose { request, .. } | Call::Plan { request, .. } = self {
            request.resent_after = Some(after);
        }
    }

    /// What ties it to the request that caused it, on this node and the next.
    fn trace(&self) -> Trace {
        match self {
            Call::Propose { request, .. } | Call::Plan { request, .. } => request.trace(),
            Call::ReadIndex { .. } => Trace::default(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Answer {
    Response(Box<Response>),
    Refused(Refusal),
    ReadIndex(u64),
    /// Not led here, or not yet. Nothing was done.
    NotLeader,
    /// It may have been done or not.
    Unknown,
}

impl ClusterGroup {
    pub fn new(
        me: NodeId,
        raft: ClusterRaft,
        published: Arc<Published>,
        peers: Peers,
        election_bound: Duration,
    ) -> Self {
        let (clock, latencies) = (LeaderClock::default(), Latencies::default());
        ClusterGroup(Arc::new(Inner { me, raft, published, peers, clock, latencies, election_bound }))
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
            Answer::ReadIndex(_) | Answer::NotLeader => Err(Refusal::new(
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

    /// Asks the leader, whoever that is by then, until the deadline.
    async fn at_leader(&self, mut call: Call, deadline: Instant) -> Result<Answer, Refusal> {
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
        let state = self.state();
        let voters = state.membership.voters.len();
        let standing =
            format!("{} of {voters} voters are up by the last count", state.membership.living_voters());
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

    async fn ask(&self, leader: NodeId, call: &Call, deadline: Instant) -> Answer {
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
                    Some(Ok(response)) => return Answer::Response(Box::new(response)),
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
            Call::ReadIndex { lease } => {
                let policy = if lease { ReadPolicy::LeaseRead } else { ReadPolicy::ReadIndex };
                match timeout_at(deadline.into(), self.0.raft.get_read_log_id(policy)).await {
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

    /// Stamps and submits, for the present term alone: what would be ordered in a later one is
    /// refused by openraft, because its stamp would be of another leader's clock.
    async fn propose_here(
        &self,
        request: Request,
        command: Command,
        only_in: Option<u64>,
        deadline: Instant,
    ) -> Answer {
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
        let record = Record { format: RECORD_FORMAT, stamp, wall: clock::wall(), request, command };
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

    /// What the leader measured, for planners and for the first step of an operation.
    pub fn observations(&self) -> Observations {
        let links = self.0.peers.links();
        let peers = self
            .status()
            .replication
            .iter()
            .map(|replication| {
                let silent =
                    links.iter().find(|link| link.peer == replication.node).and_then(|link| link.silent_for);
                let age = silent.unwrap_or(Duration::MAX);
                (replication.node, PeerObservation { lag: Some(replication.lag), age })
            })
            .collect();
        Observations { peers, election_bound: self.0.election_bound }
    }

    /// This node's part in the group, at the cost of a glance.
    pub fn standing(&self) -> (Role, u64, Option<NodeId>) {
        let metrics = self.0.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        (role(metrics.state), metrics.vote.leader_id.term, metrics.current_leader)
    }

    pub fn status(&self) -> GroupStatus {
        let metrics = self.0.raft.metrics().borrow_watched().clone();
        let index = |id: &Option<crate::raft::types::LogId>| id.as_ref().map_or(0, |id| id.index);
        let last_log_index = metrics.last_log_index.unwrap_or(0);
        GroupStatus {
            role: role(metrics.state),
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log_index,
            committed_index: index(&metrics.local_committed),
            applied_index: index(&metrics.last_applied),
            snapshot_index: index(&metrics.snapshot),
            replication: metrics
                .replication
                .iter()
                .flatten()
                .filter(|(node, _)| **node != self.me())
                // Of whom this leader has not heard yet, it does not know how far behind they are.
                .filter_map(|(node, matched)| {
                    let matched_index = matched.as_ref()?.index;
                    let lag = last_log_index.saturating_sub(matched_index);
                    Some(Replication { node: *node, matched_index, lag })
                })
                .collect(),
            failed: metrics.running_state.err().map(|error| error.to_string()),
        }
    }

    /// Everybody to keep a link with: the members that the state tells of, and those that consensus
    /// already counts, which may be more while the state is behind.
    pub fn members(&self) -> Vec<(NodeId, String)> {
        let metrics = self.0.raft.server_metrics().borrow_watched().clone();
        let counted =
            metrics.membership_config.membership().nodes().map(|(id, node)| (*id, node.addr.clone()));
        let state = self.state();
        let told = state.membership.iter().map(|node| (node.id, node.peer_addr.clone()));
        counted.chain(told).collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    /// Starts the group with this node as its only voter, unless it has ever been started.
    pub async fn bootstrap(&self, peer_addr: &str) -> Result<(), String> {
        if self.0.raft.is_initialized().await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        let members = [(self.me(), BasicNode::new(peer_addr))];
        self.0.raft.initialize(BTreeMap::from(members)).await.map_err(|error| error.to_string())
    }

    /// Asks openraft to hand the leadership over. That it did is seen by the election alone.
    pub async fn transfer(&self, to: NodeId) -> Result<(), String> {
        self.0.raft.trigger().transfer_leader(to).await.map_err(|error| error.to_string())
    }

    /// Adds a learner; nothing happens where it is a member already.
    pub async fn add_learner(&self, node: NodeId, peer_addr: &str) -> Result<(), String> {
        self.change_members(ChangeMembers::AddNodes([(node, BasicNode::new(peer_addr))].into())).await
    }

    /// Makes a learner a voter; nothing happens where it is one already.
    pub async fn promote(&self, node: NodeId) -> Result<(), String> {
        self.change_members(ChangeMembers::AddVoterIds([node].into())).await
    }

    /// Has these vote, and nobody else. Who no longer votes goes on as a learner.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), String> {
        self.change_members(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Lets a learner go; nothing happens where it is gone already.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), String> {
        let metrics = self.0.raft.server_metrics().borrow_watched().clone();
        if metrics.membership_config.membership().get_node(&node).is_none() {
            return Ok(());
        }
        self.change_members(ChangeMembers::RemoveNodes([node].into())).await
    }

    /// One change of members is made at a time: one that is under way, perhaps by a leader before
    /// this one, is waited for. The caller says for how long.
    async fn change_members(&self, change: ChangeMembers<NodeId, BasicNode>) -> Result<(), String> {
        loop {
            match self.0.raft.change_membership(change.clone(), true).await {
                Ok(_) => return Ok(()),
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ))) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Whether this node may stand for election.
    pub fn stand(&self, may: bool) {
        self.0.raft.runtime_config().elect(may);
    }

    pub async fn shutdown(&self) {
        // The process ends next; there is nobody to tell of an error.
        let _ = self.0.raft.shutdown().await;
    }
}

/// The receiving end of [`FORWARD`]. The group comes later than the links that it needs.
#[derive(Clone, Default)]
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
        tracing::debug!(from = %request.from, trace = %request.trace, "a request was forwarded here");
        tokio::spawn(async move {
            let body = group.serve_forwarded(&request.body).await;
            request.answer.reply(body);
        });
    }
}

impl Request {
    /// Ids that nodes make up are UUIDs; others are hashed, so that a trace has one form.
    fn trace(&self) -> Trace {
        let id = uuid::Uuid::parse_str(&self.id).map(|id| id.as_u128());
        Trace(id.unwrap_or_else(|_| u128::from(crc32fast::hash(self.id.as_bytes()))))
    }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        _ => Role::Follower,
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    rmp_serde::to_vec_named(value).expect("plain data encodes").into()
}

fn out_of_protocol() -> Refusal {
    Refusal::new(
        Code::Internal,
        "the leader gave an answer of another kind; do all nodes run the same version?",
    )
}
