//! Operations: plans being run. They outlive their runner: the next leader resumes them.

use crate::{
    Timestamp,
    action::Action,
    error::Refusal,
    id::{NodeId, OperationId, PlanId, Revision},
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

/// The detail of a step that an election ended. The fact that leadership moved is in these words alone, so they are
/// made and recognised in one place.
pub fn won_election(leader: NodeId, term: u64) -> String {
    format!("node {leader} won the election of term {term}")
}

impl Step {
    /// Whether the step moved the leadership to another node. A step may find that nothing has to move.
    pub fn moved_leadership(&self) -> bool {
        let is_won = |detail: &str| {
            let words =
                detail.strip_prefix("node ").and_then(|rest| rest.split_once(" won the election of term "));
            words
                .is_some_and(|(leader, term)| leader.parse::<NodeId>().is_ok() && term.parse::<u64>().is_ok())
        };
        self.name == "transfer_leadership"
            && self.status == StepStatus::Succeeded
            && self.detail.as_deref().is_some_and(is_won)
    }

    /// How long the step took, by the wall clocks of the leaders that ran it.
    pub fn took_ms(&self) -> Option<u64> {
        let (start, end) = (self.started_at?, self.ended_at?);
        Some(end.as_millisecond().saturating_sub(start.as_millisecond()).max(0).cast_unsigned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_election_moves_the_leadership() {
        let step = |name: &str, status, detail: &str| Step {
            name: name.to_owned(),
            title: String::new(),
            bound_ms: 1_000,
            status,
            started_at: None,
            ended_at: None,
            detail: Some(detail.to_owned()),
        };
        let won = won_election(NodeId(3), 7);
        let transfer =
            |detail: &str| step("transfer_leadership", StepStatus::Succeeded, detail).moved_leadership();
        assert!(transfer(&won));
        assert!(!transfer("node 3 leads and continues to lead"), "a drain of a follower moves nothing");
        assert!(!step("transfer_leadership", StepStatus::Failed, &won).moved_leadership());
        assert!(!step("verify", StepStatus::Succeeded, &won).moved_leadership());
    }
}
