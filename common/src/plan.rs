//! Plans: what would happen, computed before anything does.
//!
//! A plan remembers what it looked at, its *footprint*. It is refused when it is applied if any of
//! that has changed. Writes that it did not look at make no plan stale.

use crate::{
    Timestamp,
    action::Action,
    id::{NodeId, OperationId, PlanId, Revision, Token},
    lock::LockHolder,
};
use serde::{Deserialize, Serialize};

/// A proposed change, with its consequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    pub id: PlanId,
    /// The revision that the plan was computed at.
    pub revision: Revision,
    pub action: Action,
    /// What will happen, as one sentence.
    pub summary: String,
    pub footprint: Vec<Fact>,
    pub observations: Vec<Observation>,
    pub steps: Vec<PlannedStep>,
    pub impact: Impact,
    pub warnings: Vec<Warning>,
    /// While there is any, the plan cannot be applied.
    pub blockers: Vec<Blocker>,
    pub undoable: bool,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Timestamp,
    /// The operation that runs or ran the plan, once it was applied.
    pub operation: Option<OperationId>,
}

/// Something replicated that a plan has read, and the version at which it read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fact {
    /// For example `leadership`, `membership`, `node/2`.
    pub fact: String,
    pub version: Revision,
}

/// Something measured that a plan has read. It is looked at again as the plan's first step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Observation {
    /// For example `node 3 is behind by`.
    pub what: String,
    pub value: String,
    pub age_ms: u64,
}

/// A step as planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedStep {
    /// A stable word, such as `hand_over`.
    pub name: String,
    /// The step as a sentence.
    pub title: String,
    /// After this long the step has failed.
    pub bound_ms: u64,
}

/// The blast radius, in figures. A figure that nothing measures is null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Impact {
    /// How long writes paused at the last change of this kind.
    pub write_pause_ms: Option<u64>,
    /// The longest that writes may pause if the change fails midway.
    pub write_pause_bound_ms: Option<u64>,
    /// How many log entries the target is behind.
    pub entries_behind: Option<u64>,
    pub voters_before: u64,
    pub voters_after: u64,
    /// How many voters may fail with the cluster still taking writes.
    pub may_fail_before: u64,
    pub may_fail_after: u64,
    pub leader_before: Option<NodeId>,
    pub leader_after: Option<NodeId>,
    /// Where a lock is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockImpact>,
    /// Where endpoints of an upstream are concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamImpact>,
}

/// How many endpoints are left for requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpstreamImpact {
    pub upstream: String,
    pub endpoints: u64,
    /// Those that take requests, by what the cluster says of them.
    pub taking_before: u64,
    pub taking_after: u64,
    /// The routes that lead to it.
    pub routes: Vec<String>,
}

/// Who loses a lock, and who gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockImpact {
    /// Those whom it is taken away from.
    pub holders: Vec<LockHolder>,
    /// Those who are granted it next, with the tokens that they would get now.
    pub promoted: Vec<LockHolder>,
    /// The next grant has this token or a higher one; lower ones of those who lose it are void.
    pub next_token: Token,
}

/// A thing to know before going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    pub code: String,
    pub detail: String,
    /// What it is about, for example `node/3`.
    pub subject: String,
}

/// A thing that forbids going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Blocker {
    pub code: String,
    pub detail: String,
    pub subject: String,
    /// What would lift it.
    pub lifted_by: String,
}

/// The body of `POST /v1/plans`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    pub action: Action,
}

/// The body of `POST /v1/plans/{id}/apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Reverts by itself unless it is kept within this time.
    #[serde(default)]
    pub keep_within_ms: Option<u64>,
}
