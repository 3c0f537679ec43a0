//! The pure core: the state of the cluster group, and how log entries change it.
//!
//! [`State::apply`] takes an entry and gives back an outcome and the events it made. It does no I/O
//! and reads no clock, draws no random number and iterates over no hash map, so every node that
//! applies the same log holds the same state. It cannot fail: a refusal is an outcome like another.
//!
//! What always holds:
//! - [`view`] of the applied state equals the view before, folded with the events.
//! - Cluster time never runs backwards; what is due is done before the command is.
//! - Everything that grows has a bound with a name.
//!
//! The collections are persistent (they share structure), so a clone costs next to nothing. Readers
//! and snapshots take one and never hold up `apply`.

pub mod audit;
pub mod command;
mod digest;
mod encoding;
pub mod history;
pub mod limits;
pub mod locks;
pub mod membership;
pub mod observations;
pub mod operations;
pub mod outcome;
pub mod plans;
pub mod precondition;
pub mod recovery;
pub mod request;
pub mod requests;
pub mod routes;
pub mod settings;
pub mod steps;
#[cfg(test)]
mod tests;
pub mod time;
pub mod traffic;
pub mod upstreams;
pub mod version;
pub mod view;

use audit::Audit;
use command::{Command, Record};
use history::History;
use limits::Limits;
use locks::{LockNotification, Locks};
use membership::{Membership, OpinionChange, StatusChange};
use operations::Operations;
use outcome::{Outcome, Response};
use plans::Plans;
use request::{Actor, Request};
use requests::Requests;
use ringmaster_common::{
    Timestamp,
    cluster::{Node, NodeStatus},
    event::{Event, EventBatch},
    id::{Incarnation, NodeId, Revision},
    setting::PLAN_TTL,
    view::Election,
};
use routes::Routes;
use serde::{Deserialize, Serialize};
use settings::Settings;
use std::{collections::BTreeSet, sync::Arc};
use time::ClusterTime;
use upstreams::Upstreams;

/// All that the cluster group has agreed on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub name: String,
    pub id: String,
    pub incarnation: Incarnation,
    /// What all members can do; see [`crate::version`].
    pub feature_level: u32,
    /// The index of the last applied entry.
    pub revision: Revision,
    /// The cluster time of the last applied entry.
    pub clock: ClusterTime,
    pub wall: Timestamp,
    pub election: Option<Election>,
    pub membership: Arc<Membership>,
    pub settings: Settings,
    #[serde(default)]
    pub locks: Locks,
    #[serde(default)]
    pub upstreams: Upstreams,
    #[serde(default)]
    pub routes: Routes,
    pub plans: Plans,
    pub operations: Operations,
    pub audit: Audit,
    pub requests: Requests,
    pub history: History,
}

/// A log entry, as the state sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub index: u64,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A leader's first entry.
    Blank,
    /// openraft changed who votes and who learns.
    Membership {
        voters: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    },
    Command(Box<Record>),
}

/// When and by whom an entry was made: what all commands need to know of it.
#[derive(Clone, Debug)]
struct Context {
    /// What the cluster's feature level says, before the entry is applied.
    limits: &'static Limits,
    revision: Revision,
    now: ClusterTime,
    wall: Timestamp,
    actor: Actor,
    events: Vec<Event>,
    notices: Vec<LockNotification>,
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    pub response: Arc<Response>,
    /// The events it made, if any.
    pub batch: Option<Arc<EventBatch>>,
    /// For those on this node who wait for a lock. They are no part of the state.
    pub notices: Vec<LockNotification>,
    /// Whether it is more than what clients write.
    pub concerns_controllers: bool,
}

impl Context {
    fn emit(&mut self, event: Event) {
        self.events.push(event);
    }
}

impl State {
    /// Applies the next entry of the log.
    pub fn apply(&mut self, entry: Entry) -> Effect {
        let mut context = Context { revision: Revision(entry.index), ..self.context() };
        let mut request_id = String::new();
        let mut of_clients = false;
        let response = match entry.body {
            Body::Blank => Arc::new(Response { revision: context.revision, outcome: Outcome::Done }),
            Body::Membership { voters, learners } => {
                Arc::make_mut(&mut self.membership).adopt(&mut context, voters, learners);
                Arc::new(Response { revision: context.revision, outcome: Outcome::Done })
            }
            Body::Command(record) => {
                // A stamp from before the last one is possible where a leader was slow; time stands
                // still then, and what runs out runs out later, never earlier.
                context.now = self.clock.max(record.stamp);
                context.wall = record.wall;
                context.actor = record.request.actor.clone();
                request_id.clone_from(&record.request.id);
                of_clients = record.command.is_of_clients();
                let failed = self.operations.expire(&mut context);
                self.clean_up(&mut context, failed);
                self.locks.expire(&mut context);
                self.answer(&mut context, *record)
            }
        };
        self.revision = context.revision;
        self.clock = context.now;
        self.wall = context.wall;
        let is_of_clients = |event: &Event| {
            matches!(
                event,
                Event::SettingChanged { .. } | Event::SettingRemoved { .. } | Event::Audited { .. }
            )
        };
        let concerns_controllers = !(of_clients && context.events.iter().all(is_of_clients));
        let batch = (!context.events.is_empty()).then(|| {
            Arc::new(EventBatch {
                revision: context.revision,
                at: context.wall,
                actor: context.actor.to_string(),
                request_id,
                events: context.events,
            })
        });
        if let Some(batch) = &batch {
            self.history.push(batch.clone(), context.limits);
        }
        Effect { response, batch, notices: context.notices, concerns_controllers }
    }

    /// What the state is bounded by, at its feature level.
    pub fn limits(&self) -> &'static Limits {
        Limits::at(self.feature_level)
    }

    /// A stable digest of the whole state. Members that have applied the same entries have the same, whatever version
    /// they run.
    pub fn digest(&self) -> String {
        digest::of(self)
    }

    /// The moment that the state stands at.
    fn context(&self) -> Context {
        Context {
            limits: self.limits(),
            revision: self.revision,
            now: self.clock,
            wall: self.wall,
            actor: Actor::Consensus,
            events: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Answers a repeat with the first outcome; else executes, audits and remembers.
    fn answer(&mut self, context: &mut Context, record: Record) -> Arc<Response> {
        let Record { request, command, .. } = record;
        if !command.is_remembered() {
            let outcome = self.execute(context, &request, command);
            return Arc::new(Response { revision: context.revision, outcome });
        }
        if let Some(answer) = self.requests.find(&request) {
            return answer.unwrap_or_else(|refusal| {
                Arc::new(Response { revision: context.revision, outcome: Outcome::Refused(refusal) })
            });
        }
        let audited_as = command.audited_as().filter(|_| matches!(request.actor, Actor::Operator(_)));
        let outcome = self.execute(context, &request, command);
        let response = Arc::new(Response { revision: context.revision, outcome });
        if let Some(asked) = audited_as {
            self.audit.record(context, &request, asked, &response.outcome);
        }
        self.requests.remember(request, response.clone(), context.now, context.limits);
        response
    }

    fn execute(&mut self, context: &mut Context, request: &Request, command: Command) -> Outcome {
        match command {
            Command::CreateCluster { name, id, incarnation, feature_level, first } => {
                if self.id.is_empty() {
                    self.name.clone_from(&name);
                    self.id.clone_from(&id);
                    self.incarnation = incarnation;
                    self.feature_level = feature_level;
                    context.emit(Event::ClusterCreated { name, id, incarnation, feature_level });
                    Arc::make_mut(&mut self.membership).admit(context, &first);
                }
                Outcome::Done
            }
            // A leader that was paused may record an election that was long ago.
            Command::RecordElection { term, .. }
                if self.election.as_ref().is_some_and(|latest| latest.term >= term) =>
            {
                Outcome::Done
            }
            Command::RecordElection { term, leader } => {
                self.election = Some(Election { term, leader, at: context.wall, revision: context.revision });
                context.emit(Event::LeaderElected { term, leader });
                let failed = self.operations.leader_elected(context, term, leader);
                self.clean_up(context, failed);
                Outcome::Done
            }
            Command::RecordHealth { opinions, statuses } => {
                Arc::make_mut(&mut self.membership).record_health(context, &opinions, &statuses);
                self.update_sessions(context, &opinions, &statuses);
                Outcome::Done
            }
            Command::AdmitNode { node } => {
                Arc::make_mut(&mut self.membership).admit(context, &node);
                Outcome::Done
            }
            Command::OrderStatus { change } => {
                Arc::make_mut(&mut self.membership).order(context, &change);
                Outcome::Done
            }
            Command::DismissNode { node } => {
                Arc::make_mut(&mut self.membership).dismiss(context, node);
                self.locks.disconnect(context, node, None);
                self.upstreams.forget_observer(node);
                Outcome::Done
            }
            Command::RelocateNode { node, to } => {
                Arc::make_mut(&mut self.membership).relocate(context, node, &to);
                Outcome::Done
            }
            Command::RecoverCluster(recovery) => {
                self.recover(context, &recovery);
                Outcome::Done
            }
            Command::DeleteSetting { key, precondition } => {
                self.settings.delete(context, &key, &precondition).unwrap_or_else(Outcome::Refused)
            }
            Command::PutSetting { key, value, precondition } => {
                self.settings.put(context, key, value, &precondition).unwrap_or_else(Outcome::Refused)
            }
            Command::CreatePlan { draft } => {
                let ttl = self.settings.number_at(context.limits, PLAN_TTL.key);
                Outcome::Plan(Box::new(self.plans.create(context, *draft, ttl)))
            }
            Command::StartOperation { plan, keep_within_ms } => {
                self.start_operation(context, plan, keep_within_ms).unwrap_or_else(Outcome::Refused)
            }
            Command::ReportStep { operation, position, term, result } => {
                let current_term = self.term();
                match self.operations.report_step(context, current_term, operation, position, term, result) {
                    Ok(failed) => {
                        self.clean_up(context, failed);
                        Outcome::Done
                    }
                    Err(refusal) => Outcome::Refused(refusal),
                }
            }
            Command::ForStep { operation, position, term, command } => {
                match self.operations.check_running(self.term(), operation, position, term) {
                    Ok(_) => self.execute(context, request, *command),
                    Err(refusal) => Outcome::Refused(refusal),
                }
            }
            Command::AbortOperation { operation } => {
                self.operations.abort(context, operation).unwrap_or_else(Outcome::Refused)
            }
            Command::KeepOperation { operation } => {
                self.operations.keep(context, operation).unwrap_or_else(Outcome::Refused)
            }
            Command::RaiseFeatureLevel { level, .. } => {
                if level > self.feature_level {
                    self.feature_level = level;
                    context.emit(Event::FeatureLevelRaised { level });
                }
                Outcome::Done
            }
            Command::AcquireLock { acquire, session } => {
                self.locks.acquire(context, request, session, acquire).unwrap_or_else(Outcome::Refused)
            }
            Command::RenewLock(renew) => self.locks.renew(context, &renew).unwrap_or_else(Outcome::Refused),
            Command::ReleaseLock(release) => {
                self.locks.release(context, &request.id, &release).unwrap_or_else(Outcome::Refused)
            }
            Command::LeaveLock { name, session, may_return } => {
                self.locks.leave(context, &name, session, may_return);
                Outcome::Done
            }
            Command::DisconnectWaiters { node, boot_id } => {
                self.locks.disconnect(context, node, Some(boot_id));
                Outcome::Done
            }
            Command::ForceRelease { name, tokens } => self.locks.force(context, &name, &tokens),
            Command::Traffic(command) => self.change_traffic(context, *command),
            Command::Tick => Outcome::Done,
        }
    }

    /// Clients of a node that most others find dead may reconnect through another; those of a node that is up again are
    /// where they were. An operator's order about a node has no effect on that.
    fn update_sessions(
        &mut self,
        context: &mut Context,
        opinions: &[OpinionChange],
        statuses: &[StatusChange],
    ) {
        let lost = |node: &NodeId| self.membership.get(*node).is_some_and(Node::is_lost);
        let subjects = opinions.iter().map(|change| change.subject);
        let concerned: BTreeSet<NodeId> = subjects.chain(statuses.iter().map(|change| change.node)).collect();
        let gone: Vec<NodeId> = concerned.into_iter().filter(lost).collect();
        for node in gone {
            self.locks.disconnect(context, node, None);
        }
        for back in statuses.iter().filter(|change| change.status == NodeStatus::Up) {
            self.locks.reconnect(context, back.node);
        }
    }

    /// When time has to pass in the log, because something is due.
    pub fn next_due(&self) -> Option<ClusterTime> {
        self.operations.next_due().into_iter().chain(self.locks.next_due()).min()
    }

    /// The term of the latest election that the log records.
    fn term(&self) -> u64 {
        self.election.as_ref().map_or(0, |election| election.term)
    }

    /// The winner of the latest election that the log records.
    pub fn leader(&self) -> Option<NodeId> {
        self.election.as_ref().map(|election| election.leader)
    }
}
