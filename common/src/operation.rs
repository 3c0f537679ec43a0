//! Operations: plans being run. They outlive their runner: the next leader resumes them.

use crate::{
    Timestamp,
    action::Action,
    error::Refusal,
    id::{OperationId, PlanId, Revision},
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
    /// What happens, as one sentence.
    pub summary: String,
    pub status: OperationStatus,
    pub steps: Vec<Step>,
    /// Why it failed, was aborted or was reverted.
    pub error: Option<Refusal>,
    pub started_by: String,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub keep_within_ms: Option<u64>,
    /// While the operation waits to be kept: when it reverts by itself.
    pub keep_until: Option<Timestamp>,
    pub undoable: bool,
    /// The operation that this one takes back.
    pub undo_of: Option<OperationId>,
    /// The operation that took this one back.
    pub undone_by: Option<OperationId>,
    /// The revision of the last change of this operation.
    pub revision: Revision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum OperationStatus {
    Running,
    /// All is done, and will be reverted unless the operator keeps it.
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
    /// A stable word, such as `hand_over`.
    pub name: String,
    pub title: String,
    pub bound_ms: u64,
    pub status: StepStatus,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// What was measured, or why it failed.
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum StepStatus {
    Pending,
    Running,
    Succeeded,
    Failed,
    /// The operation ended before its turn came.
    Skipped,
}

string_enum!(StepStatus: Pending Running Succeeded Failed Skipped);

impl OperationStatus {
    /// Whether nothing more will happen.
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
    /// How long the step took, by the wall clocks of those who ran it.
    pub fn took_ms(&self) -> Option<u64> {
        let (start, end) = (self.started_at?, self.ended_at?);
        Some(end.as_millisecond().saturating_sub(start.as_millisecond()).max(0).cast_unsigned())
    }
}
