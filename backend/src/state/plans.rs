//! Plans that were made, and the facts that they stand on.

use crate::state::{Context, State, command::ClusterTime};
use imbl::OrdMap;
use ringmaster_common::{
    action::{Action, NewNode},
    duration::millis,
    error::{Code, Refusal},
    event::Event,
    id::{GroupId, NodeId, OperationId, PlanId, Revision},
    plan::{Blocker, Fact, Impact, Observation, Plan, PlannedStep, Warning},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc, time::Duration};

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
    TransferLeadership { group: GroupId, from: NodeId, to: NodeId },
    AddNode { node: NewNode, promote: bool },
}

/// What a step does. Steps are desired states: doing one twice is doing it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Preflight,
    /// Wait until the target has every entry.
    CatchUp,
    HandOver,
    Verify,
    /// Admit the node, as a learner.
    Join,
    /// Make the learner a voter.
    Promote,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FactKey {
    /// Who leads, and since when.
    Leadership,
    /// Who votes, and who learns.
    Membership,
    /// A node's status.
    Node(NodeId),
    /// How far an operation has come.
    Operation(OperationId),
}

impl Goal {
    /// The steps that lead there.
    pub fn steps(&self) -> &'static [StepKind] {
        match self {
            Goal::TransferLeadership { .. } => {
                &[StepKind::Preflight, StepKind::CatchUp, StepKind::HandOver, StepKind::Verify]
            }
            Goal::AddNode { promote: true, .. } => &[StepKind::Join, StepKind::CatchUp, StepKind::Promote],
            Goal::AddNode { promote: false, .. } => &[StepKind::Join, StepKind::CatchUp],
        }
    }

    /// After this long, in cluster time, the step has failed. A node that joins may have to be sent a
    /// snapshot; one that is to lead is close behind already.
    pub fn bound(&self, kind: StepKind) -> Duration {
        match (self, kind) {
            (_, StepKind::Preflight) => Duration::from_secs(1),
            (Goal::AddNode { .. }, StepKind::CatchUp) => Duration::from_secs(60),
            (_, StepKind::Join | StepKind::Promote) => Duration::from_secs(10),
            (_, StepKind::CatchUp | StepKind::HandOver | StepKind::Verify) => Duration::from_secs(2),
        }
    }

    /// The node that it is about.
    pub fn target(&self) -> NodeId {
        match self {
            Goal::TransferLeadership { to, .. } => *to,
            Goal::AddNode { node, .. } => node.id,
        }
    }

    /// The goal that takes this one back, where there is one.
    pub fn inverse(&self) -> Option<Goal> {
        match self {
            Goal::TransferLeadership { group, from, to } => {
                Some(Goal::TransferLeadership { group: *group, from: *to, to: *from })
            }
            Goal::AddNode { .. } => None,
        }
    }

    pub fn planned_steps(&self) -> Vec<PlannedStep> {
        self.steps()
            .iter()
            .map(|kind| PlannedStep {
                name: kind.name().to_owned(),
                title: kind.title(self.target()),
                bound_ms: millis(self.bound(*kind)),
            })
            .collect()
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
        }
    }

    fn title(self, target: NodeId) -> String {
        match self {
            StepKind::Preflight => format!("Look again: node {target} is up and close behind"),
            StepKind::CatchUp => format!("Wait until node {target} has every entry"),
            StepKind::HandOver => format!("Hand leadership over to node {target}"),
            StepKind::Verify => format!("Verify that node {target} takes a write"),
            StepKind::Join => format!("Admit node {target} as a learner"),
            StepKind::Promote => format!("Make node {target} a voter"),
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
    pub fn version(&self, fact: FactKey) -> Revision {
        match fact {
            FactKey::Leadership => self.election.as_ref().map_or(Revision(0), |election| election.revision),
            FactKey::Membership => self.membership.version,
            FactKey::Node(id) => self.membership.get(id).map_or(Revision(0), |node| node.status_revision),
            FactKey::Operation(id) => {
                self.operations.get(id).map_or(Revision(0), |operation| operation.revision)
            }
        }
    }

    /// The facts of a footprint that have changed since.
    pub(super) fn drift(&self, footprint: &[Fact]) -> Vec<Fact> {
        footprint
            .iter()
            .filter(|fact| match fact.fact.parse::<FactKey>() {
                Ok(key) => self.version(key) != fact.version,
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
            undoable: draft.goal.inverse().is_some(),
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
            _ => Err(UnknownFact),
        }
    }
}
