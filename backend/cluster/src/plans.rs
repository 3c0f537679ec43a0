//! Plans that were made, and the facts that they stand on.

use crate::{Context, State, command::ClusterTime, traffic};
use imbl::OrdMap;
use ringmaster_common::{
    action::{Action, NewNode},
    duration::millis,
    error::{Code, Refusal},
    event::Event,
    id::{GroupId, NodeId, OperationId, PlanId, Revision, Token},
    plan::{Blocker, Fact, Impact, Observation, Plan, PlannedStep, Warning},
    traffic::upstream::EndpointState,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc, time::Duration};

/// How many of the latest plans are kept.
pub const MAX_PLANS: usize = 256;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plans {
    by_id: OrdMap<PlanId, Arc<PlanRecord>>,
    last: PlanId,
}

/// A plan, and what only the server needs to know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    pub plan: Plan,
    pub goal: Goal,
    /// The operation that the plan takes back.
    pub undoes: Option<OperationId>,
    pub expires: ClusterTime,
}

/// What an operation brings about. An action is what somebody asked for; the goal is what that
/// means for the state it was planned on: *undo operation 17* has become a transfer from 3 to 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    TransferLeadership {
        group: GroupId,
        from: NodeId,
        to: NodeId,
    },
    AddNode {
        node: NewNode,
        promote: bool,
    },
    ChangeVoters {
        before: BTreeSet<NodeId>,
        after: BTreeSet<NodeId>,
    },
    /// `voters` are those before and after, where they change.
    RemoveNode {
        node: NodeId,
        voters: Option<(BTreeSet<NodeId>, BTreeSet<NodeId>)>,
    },
    DrainNode {
        node: NodeId,
    },
    ActivateNode {
        node: NodeId,
    },
    ReleaseLock {
        name: String,
        tokens: BTreeSet<Token>,
    },
    SetEndpointState {
        upstream: String,
        endpoint: String,
        before: EndpointState,
        after: EndpointState,
    },
    /// `to` is primary of the upstream in the place of `from`.
    FailOver {
        upstream: String,
        from: Option<String>,
        to: String,
    },
}

/// What a step does. Steps are desired states: doing one twice is doing it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Preflight,
    /// Wait until those who are to lead or to vote have every entry.
    CatchUp,
    /// Have a node lead that may by the goal; nothing is done where one does.
    HandOver,
    Verify,
    /// Admit the node, as a learner.
    Join,
    /// Make the learner a voter.
    Promote,
    ChangeVoters,
    /// Take the node out of consensus and out of the state.
    Leave,
    /// Mark the node, so that nothing new is given to it.
    Drain,
    /// Mark the node as drained.
    Settle,
    Activate,
    /// The lock is held by none of those whom it is taken away from.
    ReleaseLock,
    /// The endpoint is in the state that was asked for.
    SetEndpointState,
    /// The old primary can do no harm any more.
    Fence,
}

/// A plan as the planner made it, before the log gave it an id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    pub revision: Revision,
    pub action: Action,
    pub goal: Goal,
    pub undoes: Option<OperationId>,
    pub summary: String,
    pub footprint: Vec<Fact>,
    pub observations: Vec<Observation>,
    pub impact: Impact,
    pub warnings: Vec<Warning>,
    pub blockers: Vec<Blocker>,
}

/// A fact that a plan can stand on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FactKey {
    /// Who leads, and since when.
    Leadership,
    /// Who votes, and who learns.
    Membership,
    /// A node's status.
    Node(NodeId),
    /// How far an operation has come.
    Operation(OperationId),
    /// Who holds a lock.
    Lock(String),
    /// How an upstream is configured, the states of its endpoints, and which one is primary.
    Upstream(String),
}

impl Goal {
    /// The feature level at which all members can read it; 0 where they always could.
    pub fn level(&self) -> u32 {
        match self {
            Goal::SetEndpointState { .. } | Goal::FailOver { .. } => traffic::LEVEL,
            _ => 0,
        }
    }

    /// The steps that lead there.
    pub fn steps(&self) -> &'static [StepKind] {
        use StepKind::{
            Activate, CatchUp, ChangeVoters, Drain, Fence, HandOver, Join, Leave, Preflight, Promote,
            ReleaseLock, SetEndpointState, Settle, Verify,
        };
        match self {
            Goal::TransferLeadership { .. } => &[Preflight, CatchUp, HandOver, Verify],
            Goal::AddNode { promote: true, .. } => &[Join, CatchUp, Promote],
            Goal::AddNode { promote: false, .. } => &[Join, CatchUp],
            Goal::ChangeVoters { .. } => &[Preflight, CatchUp, HandOver, ChangeVoters],
            Goal::RemoveNode { voters: Some(_), .. } => &[Preflight, CatchUp, HandOver, ChangeVoters, Leave],
            Goal::RemoveNode { voters: None, .. } => &[Leave],
            Goal::DrainNode { .. } => &[Preflight, Drain, HandOver, Settle],
            Goal::ActivateNode { .. } => &[Activate],
            Goal::ReleaseLock { .. } => &[ReleaseLock],
            Goal::SetEndpointState { .. } => &[Preflight, SetEndpointState],
            Goal::FailOver { .. } => &[Preflight, Drain, Fence, Promote, Verify],
        }
    }

    /// After this long, in cluster time, the step has failed. A node that joins or is to vote may have
    /// to be sent a snapshot; one that is to lead is close behind already.
    pub fn bound(&self, kind: StepKind) -> Duration {
        match (self, kind) {
            (_, StepKind::Preflight) => Duration::from_secs(1),
            (Goal::TransferLeadership { .. }, StepKind::CatchUp) => Duration::from_secs(2),
            (_, StepKind::CatchUp) => Duration::from_secs(60),
            (Goal::FailOver { .. }, StepKind::Drain | StepKind::Verify) => Duration::from_secs(5),
            (
                _,
                StepKind::HandOver
                | StepKind::Verify
                | StepKind::Drain
                | StepKind::Settle
                | StepKind::Activate
                | StepKind::ReleaseLock
                | StepKind::SetEndpointState,
            ) => Duration::from_secs(2),
            (
                _,
                StepKind::Join
                | StepKind::Promote
                | StepKind::ChangeVoters
                | StepKind::Leave
                | StepKind::Fence,
            ) => Duration::from_secs(10),
        }
    }

    /// Whether the goal allows `node` to lead once leadership was handed over.
    pub fn may_lead(&self, node: NodeId) -> bool {
        match self {
            Goal::TransferLeadership { to, .. } => node == *to,
            Goal::AddNode { .. }
            | Goal::ActivateNode { .. }
            | Goal::RemoveNode { voters: None, .. }
            | Goal::ReleaseLock { .. }
            | Goal::SetEndpointState { .. }
            | Goal::FailOver { .. } => true,
            Goal::ChangeVoters { before, after } => before.contains(&node) && after.contains(&node),
            Goal::RemoveNode { voters: Some((before, after)), .. } => {
                before.contains(&node) && after.contains(&node)
            }
            Goal::DrainNode { node: drained } => node != *drained,
        }
    }

    /// Those who must have every entry before it goes on.
    pub fn catching_up(&self) -> BTreeSet<NodeId> {
        match self {
            Goal::TransferLeadership { to, .. } => [*to].into(),
            Goal::AddNode { node, .. } => [node.id].into(),
            Goal::ChangeVoters { before, after } | Goal::RemoveNode { voters: Some((before, after)), .. } => {
                after - before
            }
            Goal::RemoveNode { voters: None, .. }
            | Goal::DrainNode { .. }
            | Goal::ActivateNode { .. }
            | Goal::ReleaseLock { .. }
            | Goal::SetEndpointState { .. }
            | Goal::FailOver { .. } => BTreeSet::new(),
        }
    }

    /// The goal that takes this one back by itself, unless an operator keeps what was done.
    pub fn inverse(&self) -> Option<Goal> {
        match self {
            Goal::TransferLeadership { group, from, to } => {
                Some(Goal::TransferLeadership { group: *group, from: *to, to: *from })
            }
            Goal::ChangeVoters { before, after } => {
                Some(Goal::ChangeVoters { before: after.clone(), after: before.clone() })
            }
            Goal::DrainNode { node } => Some(Goal::ActivateNode { node: *node }),
            Goal::ActivateNode { node } => Some(Goal::DrainNode { node: *node }),
            Goal::SetEndpointState { upstream, endpoint, before, after } => Some(Goal::SetEndpointState {
                upstream: upstream.clone(),
                endpoint: endpoint.clone(),
                before: *after,
                after: *before,
            }),
            Goal::FailOver { upstream, from, to } => {
                Some(Goal::FailOver { upstream: upstream.clone(), from: Some(to.clone()), to: from.clone()? })
            }
            Goal::AddNode { .. } | Goal::RemoveNode { .. } | Goal::ReleaseLock { .. } => None,
        }
    }

    /// What an operator asks for who wants to take this back, where there is such a thing.
    pub fn undone_by(&self) -> Option<Action> {
        match self {
            Goal::TransferLeadership { group, from, .. } => {
                Some(Action::TransferLeadership { group: *group, to: *from })
            }
            Goal::AddNode { node, .. } => Some(Action::RemoveNode { node: node.id }),
            Goal::ChangeVoters { before, .. } => Some(Action::ChangeVoters { voters: before.clone() }),
            Goal::DrainNode { node } => Some(Action::ActivateNode { node: *node }),
            Goal::ActivateNode { node } => Some(Action::DrainNode { node: *node }),
            Goal::SetEndpointState { upstream, endpoint, before, .. } => Some(Action::SetEndpointState {
                upstream: upstream.clone(),
                endpoint: endpoint.clone(),
                state: *before,
            }),
            Goal::FailOver { upstream, from, .. } => {
                let (upstream, to) = (upstream.clone(), Some(from.clone()?));
                Some(Action::FailOverUpstream { upstream, to })
            }
            Goal::RemoveNode { .. } | Goal::ReleaseLock { .. } => None,
        }
    }

    pub fn planned_steps(&self) -> Vec<PlannedStep> {
        self.steps()
            .iter()
            .map(|kind| PlannedStep {
                name: kind.name().to_owned(),
                title: self.title(*kind),
                bound_ms: millis(self.bound(*kind)),
            })
            .collect()
    }

    fn title(&self, kind: StepKind) -> String {
        let nodes = |ids: &BTreeSet<NodeId>| match ids.iter().copied().collect::<Vec<_>>().as_slice() {
            [] => "no node".to_owned(),
            [one] => format!("node {one}"),
            many => format!("nodes {}", many.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")),
        };
        let catching_up = self.catching_up();
        match (self, kind) {
            (Goal::TransferLeadership { to, .. }, StepKind::Preflight) => {
                format!("Look again: node {to} is up and close behind")
            }
            (Goal::SetEndpointState { .. }, StepKind::Preflight) => {
                "Look again: somebody is left for requests".to_owned()
            }
            (Goal::FailOver { upstream, from, to }, kind) => {
                let old = from.as_deref().unwrap_or("the old primary");
                match kind {
                    StepKind::Preflight => format!("Look again: {to} is ready and healthy"),
                    StepKind::Drain => format!("Have no node send {upstream} requests"),
                    StepKind::Fence => format!("Fence {old}, if there is a webhook for that"),
                    StepKind::Promote => format!("Make {to} the primary, in an epoch of its own"),
                    _ => format!("Verify that {to} serves"),
                }
            }
            (_, StepKind::Preflight) => "Look again: the quorum bears it".to_owned(),
            (_, StepKind::CatchUp) if catching_up.is_empty() => "Nobody has to catch up".to_owned(),
            (_, StepKind::CatchUp) => format!(
                "Wait until {} {} every entry",
                nodes(&catching_up),
                if catching_up.len() == 1 { "has" } else { "have" }
            ),
            (Goal::TransferLeadership { to, .. }, StepKind::HandOver) => {
                format!("Hand leadership over to node {to}")
            }
            (Goal::DrainNode { node } | Goal::RemoveNode { node, .. }, StepKind::HandOver) => {
                format!("Hand leadership over, if node {node} leads")
            }
            (_, StepKind::HandOver) => "Hand leadership over, if the leader would vote no more".to_owned(),
            (_, StepKind::Verify) => format!("Verify that {} takes a write", nodes(&catching_up)),
            (_, StepKind::Join) => format!("Admit {} as a learner", nodes(&catching_up)),
            (_, StepKind::Promote) => format!("Make {} a voter", nodes(&catching_up)),
            (Goal::ChangeVoters { after, .. } | Goal::RemoveNode { voters: Some((_, after)), .. }, _)
                if kind == StepKind::ChangeVoters =>
            {
                format!("Have {} vote", nodes(after))
            }
            (Goal::RemoveNode { node, .. }, _) => format!("Let node {node} go"),
            (Goal::DrainNode { node }, StepKind::Drain) => format!("Give node {node} nothing new"),
            (Goal::DrainNode { node }, _) => format!("Note that node {node} is drained"),
            (Goal::ReleaseLock { name, .. }, _) => format!("Take {name} away from those who hold it"),
            (Goal::SetEndpointState { upstream, endpoint, after, .. }, _) => match after {
                EndpointState::Ready => format!("Give {endpoint} of {upstream} requests again"),
                EndpointState::Drain => format!("Give {endpoint} of {upstream} nothing new"),
                EndpointState::Maintenance => format!("Give {endpoint} of {upstream} nothing at all"),
            },
            (Goal::ActivateNode { node }, _) => format!("Give node {node} duties again"),
            _ => kind.name().to_owned(),
        }
    }
}

impl StepKind {
    pub fn name(self) -> &'static str {
        match self {
            StepKind::Preflight => "preflight",
            StepKind::CatchUp => "catch_up",
            StepKind::HandOver => "hand_over",
            StepKind::Verify => "verify",
            StepKind::Join => "join",
            StepKind::Promote => "promote",
            StepKind::ChangeVoters => "change_voters",
            StepKind::Leave => "leave",
            StepKind::Drain => "drain",
            StepKind::Settle => "settle",
            StepKind::Activate => "activate",
            StepKind::ReleaseLock => "release_lock",
            StepKind::SetEndpointState => "set_endpoint_state",
            StepKind::Fence => "fence",
        }
    }

    /// Whether an operation may still be aborted while it is at this step. Once leadership is on its
    /// way, or a node is a member, there is nothing left to hold back.
    pub fn abortable(self) -> bool {
        matches!(self, StepKind::Preflight | StepKind::CatchUp)
    }
}

impl State {
    /// The version of a fact: the revision that last changed it, or 0 where it never was.
    pub fn version(&self, fact: &FactKey) -> Revision {
        match fact {
            FactKey::Leadership => self.election.as_ref().map_or(Revision(0), |election| election.revision),
            FactKey::Membership => self.membership.version,
            FactKey::Node(id) => self.membership.get(*id).map_or(Revision(0), |node| node.status_revision),
            FactKey::Operation(id) => {
                self.operations.get(*id).map_or(Revision(0), |operation| operation.revision)
            }
            FactKey::Lock(name) => self.locks.version(name),
            FactKey::Upstream(name) => self.upstreams.get(name).map_or(Revision(0), |record| record.changed),
        }
    }

    /// The facts of a footprint that have changed since.
    pub(super) fn drift(&self, footprint: &[Fact]) -> Vec<Fact> {
        footprint
            .iter()
            .filter(|fact| match fact.fact.parse::<FactKey>() {
                Ok(key) => self.version(&key) != fact.version,
                // A fact that this version does not know cannot be vouched for.
                Err(_) => true,
            })
            .cloned()
            .collect()
    }
}

impl Plans {
    pub fn get(&self, id: PlanId) -> Option<&PlanRecord> {
        self.by_id.get(&id).map(Arc::as_ref)
    }

    /// The plan, or why it is not to be had. A plan that was pushed out by newer ones has expired.
    pub fn find(&self, id: PlanId) -> Result<&PlanRecord, Refusal> {
        self.get(id).ok_or_else(|| {
            if id > PlanId(0) && id <= self.last {
                Refusal::new(Code::PlanExpired, format!("plan {id} is no longer kept; plan again"))
            } else {
                Refusal::new(Code::UnknownPlan, format!("there is no plan {id}"))
            }
        })
    }

    /// Newest first, below `id`.
    pub fn before(&self, id: PlanId) -> impl Iterator<Item = &Plan> {
        self.by_id.range(..id).rev().map(|(_, record)| &record.plan)
    }

    pub(super) fn create(&mut self, context: &mut Context, draft: Draft, ttl_ms: u64) -> Plan {
        self.last = PlanId(self.last.0 + 1);
        let plan = Plan {
            id: self.last,
            revision: draft.revision,
            action: draft.action,
            summary: draft.summary,
            footprint: draft.footprint,
            observations: draft.observations,
            steps: draft.goal.planned_steps(),
            impact: draft.impact,
            warnings: draft.warnings,
            blockers: draft.blockers,
            undoable: draft.goal.undone_by().is_some(),
            created_at: context.wall,
            created_by: context.actor.to_string(),
            expires_at: context.wall + Duration::from_millis(ttl_ms),
            operation: None,
        };
        context.emit(Event::PlanCreated {
            plan: plan.id,
            action: plan.action.clone(),
            blocked: !plan.blockers.is_empty(),
        });
        let record = PlanRecord {
            plan: plan.clone(),
            goal: draft.goal,
            undoes: draft.undoes,
            expires: context.now.after(Duration::from_millis(ttl_ms)),
        };
        self.by_id.insert(plan.id, Arc::new(record));
        if self.by_id.len() > MAX_PLANS
            && let Some(&(oldest, _)) = self.by_id.get_min()
        {
            self.by_id.remove(&oldest);
        }
        plan
    }

    pub(super) fn applied(&mut self, id: PlanId, operation: OperationId) {
        if let Some(record) = self.by_id.get_mut(&id) {
            Arc::make_mut(record).plan.operation = Some(operation);
        }
    }
}

impl fmt::Display for FactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FactKey::Leadership => f.write_str("leadership"),
            FactKey::Membership => f.write_str("membership"),
            FactKey::Node(id) => write!(f, "node/{id}"),
            FactKey::Operation(id) => write!(f, "operation/{id}"),
            FactKey::Lock(name) => write!(f, "lock/{name}"),
            FactKey::Upstream(name) => write!(f, "upstream/{name}"),
        }
    }
}

/// What is written there is not a fact that this version knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFact;

impl FromStr for FactKey {
    type Err = UnknownFact;

    fn from_str(text: &str) -> Result<Self, UnknownFact> {
        match text.split_once('/') {
            None if text == "leadership" => Ok(FactKey::Leadership),
            None if text == "membership" => Ok(FactKey::Membership),
            Some(("node", id)) => id.parse().map(FactKey::Node).map_err(|_| UnknownFact),
            Some(("operation", id)) => id.parse().map(FactKey::Operation).map_err(|_| UnknownFact),
            Some(("upstream", name)) => Ok(FactKey::Upstream(name.to_owned())),
            Some(("lock", name)) => Ok(FactKey::Lock(name.to_owned())),
            _ => Err(UnknownFact),
        }
    }
}
