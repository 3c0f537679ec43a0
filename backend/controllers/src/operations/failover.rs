//! Steps that make another endpoint the primary of an upstream.
//!
//! First the upstream has no primary, and every node that reports routes by that; requests in flight may end, but for no
//! longer than a drain takes. Then the old primary is fenced; then the new one is promoted, in an epoch of its own. Where
//! a step fails before the old primary can have been fenced, the log makes it the primary again, in the entry that ends
//! the step.

use super::{Execution, STEP_POLL_INTERVAL, webhook};
use ringmaster_cluster::{
    command::{Outcome, Resource},
    traffic::TrafficCommand,
};
use ringmaster_common::{
    error::{Code, Refusal},
    id::{NodeId, Revision},
    traffic::{health::Verdict, upstream::Primary},
};
use ringmaster_net::clock;
use serde_json::json;
use std::time::Duration;

/// How long nodes may take to report that they route by the change.
const ROUTED_WITHIN: Duration = Duration::from_secs(2);
/// How long the fencing webhook may take to answer.
const FENCED_WITHIN: Duration = Duration::from_secs(8);
/// The pause before a webhook that did not answer is called again.
const FENCE_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long the new primary may be unhealthy before that counts.
const HEALTHY_WITHIN: Duration = Duration::from_secs(2);

/// The old primary, as the step names it.
pub(super) struct Former<'a> {
    pub(super) upstream: &'a str,
    pub(super) endpoint: &'a str,
    pub(super) addr: Option<&'a str>,
    pub(super) epoch: Option<u64>,
}

/// Why it is not confirmed that the old primary is fenced.
enum FenceError {
    /// The webhook could not be reached, or answered that it did not do it.
    NotFenced(String),
    /// The webhook was called, and may have done it.
    Unanswered(String),
}

impl Execution<'_> {
    pub(super) async fn clear_primary(
        &self,
        upstream: &str,
        from: Option<&str>,
        to: &str,
    ) -> Result<String, Refusal> {
        let reason = format!("operation {} fails over to {to}", self.step.operation);
        let (revision, _) = self.set_primary(upstream, None, reason).await?;
        let routed = self.until_routed(revision).await;
        Ok(format!("{routed}{}", self.in_flight(upstream, from)))
    }

    pub(super) async fn promote_endpoint(&self, upstream: &str, to: &str) -> Result<String, Refusal> {
        let reason = format!("operation {} made it the primary", self.step.operation);
        let (_, primary) = self.set_primary(upstream, Some(to.to_owned()), reason).await?;
        Ok(format!("{to} is primary in epoch {}", primary.map_or(0, |primary| primary.epoch)))
    }

    async fn set_primary(
        &self,
        upstream: &str,
        endpoint: Option<String>,
        reason: String,
    ) -> Result<(Revision, Option<Primary>), Refusal> {
        let command = TrafficCommand::SetPrimary { upstream: upstream.to_owned(), endpoint, reason };
        let response = self.propose_traffic(command).await?;
        let primary = match response.outcome {
            Outcome::Stored(stored) => match stored.resource {
                Resource::Upstream(upstream) => upstream.primary,
                _ => None,
            },
            _ => None,
        };
        Ok((response.revision, primary))
    }

    /// Waits until the proxies of all nodes that are alive route by it. A node that does not report so may still send
    /// requests; they carry the old epoch.
    async fn until_routed(&self, revision: Revision) -> String {
        let deadline = clock::now() + ROUTED_WITHIN;
        loop {
            let state = self.group.state();
            let missing: Vec<NodeId> = state
                .membership
                .iter()
                .filter(|node| node.is_alive())
                .map(|node| node.id)
                .filter(|id| {
                    self.telemetry.applied_table_revision(*id).is_none_or(|applied| applied < revision)
                })
                .collect();
            if missing.is_empty() {
                return "every node has stopped new requests".to_owned();
            }
            if clock::now() >= deadline {
                let ids: Vec<_> = missing.iter().map(NodeId::to_string).collect();
                return format!(
                    "nodes {} have not confirmed; their requests carry the old epoch",
                    ids.join(", ")
                );
            }
            tokio::time::sleep(STEP_POLL_INTERVAL).await;
        }
    }

    /// The requests that the old primary still has, as nodes last reported.
    fn in_flight(&self, upstream: &str, from: Option<&str>) -> String {
        let reports = self.telemetry.traffic();
        let of_upstream =
            reports.iter().flat_map(|report| report.iter()).filter(|of| of.upstream == upstream);
        let endpoints =
            of_upstream.flat_map(|of| &of.endpoints).filter(|of| Some(of.endpoint.as_str()) == from);
        let count: u32 = endpoints.map(|endpoint| endpoint.in_flight).sum();
        let state = self.group.state();
        let drain_ms = state.upstreams.get(upstream).map_or(0, |record| record.upstream.config.drain_ms);
        match count {
            0 => String::new(),
            count => format!("; {count} requests in flight may take {} s more", drain_ms.div_ceil(1_000)),
        }
    }

    /// Asks the webhook to fence the old primary. An answer of 200 to 299 confirms it, and any other one denies it. A
    /// webhook that was called and did not answer, or may have been called by another leader, is called until it
    /// confirms: the old primary may be fenced by then. The log ends a step that is late.
    pub(super) async fn fence(&self, former: &Former<'_>, webhook: Option<&str>) -> Result<String, Refusal> {
        let mut may_be_fenced = self.step.taken_over;
        loop {
            match self.call_webhook(former, webhook).await {
                Ok(confirmed) => return Ok(confirmed),
                Err(FenceError::NotFenced(why)) if !may_be_fenced => {
                    return Err(Refusal::new(Code::FenceFailed, why));
                }
                Err(FenceError::NotFenced(why) | FenceError::Unanswered(why)) => {
                    tracing::warn!(upstream = former.upstream, why, "the fencing webhook is called again");
                    may_be_fenced = true;
                    tokio::time::sleep(FENCE_RETRY_INTERVAL).await;
                }
            }
        }
    }

    async fn call_webhook(&self, former: &Former<'_>, webhook: Option<&str>) -> Result<String, FenceError> {
        let Former { upstream, endpoint: from, addr, epoch } = *former;
        let state = self.group.state();
        let Some(record) = state.upstreams.get(upstream) else {
            return Err(FenceError::NotFenced("the upstream was deleted".to_owned()));
        };
        let Some(url) = webhook.or(record.upstream.config.fence_webhook()) else {
            return Ok(
                "no webhook is configured; only the epoch distinguishes the old primary from the new one"
                    .to_owned(),
            );
        };
        // The state knows what the plan could not: the epoch of a primary that this operation has made.
        let last = record.latest_primary().filter(|last| last.endpoint == from);
        let (addr, epoch) = match &last {
            Some(last) => (last.addr.as_deref().or(addr), Some(last.epoch)),
            None => (addr, epoch),
        };
        let body = json!({ "upstream": upstream, "endpoint": from, "addr": addr, "epoch": epoch });
        let client = webhook::client(url, FENCED_WITHIN).await.map_err(FenceError::NotFenced)?;
        match client.post(url).json(&body).send().await {
            Ok(answer) if answer.status().is_success() => {
                Ok(format!("{url} confirmed that {from} is fenced"))
            }
            Ok(answer) => Err(FenceError::NotFenced(format!("{url} answered {}", answer.status()))),
            Err(error) if error.is_connect() || error.is_builder() => {
                Err(FenceError::NotFenced(format!("{url} is unreachable")))
            }
            Err(_) => Err(FenceError::Unanswered(format!("{url} did not answer"))),
        }
    }

    /// The endpoint is still the primary, and not unhealthy.
    pub(super) async fn verify_primary(&self, upstream: &str, to: &str) -> Result<String, Refusal> {
        let deadline = clock::now() + HEALTHY_WITHIN;
        loop {
            let state = self.group.state();
            let record = state.upstreams.find(upstream)?;
            let primary = record.upstream.primary.as_ref();
            let Some(primary) = primary.filter(|primary| primary.endpoint.as_deref() == Some(to)) else {
                return Err(Refusal::new(
                    Code::PreflightFailed,
                    format!("{to} is no longer the primary of {upstream}"),
                ));
            };
            let verdict = record.endpoint(to)?.health.verdict;
            if verdict != Verdict::Unhealthy {
                return Ok(format!("{to} is {} and serves, in epoch {}", verdict.as_str(), primary.epoch));
            }
            if clock::now() >= deadline {
                return Err(Refusal::new(Code::PreflightFailed, format!("{to} is unhealthy")));
            }
            tokio::time::sleep(STEP_POLL_INTERVAL).await;
        }
    }
}
