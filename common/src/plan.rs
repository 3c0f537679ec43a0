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
use std::{borrow::Cow, fmt, str::FromStr};

/// A proposed change, with its consequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    pub id: PlanId,
    /// The revision that the plan was computed at.
    pub revision: Revision,
    pub action: Action,
    pub scope: Scope,
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

/// The part of the cluster that an operation changes. Operations of one scope run one after the other; those of
/// different scopes run side by side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Members, voters and leadership of the cluster group.
    Cluster,
    /// One upstream and its endpoints.
    Upstream(String),
    /// One lock.
    Lock(String),
}

/// As JSON and sentences have it: `cluster`, `upstream/web`, `lock/jobs`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Cluster => f.write_str("cluster"),
            Scope::Upstream(name) => write!(f, "upstream/{name}"),
            Scope::Lock(name) => write!(f, "lock/{name}"),
        }
    }
}

/// There is no such scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownScope;

impl fmt::Display for UnknownScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scope is cluster, upstream/NAME or lock/NAME")
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        match text.split_once('/') {
            None if text == "cluster" => Ok(Scope::Cluster),
            Some(("upstream", name)) => Ok(Scope::Upstream(name.to_owned())),
            Some(("lock", name)) => Ok(Scope::Lock(name.to_owned())),
            _ => Err(UnknownScope),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Scope {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("The part of the cluster that an operation changes: `cluster`, `upstream/NAME` or `lock/NAME`."))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Scope {}

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
    /// A stable word, such as `transfer_leadership`.
    pub name: String,
    /// The step as a sentence.
    pub title: String,
    /// After this long the step has failed.
    pub bound_ms: u64,
}

/// The blast radius in numbers. A number that was not measured is null.
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
    pub failures_tolerated_before: u64,
    pub failures_tolerated_after: u64,
    pub leader_before: Option<NodeId>,
    pub leader_after: Option<NodeId>,
    /// Where a lock is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockImpact>,
    /// Where endpoints of an upstream are concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamImpact>,
}

/// How many endpoints keep serving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpstreamImpact {
    pub upstream: String,
    pub endpoints: u64,
    /// How many of them serve requests.
    pub serving_before: u64,
    pub serving_after: u64,
    /// The routes that lead to it.
    pub routes: Vec<String>,
}

/// The holders that lose a lock, and those that are granted it next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockImpact {
    /// The holders that lose it.
    pub holders: Vec<LockHolder>,
    /// The owners that are granted it next, with the tokens that they would get now.
    pub promoted: Vec<LockHolder>,
    /// The next grant has this token or a higher one; lower ones of those who lose it are void.
    pub next_token: Token,
}

/// A risk to know before the plan is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    pub code: String,
    pub detail: String,
    /// Its subject, for example `node/3`.
    pub subject: String,
}

/// A reason why the plan cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Blocker {
    pub code: String,
    pub detail: String,
    pub subject: String,
    /// How to lift it.
    pub lifted_by: String,
}

/// The body of `POST /v1/plans`.
// Generated clients have a `PlanRequest` of their own, for the operation `plan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlanInput))]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    pub action: Action,
}

/// The body of `POST /v1/plans/{id}/apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The operation reverts automatically unless it is kept within this time.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1000, maximum = 86400000))]
    pub keep_within_ms: Option<u64>,
}
