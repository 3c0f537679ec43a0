//! Making another endpoint the primary of an active-standby upstream.
//!
//! First the upstream has no primary, and every node routes by that; requests in flight may end. Then the old primary is
//! fenced, and the new one becomes the primary in an epoch of its own. If that fails before
//! the old one can have been fenced, it is the primary again. Later there is no primary until the next failover: one that
//! may be down is better than none, and none is better than two that are up.
//!
//! The endpoint that was the primary last is fenced at the address that it had then, whatever became of it since: one that
//! is cut off loses its registration first. The plan names the webhook, so that what was read is what is called.

use crate::{
    blocker::Blocker,
    draft::{PREFLIGHT_WITHIN, draft, step, texts_of_blockers, texts_of_warnings},
    serving::{load, unchanged},
    warning::Warning,
};
use ringmaster_cluster::{
    State,
    observations::Observations,
    plans::{Draft, DraftStep, FactKey},
    steps::{Check, StepSpec},
    upstreams::primary::LastPrimary,
};
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    plan::{Impact, Scope, UpstreamImpact},
    traffic::{
        health::Verdict,
        upstream::{Endpoint, EndpointState, Upstream},
    },
};
use std::time::Duration;

/// How long the nodes may take to route by the change, or to find the new primary healthy.
const ROUTED_WITHIN: Duration = Duration::from_secs(5);
/// How long the fencing webhook may take, with the entries around it.
const FENCED_WITHIN: Duration = Duration::from_secs(10);

pub fn plan(
    state: &State,
    observations: &Observations,
    action: Action,
    name: String,
    to: Option<String>,
) -> Result<Draft, Refusal> {
    let record = state.upstreams.find(&name)?;
    let upstream = &record.upstream;
    let draft =
        draft(state, observations, action, Scope::Upstream(name.clone()), [FactKey::Upstream(name.clone())]);
    let Some(standby) = &upstream.config.active_standby else {
        if let Some(to) = &to {
            record.endpoint(to)?;
        }
        return Ok(Draft {
            steps: steps(&name, None, None, &to.unwrap_or_default()),
            summary: format!("{name} has no primary to fail over from. Nothing would change."),
            impact: Impact { upstream: Some(unchanged(state, upstream)), ..draft.impact },
            blockers: texts_of_blockers(&[Blocker::NotActiveStandby { upstream: name }]),
            ..draft
        });
    };
    let from = upstream.primary.as_ref().and_then(|primary| primary.endpoint.clone());
    let latest = record.latest_primary();
    let to = match to {
        Some(to) => record.endpoint(&to)?,
        None => first_standby(state, upstream, from.as_deref(), latest.as_ref())?,
    };
    // Without a primary, the one before may still be up: it may have left, or a failover have ended before it was fenced.
    let to_fence = latest.filter(|latest| !latest.is(to)).map(|latest| ToFence {
        endpoint: latest.endpoint,
        addr: latest.addr,
        epoch: Some(latest.epoch).filter(|epoch| *epoch > 0),
        webhook: standby.fence_webhook.clone(),
    });
    let back = ToFence {
        endpoint: to.id.clone(),
        addr: Some(to.addr.clone()),
        epoch: None,
        webhook: standby.fence_webhook.clone(),
    };
    let to = to.id.clone();
    let mut warnings = Vec::new();
    if let Some(from) = to_fence.as_ref().filter(|from| from.webhook.is_none()) {
        warnings.push(Warning::NotFenced { upstream: name.clone(), endpoint: from.endpoint.clone() });
    }
    if is_unchecked(upstream, &to) {
        warnings.push(Warning::HealthUnknown { upstream: name.clone(), endpoint: to.clone() });
    }
    let old = match &from {
        Some(from) => format!("in place of {from}"),
        None => "which has none now".to_owned(),
    };
    Ok(Draft {
        steps: steps(&name, from.as_deref(), to_fence, &to),
        revert: from.as_deref().map(|from| steps(&name, Some(&to), Some(back), from)),
        undo: from.clone().map(|from| Action::FailOverUpstream { upstream: name.clone(), to: Some(from) }),
        summary: format!(
            "Endpoint {to} becomes the primary of {name}, {old}. In between, its requests are refused for a moment."
        ),
        impact: Impact {
            upstream: Some(UpstreamImpact { serving_after: 1, ..unchanged(state, upstream) }),
            ..draft.impact
        },
        observations: from.iter().map(|from| load(observations, &name, from)).collect(),
        warnings: texts_of_warnings(&warnings),
        blockers: texts_of_blockers(&preflight(state, &name, &to)),
        ..draft
    })
}

/// The endpoint that has to be fenced before another one may be the primary.
struct ToFence {
    endpoint: String,
    addr: Option<String>,
    /// None where it is known only once the endpoint has been made the primary.
    epoch: Option<u64>,
    webhook: Option<String>,
}

/// From the present primary, if there is one; `to_fence` is the one that may still be up.
fn steps(upstream: &str, from: Option<&str>, to_fence: Option<ToFence>, to: &str) -> Vec<DraftStep> {
    let (name, endpoint, from) = (upstream.to_owned(), to.to_owned(), from.map(str::to_owned));
    let old = to_fence.as_ref().map_or("the old primary", |to_fence| &to_fence.endpoint).to_owned();
    let fence = match to_fence {
        Some(ToFence { endpoint, addr, epoch, webhook }) => {
            StepSpec::FencePrimary { upstream: name.clone(), from: Some(endpoint), addr, epoch, webhook }
        }
        None => {
            let (addr, epoch, webhook) = (None, None, None);
            StepSpec::FencePrimary { upstream: name.clone(), from: None, addr, epoch, webhook }
        }
    };
    // A plan that is blocked for want of a primary names no endpoint.
    let to = if to.is_empty() { "the new primary" } else { to };
    vec![
        step(
            StepSpec::Preflight(Check::Failover { upstream: name.clone(), to: endpoint.clone() }),
            format!("Check again: {to} is ready and healthy"),
            PREFLIGHT_WITHIN,
        ),
        step(
            StepSpec::ClearPrimary { upstream: name.clone(), from, to: endpoint.clone() },
            format!("Stop routing requests to {upstream}"),
            ROUTED_WITHIN,
        ),
        step(fence, format!("Fence {old}, if a webhook is configured"), FENCED_WITHIN),
        step(
            StepSpec::SetPrimary { upstream: name.clone(), endpoint: endpoint.clone() },
            format!("Make {to} the primary, in a new epoch"),
            FENCED_WITHIN,
        ),
        step(
            StepSpec::VerifyPrimary { upstream: name, endpoint },
            format!("Verify that {to} serves"),
            ROUTED_WITHIN,
        ),
    ]
}

/// The first endpoint that can become the primary; where none can, the first one, so that the plan says why not. The
/// endpoint that was the primary last comes behind all others.
fn first_standby<'u>(
    state: &State,
    upstream: &'u Upstream,
    from: Option<&str>,
    latest: Option<&LastPrimary>,
) -> Result<&'u Endpoint, Refusal> {
    let mut others: Vec<_> =
        upstream.config.endpoints.iter().filter(|endpoint| Some(endpoint.id.as_str()) != from).collect();
    others.sort_by_key(|other| latest.is_some_and(|latest| latest.is(other)));
    let fit = others.iter().find(|other| preflight(state, &upstream.name, &other.id).is_empty());
    fit.or(others.first()).copied().ok_or_else(|| {
        Refusal::new(
            Code::UnknownEndpoint,
            format!("{} has no other endpoint that could take over", upstream.name),
        )
    })
}

/// Why `to` cannot become the primary now.
pub fn preflight(state: &State, name: &str, to: &str) -> Vec<Blocker> {
    let found = state.upstreams.find(name).and_then(|record| Ok((&record.upstream, record.endpoint(to)?)));
    let name = || name.to_owned();
    let (upstream, target) = match found {
        Ok(found) => found,
        Err(refusal) => return vec![Blocker::TrafficRefused { upstream: name(), refusal }],
    };
    if upstream.config.active_standby.is_none() {
        return vec![Blocker::NotActiveStandby { upstream: name() }];
    }
    let mut blockers = Vec::new();
    if upstream.primary.as_ref().is_some_and(|primary| primary.endpoint.as_deref() == Some(to)) {
        blockers.push(Blocker::AlreadyPrimary { upstream: name(), endpoint: to.to_owned() });
    }
    if target.state != EndpointState::Ready {
        blockers.push(Blocker::EndpointNotReady {
            upstream: name(),
            endpoint: to.to_owned(),
            state: target.state,
        });
    }
    if target.health.verdict != Verdict::Healthy && !is_unchecked(upstream, to) {
        let found = target.health.opinions.iter().find(|opinion| opinion.verdict == Verdict::Unhealthy);
        blockers.push(Blocker::EndpointNotHealthy {
            upstream: name(),
            endpoint: to.to_owned(),
            verdict: target.health.verdict,
            detail: found.map(|opinion| opinion.detail.clone()),
        });
    }
    blockers
}

/// Without health checks its health cannot be known; it is taken for healthy then.
fn is_unchecked(upstream: &Upstream, to: &str) -> bool {
    upstream.config.health_check.is_none()
        && upstream.endpoint(to).is_some_and(|endpoint| endpoint.health.verdict == Verdict::Unknown)
}
