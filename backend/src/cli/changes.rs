//! Changes: every one is a plan first, which an operator reads and confirms.

use super::{Failure, Target, action::ActionArguments, duration, out::Out, progress, show};
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
  ringmaster apply transfer_leadership --to 2 --keep-within 60s   (reverts unless you keep it)"
)]
pub struct ApplyArguments {
    /// A plan that was made before
    #[arg(value_parser = parse_plan_id)]
    plan_id: Option<PlanId>,
    #[command(subcommand)]
    action: Option<ActionArguments>,
    /// Revert by itself unless it is kept within this time, such as 60s or 5m
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
    /// Do it without asking
    #[arg(long, global = true)]
    pub yes: bool,
    #[command(flatten)]
    pub target: Target,
}

pub async fn plan(arguments: PlanArguments, out: &Out) -> Result<(), Failure> {
    let PlanArguments { action, target } = arguments;
    let client = target.client();
    if target.json {
        let answer: Value = client.post("/v1/plans", &PlanRequest { action: action.into() }).await?;
        return Ok(out.line(answer.to_string())?);
    }
    let plan = make_plan(&client, action.into()).await?;
    out.text(show::plan(&plan, out.paint()))?;
    unblocked(&plan)?;
    Ok(out.line(show::how_to_apply(&plan))?)
}

/// Refuses what cannot be applied, so that scripts notice.
fn unblocked(plan: &Plan) -> Result<(), Failure> {
    if plan.blockers.is_empty() {
        return Ok(());
    }
    let blockers: Vec<_> = plan.blockers.iter().map(|blocker| blocker.detail.as_str()).collect();
    Err(Failure::Failed(format!(
        "plan {} is blocked, and cannot be applied: {}. Once the blockers are lifted, plan again",
        plan.id,
        blockers.join("; ")
    )))
}

pub async fn apply(arguments: ApplyArguments, out: &Out) -> Result<(), Failure> {
    let ApplyArguments { plan_id, action, keep_within, confirmation } = arguments;
    let keep_within_ms = keep_within.map(|time| time.as_millis().try_into().unwrap_or(u64::MAX));
    confirmation.check()?;
    let client = confirmation.target.client();
    let plan = match (plan_id, action) {
        (Some(id), None) => client.get(&format!("/v1/plans/{id}")).await?,
        (None, Some(action)) => make_plan(&client, action.into()).await?,
        _ => {
            return Err(Failure::Usage(
                "apply takes the number of a plan, or an action; see ringmaster apply --help".to_owned(),
            ));
        }
    };
    confirm_and_apply(&client, &plan, keep_within_ms, &confirmation, out).await
}

pub async fn undo(arguments: UndoArguments, out: &Out) -> Result<(), Failure> {
    let UndoArguments { operation, confirmation } = arguments;
    confirmation.check()?;
    let client = confirmation.target.client();
    let plan = make_plan(&client, Action::Undo { operation }).await?;
    confirm_and_apply(&client, &plan, None, &confirmation, out).await
}

pub async fn abort(id: OperationId, target: &Target, out: &Out) -> Result<(), Failure> {
    let client = target.client();
    let operation = client.post(&format!("/v1/operations/{id}/abort"), &json!({})).await?;
    let ended = end(&client, operation, OperationStatus::is_final, target.json, out).await?;
    judge(&ended, &[OperationStatus::Aborted, OperationStatus::Reverted])
}

pub async fn keep(id: OperationId, target: &Target, out: &Out) -> Result<(), Failure> {
    let client = target.client();
    let operation = client.post(&format!("/v1/operations/{id}/keep"), &json!({})).await?;
    let ended = end(&client, operation, OperationStatus::is_final, target.json, out).await?;
    judge(&ended, &[OperationStatus::Succeeded])
}

async fn make_plan(client: &Client, action: Action) -> Result<Plan, Failure> {
    Ok(client.post("/v1/plans", &PlanRequest { action }).await?)
}

async fn confirm_and_apply(
    client: &Client,
    plan: &Plan,
    keep_within_ms: Option<u64>,
    confirmation: &Confirmation,
    out: &Out,
) -> Result<(), Failure> {
    let json = confirmation.target.json;
    if !json {
        out.text(show::plan(plan, out.paint()))?;
    }
    unblocked(plan)?;
    if let Some(operation) = plan.operation {
        let operation: Operation = client.get(&format!("/v1/operations/{operation}")).await?;
        let since = operation.undone_by.map(|by| format!(", and was undone by operation {by}"));
        if !json {
            out.line(format!(
                "Plan {} was applied before, as operation {}, which {}{}. Nothing is done now.",
                plan.id,
                operation.id,
                operation.status.as_str().replace('_', " "),
                since.unwrap_or_default()
            ))?;
        }
        let ended = end(client, operation, progress::has_come_to_rest, json, out).await?;
        return judge(&ended, &[OperationStatus::Succeeded, OperationStatus::AwaitingKeep]);
    }
    if !confirmation.yes && !ask("Apply it? [y/N] ")? {
        return Err(Failure::Failed(format!("plan {} was not applied; nothing has changed", plan.id)));
    }
    let request = ApplyRequest { keep_within_ms };
    let operation = client.post(&format!("/v1/plans/{}/apply", plan.id), &request).await?;
    let ended = end(client, operation, progress::has_come_to_rest, json, out).await?;
    judge(&ended, &[OperationStatus::Succeeded, OperationStatus::AwaitingKeep])
}

/// Follows the operation, and tells how it ended.
async fn end(
    client: &Client,
    operation: Operation,
    enough: fn(OperationStatus) -> bool,
    json: bool,
    out: &Out,
) -> Result<Operation, Failure> {
    if !json {
        out.line(format!("\nOperation {}: {}", operation.id, operation.action))?;
    }
    let operation = progress::follow(client, operation, enough, json, out).await?;
    if !json {
        out.text(progress::outcome(&operation, out.paint()))?;
    }
    Ok(operation)
}

/// Whether it came to what was asked for.
fn judge(operation: &Operation, wanted: &[OperationStatus]) -> Result<(), Failure> {
    if wanted.contains(&operation.status) {
        return Ok(());
    }
    let reason = operation.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    Err(Failure::Failed(format!("operation {} {}{reason}", operation.id, operation.status.as_str())))
}

impl Confirmation {
    /// Refuses at once what could never be confirmed.
    pub fn check(&self) -> Result<(), Failure> {
        let missing = if self.target.json {
            "--json prints for programs"
        } else if !io::stdin().is_terminal() {
            "standard input is no terminal"
        } else {
            return Ok(());
        };
        if self.yes {
            return Ok(());
        }
        Err(Failure::Usage(format!("{missing}, so nobody can be asked to confirm it; give --yes")))
    }
}

pub fn ask(question: &str) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("cannot ask on the terminal: {error}"));
    let mut answer = String::new();
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn parse_plan_id(text: &str) -> Result<PlanId, String> {
    text.parse().map_err(|_| {
        format!("neither the number of a plan nor an action; the actions are {}", Action::TYPES.join(", "))
    })
}
