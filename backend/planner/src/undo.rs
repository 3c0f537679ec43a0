//! Undoing a finished operation: the action that undoes it, planned on the state of now like any other.

use crate::draft::footprint;
use ringmaster_cluster::{
    State,
    plans::{Draft, FactKey},
};
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    id::OperationId,
    operation::OperationStatus,
};

pub fn plan(
    state: &State,
    id: OperationId,
    action: Action,
    plan_undo: impl FnOnce(Action) -> Result<Draft, Refusal>,
) -> Result<Draft, Refusal> {
    let undo = undo_of(state, id)?;
    let mut draft = plan_undo(undo)?;
    draft.action = action;
    draft.undoes = Some(id);
    draft.footprint.extend(footprint(state, [FactKey::Operation(id)]));
    Ok(draft)
}

fn undo_of(state: &State, id: OperationId) -> Result<Action, Refusal> {
    let record = state.operations.find(id)?;
    let operation = &record.operation;
    let refuse = |detail: String| Err(Refusal::new(Code::NotUndoable, detail));
    if let Some(by) = operation.undone_by {
        return refuse(format!("operation {id} was already undone, by operation {by}"));
    }
    match operation.status {
        OperationStatus::Succeeded => {}
        OperationStatus::AwaitingKeep => {
            return refuse(format!("operation {id} waits to be kept; abort it to revert it"));
        }
        other => {
            return refuse(format!("operation {id} {}; only a successful one can be undone", other.as_str()));
        }
    }
    match &record.undo {
        Some(undo) => Ok(undo.clone()),
        None => refuse(format!("this cannot be undone: {}", operation.action)),
    }
}
