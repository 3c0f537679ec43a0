//! Plans that were made, and the facts that they stand on.

use crate::{Context, State, steps::StepSpec, time::ClusterTime};
use imbl::OrdMap;
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    event::Event,
    id::{NodeId, OperationId, PlanId, Revision},
    plan::{Blocker, Fact, Impact, Observation, Plan, PlannedStep, Scope, Warning},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc, time::Duration};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plans {
    by_id: OrdMap<PlanId, Arc<PlanRecord>>,
    last: PlanId,
}

/// A plan, and what only the server needs to know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    pub plan: Plan,
    pub steps: Vec<StepSpec>,
    /// The steps that take it back, where an operation of it reverts unless it is kept.
    pub revert: Option<Vec<DraftStep>>,
    /// The action that undoes it.
    pub undo: Option<Action>,
    /// The operation that the plan undoes.
    pub undoes: Option<OperationId>,
    pub expires: ClusterTime,
}

/// A plan as the planner made it, before the log gave it an id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    pub revision: Revision,
    pub action: Action,
    pub scope: Scope,
    pub steps: Vec<DraftStep>,
    /// The steps that take it back, where that can be done without a plan of its own.
    pub revert: Option<Vec<DraftStep>>,
    /// The action that undoes it, where there is one.
    pub undo: Option<Action>,
    /// The operation that it undoes.
    pub undoes: Option<OperationId>,
    pub summary: String,
    pub footprint: Vec<Fact>,
    pub observations: Vec<Observation>,
    pub impact: Impact,
    pub warnings: Vec<Warning>,
    pub blockers: Vec<Blocker>,
}

/// A step as the planner made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftStep {
    pub spec: StepSpec,
    /// The step as a sentence.
    pub title: String,
    /// After this long, in cluster time, the step has failed.
    pub bound_ms: u64,
}

impl DraftStep {
    pub fn planned(&self) -> PlannedStep {
        PlannedStep { name: self.spec.name().to_owned(), title: self.title.clone(), bound_ms: self.bound_ms }
    }
}

impl Draft {
    /// The feature level at which all members know its steps.
    pub fn level(&self) -> u32 {
        let steps = self.steps.iter().chain(self.revert.iter().flatten());
        steps.map(|step| step.spec.level()).max().unwrap_or(0)
    }
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
            scope: draft.scope,
            steps: draft.steps.iter().map(DraftStep::planned).collect(),
            impact: draft.impact,
            warnings: draft.warnings,
            blockers: draft.blockers,
            undoable: draft.undo.is_some(),
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
            steps: draft.steps.into_iter().map(|step| step.spec).collect(),
            revert: draft.revert,
            undo: draft.undo,
            undoes: draft.undoes,
            expires: context.now.after(Duration::from_millis(ttl_ms)),
        };
        self.by_id.insert(plan.id, Arc::new(record));
        if self.by_id.len() > context.limits.plans
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
