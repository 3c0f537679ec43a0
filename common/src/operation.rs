//! Operations: plans being run. They outlive their runner: the next leader resumes them.

use crate::{
    Timestamp,
    action::Action,
    error::Refusal,
    id::{OperationId, PlanId, Revision},
    plan::Scope,
    string_enum::string_enum,
};
use serde::{Deserialize, Serialize};

/// A plan that is being run, or was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Operation {
    pub id: OperationId,
    pub plan: PlanId,
    pub action: Action,
    pub scope: Scope,
    /// The change, as one sentence.
    pub summary: String,
    pub status: OperationStatus,
    pub steps: Vec<Step>,
    /// Why it failed, was aborted or was reverted.
    pub error: Option<Refusal>,
    pub started_by: String,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub keep_within_ms: Option<u64>,
    /// While the operation waits to be kept: when it reverts automatically.
    pub keep_until: Option<Timestamp>,
    pub undoable: bool,
    /// The operation that this one undoes.
    pub undo_of: Option<OperationId>,
    /// The operation that undid this one.
    pub undone_by: Option<OperationId>,
    /// The revision of the last change of this operation.
    pub revision: Revision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum OperationStatus {
    Running,
    /// All steps succeeded; they are reverted unless the operator keeps the operation.
    AwaitingKeep,
    Succeeded,
    Failed,
    Aborted,
    Reverted,
}

string_enum!(OperationStatus: Running AwaitingKeep Succeeded Failed Aborted Reverted);

/// A step of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    /// A stable word, such as `transfer_leadership`.
    pub name: String,
    pub title: String,
    pub bound_ms: u64,
    pub status: StepStatus,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// The measured result, or the reason of the failure.
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum StepStatus {
    Pending,
    Running,
    Succeeded,
    Failed,
    /// The operation ended before the step began.
    Skipped,
}

string_enum!(StepStatus: Pending Running Succeeded Failed Skipped);

impl OperationStatus {
    /// Whether the operation has ended.
    pub fn is_final(self) -> bool {
        !matches!(self, OperationStatus::Running | OperationStatus::AwaitingKeep)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            OperationStatus::Running => "running",
            OperationStatus::AwaitingKeep => "awaiting_keep",
            OperationStatus::Succeeded => "succeeded",
            OperationStatus::Failed => "failed",
            OperationStatus::Aborted => "aborted",
            OperationStatus::Reverted => "reverted",
        }
    }
}

impl StepStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            StepStatus::Pending => "pending",
            StepStatus::Running => "running",
            StepStatus::Succeeded => "succeeded",
            StepStatus::Failed => "failed",
            StepStatus::Skipped => "skipped",
        }
    }
}

impl Step {
    /// How long the step took, by the wall clocks of the leaders that ran it.
    pub fn took_ms(&self) -> Option<u64> {
        let (start, end) = (self.started_at?, self.ended_at?);
        Some(end.as_millisecond().saturating_sub(start.as_millisecond()).max(0).cast_unsigned())
    }
}
