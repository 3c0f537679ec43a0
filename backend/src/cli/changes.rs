//! Changes: plan, apply, undo, abort, keep. Every change is a plan that an operator confirms.

use super::{CliError, Target, action::ActionArguments, duration, progress, show};
use crate::out::Out;
use clap::Args;
use ringmaster_client::Client;
use ringmaster_common::{
    action::Action,
    id::{OperationId, PlanId},
    operation::{Operation, OperationStatus},
    plan::{ApplyRequest, Plan, PlanRequest},
};
use serde_json::{Value, json};
use std::{
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

#[derive(Args, Debug)]
#[command(after_help = "Example: ringmaster plan transfer_leadership --to 2")]
pub struct PlanArguments {
    #[command(subcommand)]
    action: ActionArguments,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
#[command(
    subcommand_required = false,
    after_help = "\
Examples:
  ringmaster apply 12
  ringmaster apply transfer_leadership --to 2 --yes
  ringmaster apply transfer_leadership --to 2 --keep-within 60s   (reverts unless kept)"
)]
pub struct ApplyArguments {
    /// The id of an existing plan
    #[arg(value_parser = parse_plan_id)]
    plan_id: Option<PlanId>,
    #[command(subcommand)]
    action: Option<ActionArguments>,
    /// Revert automatically unless the operation is kept within this time, such as 60s or 5m
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration::parse)]
    keep_within: Option<Duration>,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Args, Debug)]
pub struct UndoArguments {
    operation: OperationId,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Args, Debug)]
pub struct Confirmation {
    /// Apply without confirmation
    #[arg(long, global = true)]
    pub yes: bool,
    #[command(flatten)]
    pub target: Target,
}

pub async fn plan(arguments: PlanArguments, out: &Out) -> Result<(), CliError> {
    let PlanArguments { action, target } = arguments;
    let client = target.client();
    if target.json {
        let answer: Value = client.post("/v1/plans", &PlanRequest { action: action.into() }).await?;
        return Ok(out.line(answer.to_string())?);
    }
    let plan = make_plan(&client, action.into()).await?;
    out.text(show::plan(&plan, out.paint()))?;
    check_unblocked(&plan)?;
    Ok(out.line(show::how_to_apply(&plan))?)
}

/// Fails if the plan has blockers, so that scripts notice.
fn check_unblocked(plan: &Plan) -> Result<(), CliError> {
    if plan.blockers.is_empty() {
        return Ok(());
    }
    let blockers: Vec<_> = plan.blockers.iter().map(|blocker| blocker.detail.as_str()).collect();
    Err(CliError::Failed(format!(
        "plan {} is blocked and cannot be applied: {}. Make a new plan once the blockers are lifted",
        plan.id,
        blockers.join("; ")
    )))
}

pub async fn apply(arguments: ApplyArguments, out: &Out) -> Result<(), CliError> {
    let ApplyArguments { plan_id, action, keep_within, confirmation } = arguments;
    let keep_within_ms = keep_within.map(|time| time.as_millis().try_into().unwrap_or(u64::MAX));
    confirmation.check()?;
    let client = confirmation.target.client();
    let plan = match (plan_id, action) {
        (Some(id), None) => client.get(&format!("/v1/plans/{id}")).await?,
        (None, Some(action)) => make_plan(&client, action.into()).await?,
        _ => {
            return Err(CliError::Usage(
                "apply takes a plan id or an action; see ringmaster apply --help".to_owned(),
            ));
        }
    };
    confirm_and_apply(&client, &plan, keep_within_ms, &confirmation, out).await
}

pub async fn undo(arguments: UndoArguments, out: &Out) -> Result<(), CliError> {
    let UndoArguments { operation, confirmation } = arguments;
    confirmation.check()?;
    let client = confirmation.target.client();
    let plan = make_plan(&client, Action::Undo { operation }).await?;
    confirm_and_apply(&client, &plan, None, &confirmation, out).await
}

pub async fn abort(id: OperationId, target: &Target, out: &Out) -> Result<(), CliError> {
    let client = target.client();
    let operation = client.post(&format!("/v1/operations/{id}/abort"), &json!({})).await?;
    let ended = follow(&client, operation, OperationStatus::is_final, target.json, out).await?;
    expect_status(&ended, &[OperationStatus::Aborted, OperationStatus::Reverted])
}

pub async fn keep(id: OperationId, target: &Target, out: &Out) -> Result<(), CliError> {
    let client = target.client();
    let operation = client.post(&format!("/v1/operations/{id}/keep"), &json!({})).await?;
    let ended = follow(&client, operation, OperationStatus::is_final, target.json, out).await?;
    expect_status(&ended, &[OperationStatus::Succeeded])
}

async fn make_plan(client: &Client, action: Action) -> Result<Plan, CliError> {
    Ok(client.post("/v1/plans", &PlanRequest { action }).await?)
}

async fn confirm_and_apply(
    client: &Client,
    plan: &Plan,
    keep_within_ms: Option<u64>,
    confirmation: &Confirmation,
    out: &Out,
) -> Result<(), CliError> {
    let json = confirmation.target.json;
    if !json {
        out.text(show::plan(plan, out.paint()))?;
    }
    check_unblocked(plan)?;
    if let Some(operation) = plan.operation {
        let operation: Operation = client.get(&format!("/v1/operations/{operation}")).await?;
        let undone = operation.undone_by.map(|by| format!(", undone by operation {by}"));
        if !json {
            out.line(format!(
                "Plan {} was applied earlier as operation {} ({}{}). Nothing is applied now.",
                plan.id,
                operation.id,
                operation.status.as_str().replace('_', " "),
                undone.unwrap_or_default()
            ))?;
        }
        let ended = follow(client, operation, progress::is_at_rest, json, out).await?;
        return expect_status(&ended, &[OperationStatus::Succeeded, OperationStatus::AwaitingKeep]);
    }
    if !confirmation.yes && !confirm("Apply the plan? [y/N] ")? {
        return Err(CliError::Failed(format!("plan {} is not applied; nothing has changed", plan.id)));
    }
    let request = ApplyRequest { keep_within_ms };
    let operation = client.post(&format!("/v1/plans/{}/apply", plan.id), &request).await?;
    let ended = follow(client, operation, progress::is_at_rest, json, out).await?;
    expect_status(&ended, &[OperationStatus::Succeeded, OperationStatus::AwaitingKeep])
}

/// Follows the operation and prints its outcome.
async fn follow(
    client: &Client,
    operation: Operation,
    until: fn(OperationStatus) -> bool,
    json: bool,
    out: &Out,
) -> Result<Operation, CliError> {
    if !json {
        out.line(format!("\nOperation {}: {}", operation.id, operation.action))?;
    }
    let operation = progress::follow(client, operation, until, json, out).await?;
    if !json {
        out.text(progress::outcome(&operation, out.paint()))?;
    }
    Ok(operation)
}

/// Fails unless the operation has one of the expected statuses.
fn expect_status(operation: &Operation, expected: &[OperationStatus]) -> Result<(), CliError> {
    if expected.contains(&operation.status) {
        return Ok(());
    }
    let reason = operation.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    Err(CliError::Failed(format!("operation {} {}{reason}", operation.id, operation.status.as_str())))
}

impl Confirmation {
    /// Fails early if a confirmation is impossible.
    pub fn check(&self) -> Result<(), CliError> {
        let reason = if self.target.json {
            "--json output has no confirmation prompt"
        } else if !io::stdin().is_terminal() {
            "standard input is not a terminal"
        } else {
            return Ok(());
        };
        if self.yes {
            return Ok(());
        }
        Err(CliError::Usage(format!("cannot ask for confirmation: {reason}; pass --yes")))
    }
}

pub fn confirm(question: &str) -> Result<bool, CliError> {
    let failed = |error: io::Error| CliError::Failed(format!("cannot ask for confirmation: {error}"));
    let mut answer = String::new();
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn parse_plan_id(text: &str) -> Result<PlanId, String> {
    text.parse()
        .map_err(|_| format!("neither a plan id nor an action; the actions are {}", Action::TYPES.join(", ")))
}
