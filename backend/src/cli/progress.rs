//! Progress of an operation: one line for each finished step, with its duration.

use super::{CliError, duration::show_ms, queries::to_json, show};
use crate::out::{Out, Paint, Tone};
use ringmaster_client::{Client, Stream, Update};
use ringmaster_common::operation::{Operation, OperationStatus, Step, StepStatus};
use std::time::Duration;
use tokio::{signal::ctrl_c, time::timeout};

/// How long after a step's deadline the command waits for a change before it gives up.
pub const UPDATE_TIMEOUT: Duration = Duration::from_secs(30);

/// Prints the operation's steps as they end, until its status satisfies `until`.
pub async fn follow(
    client: &Client,
    operation: Operation,
    until: fn(OperationStatus) -> bool,
    json: bool,
    out: &Out,
) -> Result<Operation, CliError> {
    let id = operation.id;
    tokio::select! {
        outcome = watch(client, operation, until, json, out) => outcome,
        _ = ctrl_c() => Err(CliError::Failed(format!(
            "operation {id} continues without this command; to follow it: ringmaster operations --watch"
        ))),
    }
}

async fn watch(
    client: &Client,
    mut operation: Operation,
    until: fn(OperationStatus) -> bool,
    json: bool,
    out: &Out,
) -> Result<Operation, CliError> {
    let mut printed = Printed::default();
    let mut stream = Stream::open(client);
    loop {
        if json {
            out.line(to_json(&operation))?;
        } else {
            printed.print(&operation, out)?;
        }
        if until(operation.status) {
            return Ok(operation);
        }
        let deadline =
            UPDATE_TIMEOUT + Duration::from_millis(running(&operation).map_or(0, |step| step.bound_ms));
        operation = match timeout(deadline, change(client, &mut stream, &operation)).await {
            Ok(changed) => changed?,
            Err(_) => {
                return Err(CliError::Failed(format!(
                    "operation {} reported no change for {}; it may continue without this command; to follow it: \
                     ringmaster operations --watch",
                    operation.id,
                    show_ms(deadline.as_millis().try_into().unwrap_or(u64::MAX)),
                )));
            }
        };
    }
}

/// Waits until the operation differs from `known`.
async fn change(client: &Client, stream: &mut Stream, known: &Operation) -> Result<Operation, CliError> {
    loop {
        if stream.next().await? == Update::Sample {
            continue;
        }
        let view = stream.view().expect("there is a view after the first update");
        let current = match view.operations.get(&known.id) {
            Some(current) => current.clone(),
            None if view.revision < known.revision => continue,
            // The view holds only the latest operations.
            None => client.get(&format!("/v1/operations/{}", known.id)).await?,
        };
        if current != *known && current.revision >= known.revision {
            return Ok(current);
        }
    }
}

fn running(operation: &Operation) -> Option<&Step> {
    operation.steps.iter().find(|step| step.status == StepStatus::Running)
}

/// How much of an operation is on the screen.
#[derive(Debug, Default)]
struct Printed {
    steps: usize,
}

impl Printed {
    fn print(&mut self, operation: &Operation, out: &Out) -> Result<(), CliError> {
        let count = operation.steps.len();
        let width = operation.steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
        let line = |number, step| step_line(number, count, width, step, out.paint());
        // Steps end in their order.
        for (number, step) in (1..).zip(&operation.steps).skip(self.steps) {
            if matches!(step.status, StepStatus::Pending | StepStatus::Running) {
                if step.status == StepStatus::Running {
                    out.provisional(&line(number, step))?;
                }
                break;
            }
            out.replace(&line(number, step))?;
            self.steps += 1;
        }
        Ok(())
    }
}

fn step_line(number: usize, count: usize, width: usize, step: &Step, paint: Paint) -> String {
    let tone = match step.status {
        StepStatus::Succeeded => Tone::Good,
        StepStatus::Failed => Tone::Bad,
        StepStatus::Running => Tone::Warn,
        StepStatus::Pending | StepStatus::Skipped => Tone::Faint,
    };
    let status = paint.apply(tone, &format!("{:<9}", step.status.as_str()));
    let took = step.took_ms().map(show_ms).unwrap_or_default();
    let detail = step.detail.as_deref().unwrap_or(&step.title);
    format!("  {number}/{count}  {:<width$}  {status}  {took:>8}  {detail}", step.name)
}

/// How the operation ended, and what may be done about it.
pub fn outcome(operation: &Operation, paint: Paint) -> String {
    let id = operation.id;
    let status =
        paint.apply(show::operation_tone(operation.status), &operation.status.as_str().replace('_', " "));
    let took = show::took(operation).map(|ms| format!(" in {}", show_ms(ms))).unwrap_or_default();
    let mut text = format!("Operation {id} {status}{took}.\n");
    match operation.status {
        OperationStatus::Succeeded if operation.undoable && operation.undone_by.is_none() => {
            text.push_str(&format!("To undo it: ringmaster undo {id}\n"));
        }
        OperationStatus::AwaitingKeep => {
            let until = operation.keep_until.map(|at| format!(" at {}", show::time(at))).unwrap_or_default();
            text.push_str(&format!("It reverts automatically{until}. To keep it: ringmaster keep {id}\n"));
            text.push_str(&format!("To revert it now: ringmaster abort {id}\n"));
        }
        _ => {}
    }
    text
}

/// Whether the operation has ended or waits for an operator.
pub fn is_at_rest(status: OperationStatus) -> bool {
    status != OperationStatus::Running
}

#[cfg(test)]
mod tests;
