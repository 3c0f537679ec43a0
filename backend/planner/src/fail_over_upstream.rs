//! Making another endpoint the primary of an active-standby upstream.
//!
//! First the upstream has no primary, and every node routes by that; requests in flight may end. Then the old primary is
//! fenced, and the new one becomes the primary in an epoch of its own. If that fails before
//! the old one can have been fenced, it is the primary again. Later there is no primary until the next failover: one that
//! may be down is better than none, and none is better than two that are up.

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
};
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    plan::{Impact, Scope, UpstreamImpact},
    traffic::{
        health::Verdict,
        upstream::{EndpointState, Upstream},
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
    let to = match to {
        Some(to) => record.endpoint(&to)?.id.clone(),
        None => first_standby(state, upstream, from.as_deref(), record.latest_primary())?,
    };
    // Without a primary, the one before may still be up: an earlier failover may have ended before it was fenced.
    let to_fence = record.latest_primary().filter(|latest| *latest != to).map(str::to_owned);
    let mut warnings = Vec::new();
    if let Some(from) = to_fence.as_ref().filter(|_| standby.fence_webhook.is_none()) {
        warnings.push(Warning::NotFenced { upstream: name.clone(), endpoint: from.clone() });
    }
    if is_unchecked(upstream, &to) {
        warnings.push(Warning::HealthUnknown { upstream: name.clone(), endpoint: to.clone() });
    }
    let old = match &from {
        Some(from) => format!("in place of {from}"),
        None => "which has none now".to_owned(),
    };
    Ok(Draft {
        steps: steps(&name, from.as_deref(), to_fence.as_deref(), &to),
        revert: from.as_deref().map(|from| steps(&name, Some(&to), Some(&to), from)),
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

/// From the present primary, if there is one; `to_fence` is the one that may still be up.
fn steps(upstream: &str, from: Option<&str>, to_fence: Option<&str>, to: &str) -> Vec<DraftStep> {
    let (name, endpoint) = (upstream.to_owned(), to.to_owned());
    let (from, to_fence) = (from.map(str::to_owned), to_fence.map(str::to_owned));
    let old = to_fence.as_deref().unwrap_or("the old primary").to_owned();
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
        step(
            StepSpec::FencePrimary { upstream: name.clone(), from: to_fence },
            format!("Fence {old}, if a webhook is configured"),
            FENCED_WITHIN,
        ),
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
fn first_standby(
    state: &State,
    upstream: &Upstream,
    from: Option<&str>,
    latest: Option<&str>,
) -> Result<String, Refusal> {
    let mut others: Vec<_> =
        upstream.config.endpoints.iter().filter(|endpoint| Some(endpoint.id.as_str()) != from).collect();
    others.sort_by_key(|other| Some(other.id.as_str()) == latest);
    let fit = others.iter().find(|other| preflight(state, &upstream.name, &other.id).is_empty());
    let chosen = fit.or(others.first()).ok_or_else(|| {
        Refusal::new(
            Code::UnknownEndpoint,
            format!("{} has no other endpoint that could take over", upstream.name),
        )
    })?;
    Ok(chosen.id.clone())
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
