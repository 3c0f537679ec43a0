//! Steps that make another endpoint the primary.
//!
//! First nobody gets requests, and every node that reports has to route by that; what is under way may end, but not
//! go on for longer than a drain does. Then the old primary is fenced; then the new one is promoted, in an epoch of its
//! own. Where fencing fails, the old primary is put back: it is better to have one that may be down than two that are
//! not.

use super::{POLL_EVERY, out_of_place};
use crate::{PROPOSAL_DEADLINE, request};
use ringmaster_cluster::{
    command::Command,
    operations::RunningStep,
    plans::{Goal, StepKind},
    traffic::TrafficCommand,
};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{
    error::{Code, Refusal},
    id::{NodeId, Revision},
    traffic::health::Verdict,
};
use ringmaster_net::clock;
use ringmaster_telemetry::Telemetry;
use serde_json::json;
use std::time::Duration;

/// How long nodes may take to say that they send nothing any more.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// How long a fence may take to answer.
const FENCE_WITHIN: Duration = Duration::from_secs(8);
/// How long the new primary may be called unhealthy before that counts.
const VERIFY_WITHIN: Duration = Duration::from_secs(2);

pub(super) async fn bring_about(
    group: &ClusterGroup,
    telemetry: &Telemetry,
    term: u64,
    step: &RunningStep,
) -> Result<String, Refusal> {
    let Goal::FailOver { upstream, from, to } = &step.goal else { return Err(out_of_place(step)) };
    let operation = step.operation;
    match step.kind {
        StepKind::Drain => {
            let reason = format!("operation {operation} fails over to {to}");
            let revision = set_primary(group, term, upstream, None, reason).await?;
            let heard = drained(group, telemetry, revision).await;
            Ok(format!("{heard}{}", under_way(group, telemetry, upstream, from.as_deref())))
        }
        StepKind::Fence => match fence(group, upstream, from.as_deref()).await {
            Ok(detail) => Ok(detail),
            Err(why) => {
                if from.is_some() {
                    let reason = format!("operation {operation} could not fence it: {why}");
                    set_primary(group, term, upstream, from.clone(), reason).await?;
                }
                Err(Refusal::new(Code::FenceFailed, why))
            }
        },
        StepKind::Promote => {
            let reason = format!("operation {operation} made it so");
            set_primary(group, term, upstream, Some(to.clone()), reason).await?;
            let epoch = primary(group, upstream).map_or(0, |(_, epoch)| epoch);
            Ok(format!("{to} is primary in epoch {epoch}"))
        }
        StepKind::Verify => verify(group, upstream, to).await,
        _ => Err(out_of_place(step)),
    }
}

async fn set_primary(
    group: &ClusterGroup,
    term: u64,
    upstream: &str,
    endpoint: Option<String>,
    reason: String,
) -> Result<Revision, Refusal> {
    let command = TrafficCommand::SetPrimary { upstream: upstream.to_owned(), endpoint, reason };
    let (command, deadline) = (Command::Traffic(Box::new(command)), clock::now() + PROPOSAL_DEADLINE);
    Ok(group.propose_in(term, request(group.me()), command, deadline).await?.revision)
}

fn primary(group: &ClusterGroup, upstream: &str) -> Option<(Option<String>, u64)> {
    let state = group.state();
    let primary = state.upstreams.get(upstream)?.upstream.primary.as_ref()?;
    Some((primary.endpoint.clone(), primary.epoch))
}

/// Waits until the proxies of all nodes that are alive route by it. One that does not say so may still send
/// requests; they carry the old epoch.
async fn drained(group: &ClusterGroup, telemetry: &Telemetry, revision: Revision) -> String {
    let deadline = clock::now() + DRAIN_WITHIN;
    loop {
        let state = group.state();
        let waited_for: Vec<NodeId> = state
            .membership
            .iter()
            .filter(|node| node.is_alive())
            .map(|node| node.id)
            .filter(|id| telemetry.routed(*id).is_none_or(|routed| routed < revision))
            .collect();
        if waited_for.is_empty() {
            return "no node sends it anything new".to_owned();
        }
        if clock::now() >= deadline {
            let ids: Vec<_> = waited_for.iter().map(NodeId::to_string).collect();
            return format!(
                "nobody knows it of nodes {}: what they send carries the old epoch",
                ids.join(", ")
            );
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// What nodes last said that the old primary still has, and what becomes of it.
fn under_way(group: &ClusterGroup, telemetry: &Telemetry, upstream: &str, from: Option<&str>) -> String {
    let reports = telemetry.traffic();
    let of_upstream = reports.iter().flat_map(|report| report.iter()).filter(|of| of.upstream == upstream);
    let endpoints = of_upstream.flat_map(|of| &of.endpoints).filter(|of| Some(of.endpoint.as_str()) == from);
    let count: u32 = endpoints.map(|endpoint| endpoint.in_flight).sum();
    let drain_ms = group.state().upstreams.get(upstream).map_or(0, |record| record.upstream.config.drain_ms);
    match count {
        0 => String::new(),
        count => format!("; of what it had, {count} may go on for {} s", drain_ms.div_ceil(1_000)),
    }
}

/// Asks the webhook to fence the old primary. An answer of 200 to 299 says that it is done.
async fn fence(group: &ClusterGroup, upstream: &str, from: Option<&str>) -> Result<String, String> {
    let state = group.state();
    let Some(record) = state.upstreams.get(upstream) else { return Err("the upstream is gone".to_owned()) };
    let webhook =
        record.upstream.config.active_standby.as_ref().and_then(|standby| standby.fence_webhook.as_ref());
    let (Some(webhook), Some(from)) = (webhook, from) else {
        return Ok("there is nothing to ask; the epoch alone tells the old primary from the new".to_owned());
    };
    let addr = record.upstream.endpoint(from).map(|endpoint| endpoint.addr.clone());
    let epoch = record.upstream.primary.as_ref().map_or(0, |primary| primary.epoch);
    let body = json!({ "upstream": upstream, "endpoint": from, "addr": addr, "epoch": epoch });
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(FENCE_WITHIN)
        .build()
        .map_err(|error| error.to_string())?;
    let answer = client.post(webhook).json(&body).send().await;
    match answer {
        Ok(answer) if answer.status().is_success() => Ok(format!("{from} is fenced: {webhook} says so")),
        Ok(answer) => Err(format!("{webhook} answered {}", answer.status())),
        Err(error) if error.is_timeout() => Err(format!("{webhook} did not answer in time")),
        Err(_) => Err(format!("{webhook} cannot be reached")),
    }
}

/// The new primary is what the state says, and not called unhealthy.
async fn verify(group: &ClusterGroup, upstream: &str, to: &str) -> Result<String, Refusal> {
    let deadline = clock::now() + VERIFY_WITHIN;
    loop {
        let now = primary(group, upstream);
        let Some((_, epoch)) = now.filter(|(endpoint, _)| endpoint.as_deref() == Some(to)) else {
            return Err(Refusal::new(
                Code::PreflightFailed,
                format!("{to} is not the primary of {upstream} any more"),
            ));
        };
        let verdict = group.state().upstreams.find(upstream)?.endpoint(to)?.health.verdict;
        if verdict != Verdict::Unhealthy {
            return Ok(format!("{to} is {} and gets the requests, in epoch {epoch}", verdict.as_str()));
        }
        if clock::now() >= deadline {
            return Err(Refusal::new(Code::PreflightFailed, format!("{to} is unhealthy")));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}
