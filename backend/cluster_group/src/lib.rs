//! Group 0, the cluster group: the one way to the replicated state of the cluster.
//!
//! A [`ClusterGroup`] is a [`RaftGroup`] of the [`ClusterApplication`], with what the cluster's clients and controllers
//! ask for beside proposals and reads: plans, waiting for locks, renewals of registrations, observations. It works on
//! any node: calls for the leader are forwarded.

mod addresses;
mod application;
mod checkpoints;
mod lock_waiters;
pub mod locks;
mod observations;
mod queries;
pub mod recovery;
mod registrations;
mod start;
#[cfg(test)]
mod tests;

pub use self::{
    application::ClusterApplication,
    checkpoints::CHECKPOINT_EVERY,
    start::{Started, start},
};
pub use ringmaster_replication::{Applied, Consistency, GroupStatus, Remembered};

use self::{
    addresses::MovedMembers,
    application::{Answer, Proposal, Query, check_level},
    locks::Waiters,
    observations::RatesSource,
    queries::Queries,
    registrations::Renewals,
};
use ringmaster_cluster::{
    State,
    command::{ClusterTime, Command, Outcome, Request, Response},
    traffic,
};
use ringmaster_common::{
    action::Action,
    cluster::{Quorum, Role},
    error::{Code, Refusal},
    id::{NodeId, Revision},
    operation::Operation,
    plan::Plan,
};
use ringmaster_net::latencies::Latencies;
use ringmaster_replication::{Published, RaftGroup, application::Application};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// The cluster group, on this node. Cheap to clone.
#[derive(Clone)]
pub struct ClusterGroup(Arc<Inner>);

struct Inner {
    raft: RaftGroup<ClusterApplication>,
    waiters: Waiters,
    renewals: Renewals,
    rates: RatesSource,
    moved: MovedMembers,
}

impl ClusterGroup {
    fn new(raft: RaftGroup<ClusterApplication>, moved: BTreeMap<NodeId, String>) -> Self {
        let (waiters, renewals, rates) = (Waiters::default(), Renewals::default(), RatesSource::default());
        let moved = MovedMembers::new(moved);
        let group = ClusterGroup(Arc::new(Inner { raft, waiters, renewals, rates, moved }));
        group.0.raft.set_query_handler(Queries(Arc::downgrade(&group.0)));
        group
    }

    pub fn me(&self) -> NodeId {
        self.0.raft.replica().node()
    }

    /// The state that this node has applied.
    pub fn state(&self) -> Arc<State> {
        self.0.raft.state()
    }

    pub fn published(&self) -> &Arc<Published<ClusterApplication>> {
        self.0.raft.published()
    }

    pub fn latencies(&self) -> &Latencies {
        self.0.raft.replica().latencies()
    }

    /// The term in which this node leads and has applied the first entry, if it does.
    pub fn leading(&self) -> Option<u64> {
        self.0.raft.replica().leading()
    }

    /// Waits until this node leads, and returns the term. It never returns once Raft has stopped.
    pub async fn until_leading(&self) -> u64 {
        self.0.raft.replica().until_leading().await
    }

    /// Cluster time, while this node leads.
    pub fn cluster_time(&self) -> Option<ClusterTime> {
        self.0.raft.replica().clock_ms().map(ClusterTime)
    }

    /// Proposes a command, wherever the leader is. When this returns, the command is applied on this node too, unless
    /// the deadline came first: so a client can read here what it did.
    pub async fn propose(
        &self,
        request: Request,
        command: Command,
        deadline: Instant,
    ) -> Result<Response, Refusal> {
        let computed = || (request.repeatable && command.is_remembered()).then(|| command.fingerprint());
        let request = Request { fingerprint: request.fingerprint.or_else(computed), ..request };
        let proposal = Proposal { request, command };
        // The leader does so, too; here it costs no call.
        self.0.raft.application().admit(&self.state(), &proposal)?;
        accepted(self.0.raft.propose(proposal, deadline).await?)
    }

    /// Proposes a command that follows from leading in `term`, in that term alone: a later leader decides for itself.
    pub async fn propose_if_term(
        &self,
        term: u64,
        request: Request,
        command: Command,
        deadline: Instant,
    ) -> Result<Response, Refusal> {
        accepted(self.0.raft.propose_if_term(term, Proposal { request, command }, deadline).await?)
    }

    /// Asks the leader to make a plan.
    pub async fn plan(&self, request: Request, action: Action, deadline: Instant) -> Result<Plan, Refusal> {
        check_level(&self.state(), traffic::level_of(&action))?;
        let fingerprint = request.fingerprint.or_else(|| Some(Command::fingerprint_of_plan(&action)));
        let request = Request { fingerprint, ..request };
        let Answer::Plan(response) = self.0.raft.query(Query::Plan { request, action }, deadline).await?
        else {
            return Err(unexpected_answer());
        };
        // The plan is made whether or not this node applies it in time.
        self.0.raft.replica().wait_applied(response.revision, deadline).await;
        match accepted(response)?.outcome {
            Outcome::Plan(plan) => Ok(*plan),
            _ => Err(unexpected_answer()),
        }
    }

    /// Proposes a command that answers with an operation; the flag says whether this request started it.
    pub async fn operate(
        &self,
        request: Request,
        command: Command,
        deadline: Instant,
    ) -> Result<(Operation, bool), Refusal> {
        match self.propose(request, command, deadline).await?.outcome {
            Outcome::Operation { operation, started } => Ok((*operation, started)),
            _ => Err(unexpected_answer()),
        }
    }

    /// A state as fresh as asked for.
    pub async fn read(&self, consistency: Consistency, deadline: Instant) -> Result<Arc<State>, Refusal> {
        self.0.raft.read(consistency, deadline).await
    }

    /// Waits until this node has applied `revision`.
    pub async fn wait_applied(&self, revision: Revision, deadline: Instant) -> Result<(), Refusal> {
        self.0.raft.wait_applied(revision, deadline).await
    }

    /// Every node to keep a link with: the members in the state, and those that consensus already counts, which may be
    /// more while the state is behind.
    pub fn members(&self) -> Vec<(NodeId, String)> {
        let mut members: BTreeMap<NodeId, String> = self.0.raft.replica().members();
        let state = self.state();
        members.extend(state.membership.iter().map(|node| (node.id, node.peer_addr.clone())));
        self.0.moved.replace_in(&mut members);
        members.into_iter().collect()
    }

    /// Starts the group with this node as its only voter, unless it has ever been started.
    pub async fn bootstrap(&self, peer_addr: &str) -> Result<(), String> {
        self.0.raft.replica().initialize(&[(self.me(), peer_addr.to_owned())]).await
    }

    /// Asks openraft to hand the leadership over. Only the election shows that it did.
    pub async fn transfer(&self, to: NodeId) -> Result<(), String> {
        self.0.raft.replica().transfer(to).await
    }

    /// Adds a learner, unless the node is a member already.
    pub async fn add_learner(&self, node: NodeId, peer_addr: &str) -> Result<(), String> {
        self.0.raft.replica().add_learner(node, peer_addr).await
    }

    /// Makes a learner a voter, unless it is one already.
    pub async fn promote(&self, node: NodeId) -> Result<(), String> {
        self.0.raft.replica().promote(node).await
    }

    /// Makes exactly these members the voters. A former voter stays as a learner.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), String> {
        self.0.raft.replica().change_voters(voters).await
    }

    /// The sets of voters of each of which a majority is needed: two while a change of voters is under way.
    pub fn voter_sets(&self) -> Vec<BTreeSet<NodeId>> {
        self.0.raft.replica().voter_sets()
    }

    /// Finishes a change of voters that was left halfway. False where there is none.
    pub async fn finish_voter_change(&self) -> Result<bool, String> {
        self.0.raft.replica().finish_voter_change().await
    }

    /// Has consensus know the members under the addresses that the state has.
    pub async fn update_addresses(&self) -> Result<bool, String> {
        let state = self.state();
        let nodes = state.membership.iter().map(|node| (node.id, node.peer_addr.clone()));
        self.0.raft.replica().update_addresses(&nodes.collect()).await
    }

    /// Removes a learner, unless it is gone already.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), String> {
        self.0.raft.replica().remove_learner(node).await
    }

    /// The leader, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.0.raft.replica().leader()
    }

    /// Role, term and leader: cheaper than [`Self::status`].
    pub fn role(&self) -> (Role, u64, Option<NodeId>) {
        self.0.raft.replica().role()
    }

    pub fn status(&self) -> GroupStatus {
        self.0.raft.replica().status()
    }

    /// The voters that answer this node, itself among them.
    /// The index through which this node had acknowledged entries that it has lost since, until it has them again.
    pub fn lost_through(&self) -> Option<u64> {
        self.0.raft.replica().lost_through()
    }

    /// What peers remember of this node from before it started. They report it with their first report.
    pub fn remembered(&self) -> &Remembered {
        self.0.raft.replica().remembered()
    }

    /// The last index that has been on this node's disk.
    pub fn durable_index(&self) -> u64 {
        self.0.raft.replica().durable_index()
    }

    /// Another node remembers that this one had applied the entry of `term` at `index`.
    pub async fn was_applied_here(&self, term: u64, index: Revision) {
        self.0.raft.replica().was_applied_here(term, index).await;
    }

    pub fn quorum(&self) -> Quorum {
        self.0.raft.replica().quorum()
    }

    /// How long ago this node last heard from a leader, if ever. A leader hears from itself when a quorum answers it.
    pub async fn silence_of_leader(&self) -> Option<Duration> {
        self.0.raft.replica().silence_of_leader().await
    }

    /// Waits until consensus has stopped for good, and returns the reason.
    pub async fn until_failed(&self) -> String {
        self.0.raft.replica().until_failed().await
    }

    pub async fn shutdown(&self) {
        self.0.raft.replica().shutdown().await;
    }
}

impl fmt::Debug for ClusterGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterGroup").field(&self.me()).finish()
    }
}

/// A refusal is an outcome in the log, and an error to the client.
fn accepted(response: Arc<Response>) -> Result<Response, Refusal> {
    let response = Arc::unwrap_or_clone(response);
    match response.outcome {
        Outcome::Refused(refusal) => Err(refusal),
        _ => Ok(response),
    }
}

fn unexpected_answer() -> Refusal {
    Refusal::new(
        Code::Internal,
        "the leader gave an answer of another kind; do all nodes run the same version?",
    )
}
