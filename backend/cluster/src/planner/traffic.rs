//! What operators do to endpoints: giving them nothing new, nothing at all, or requests again; and having another one
//! be the primary.
//!
//! The question is always who is left for requests. It is asked of what the cluster says of health, which
//! may change until the plan is applied; so the operation's first step asks again.

use super::{Observations, footprint, unchanged};
use crate::{
    State,
    plans::{Draft, FactKey, Goal},
};
use ringmaster_common::{
    action::Action,
    duration::millis,
    error::{Code, Refusal},
    plan::{Blocker, Impact, Observation, UpstreamImpact, Warning},
    traffic::{
        health::Verdict,
        upstream::{EndpointState, Upstream},
    },
};

pub(super) fn set_state(
    state: &State,
    observations: &Observations,
    action: Action,
    name: String,
    id: String,
    after: EndpointState,
) -> Result<Draft, Refusal> {
    let record = state.upstreams.find(&name)?;
    let endpoint = record.endpoint(&id)?;
    let before = endpoint.state;
    let goal = Goal::SetEndpointState { upstream: name.clone(), endpoint: id.clone(), before, after };
    let impact = impact(state, &record.upstream, &id, after);
    let (left, of) = (impact.taking_after, impact.endpoints);
    let mut blockers = blockers(state, &name, &id, after);
    if before == after {
        blockers.insert(
            0,
            Blocker {
                code: "already_so".to_owned(),
                detail: format!("endpoint {id} of {name} is in state {} already", after.as_str()),
                subject: subject(&name),
                lifted_by: "there is nothing to do".to_owned(),
            },
        );
    }
    let mut warnings = Vec::new();
    if blockers.is_empty() && left == 0 {
        warnings.push(Warning {
            code: "no_endpoint_left".to_owned(),
            detail: format!("No endpoint of {name} takes requests then."),
            subject: subject(&name),
        });
    } else if left == 1 && impact.taking_before > 1 {
        warnings.push(Warning {
            code: "one_endpoint_left".to_owned(),
            detail: format!("One endpoint of {name} alone takes requests then; if it fails, nobody does."),
            subject: subject(&name),
        });
    }
    let what = match after {
        EndpointState::Ready => "takes requests again, if it is healthy".to_owned(),
        EndpointState::Drain => format!(
            "gets nothing new; what it has may go on for {} s",
            record.upstream.config.drain_ms.div_ceil(1_000)
        ),
        EndpointState::Maintenance => "gets nothing at all, and nobody checks it".to_owned(),
    };
    Ok(Draft {
        summary: format!(
            "Endpoint {id} ({}) of {name} {what}. {left} of its {of} endpoints {} requests then.",
            endpoint.addr,
            if left == 1 { "takes" } else { "take" }
        ),
        footprint: footprint(state, [FactKey::Upstream(name.clone())]),
        impact: Impact {
            leader_before: state.leader(),
            leader_after: state.leader(),
            upstream: Some(impact),
            ..unchanged(state)
        },
        observations: vec![requests_at(observations, &name, &id)],
        warnings,
        blockers,
        goal,
        revision: state.revision,
        undoes: None,
        action,
    })
}

/// What forbids it now: that requests come, and nobody would be left to take them.
pub(super) fn blockers(state: &State, name: &str, id: &str, after: EndpointState) -> Vec<Blocker> {
    let refused = |refusal: Refusal| Blocker {
        code: refusal.code.as_str().to_owned(),
        detail: refusal.detail,
        subject: subject(name),
        lifted_by: "plan again".to_owned(),
    };
    let record = match state.upstreams.find(name) {
        Ok(record) => record,
        Err(refusal) => return vec![refused(refusal)],
    };
    if let Err(refusal) = record.endpoint(id) {
        return vec![refused(refusal)];
    }
    let impact = impact(state, &record.upstream, id, after);
    let Some(route) = impact.routes.first() else { return Vec::new() };
    if impact.taking_after > 0 || impact.taking_before == 0 {
        return Vec::new();
    }
    let stands_by = record.upstream.primary.is_some();
    vec![Blocker {
        code: "no_endpoint_left".to_owned(),
        detail: if stands_by {
            format!("{id} is the primary of {name}, and the others stand by; requests come by route {route}")
        } else {
            format!("no other endpoint of {name} takes requests, and requests come by route {route}")
        },
        subject: subject(name),
        lifted_by: if stands_by {
            "make another endpoint the primary first (fail_over_upstream)".to_owned()
        } else {
            "make another endpoint ready and healthy, or delete the routes that lead here".to_owned()
        },
    }]
}

pub(super) fn fail_over(
    state: &State,
    observations: &Observations,
    action: Action,
    name: String,
    to: Option<String>,
) -> Result<Draft, Refusal> {
    let record = state.upstreams.find(&name)?;
    let upstream = &record.upstream;
    if upstream.config.active_standby.is_none() {
        if let Some(to) = &to {
            record.endpoint(to)?;
        }
        return Ok(nothing_to_fail_over(state, action, upstream, to.unwrap_or_default()));
    }
    let from = upstream.primary.as_ref().and_then(|primary| primary.endpoint.clone());
    let to = match to {
        Some(to) => record.endpoint(&to)?.id.clone(),
        None => {
            let others =
                || upstream.config.endpoints.iter().filter(|endpoint| Some(&endpoint.id) != from.as_ref());
            let fit = others().find(|other| fail_over_blockers(state, &name, &other.id).is_empty());
            let chosen = fit.or_else(|| others().next()).ok_or_else(|| {
                Refusal::new(
                    Code::UnknownEndpoint,
                    format!("{name} has no other endpoint that could take over"),
                )
            })?;
            chosen.id.clone()
        }
    };
    let mut warnings = Vec::new();
    let mut warn = |code: &str, detail: String| {
        warnings.push(Warning { code: code.to_owned(), detail, subject: subject(&name) });
    };
    let standby = upstream.config.active_standby.as_ref();
    if let Some(from) =
        from.as_ref().filter(|_| standby.is_some_and(|standby| standby.fence_webhook.is_none()))
    {
        warn(
            "not_fenced",
            format!(
                "There is no webhook that fences {from}. If it still works, only what checks epochs refuses it."
            ),
        );
    }
    if to_be_trusted_blindly(upstream, &to) {
        warn("health_unknown", format!("Nobody has checked {to}: {name} has no health check."));
    }
    let old = match &from {
        Some(from) => format!("in the place of {from}"),
        None => "where there is none now".to_owned(),
    };
    Ok(Draft {
        summary: format!(
            "Endpoint {to} becomes the primary of {name}, {old}. In between, nobody gets its requests for a moment."
        ),
        footprint: footprint(state, [FactKey::Upstream(name.clone())]),
        impact: Impact {
            leader_before: state.leader(),
            leader_after: state.leader(),
            upstream: Some(UpstreamImpact {
                taking_after: 1,
                ..impact(state, upstream, "", EndpointState::Ready)
            }),
            ..unchanged(state)
        },
        observations: from.iter().map(|from| requests_at(observations, &name, from)).collect(),
        warnings,
        blockers: fail_over_blockers(state, &name, &to),
        goal: Goal::FailOver { upstream: name, from, to },
        revision: state.revision,
        undoes: None,
        action,
    })
}

/// Where all take requests, nobody takes over. Whatever else there is to say of the target is of no interest then.
fn nothing_to_fail_over(state: &State, action: Action, upstream: &Upstream, to: String) -> Draft {
    let name = &upstream.name;
    Draft {
        summary: format!(
            "{name} has no primary that another endpoint could take over from. Nothing would change."
        ),
        footprint: footprint(state, [FactKey::Upstream(name.clone())]),
        impact: Impact {
            leader_before: state.leader(),
            leader_after: state.leader(),
            upstream: Some(impact(state, upstream, "", EndpointState::Ready)),
            ..unchanged(state)
        },
        observations: Vec::new(),
        warnings: Vec::new(),
        blockers: vec![not_active_standby(name)],
        goal: Goal::FailOver { upstream: name.clone(), from: None, to },
        revision: state.revision,
        undoes: None,
        action,
    }
}

fn not_active_standby(name: &str) -> Blocker {
    Blocker {
        code: "not_active_standby".to_owned(),
        detail: format!("{name} is not active-standby: all of its endpoints take requests"),
        subject: subject(name),
        lifted_by: "configure active_standby, if one alone should serve; or set endpoints to drain"
            .to_owned(),
    }
}

/// What the change takes away from an endpoint, or gives back to it.
fn requests_at(observations: &Observations, upstream: &str, id: &str) -> Observation {
    let rate = observations.endpoints.get(&(upstream.to_owned(), id.to_owned())).copied().unwrap_or_default();
    Observation {
        what: format!("requests at {id}"),
        value: format!("{:.1} a second, {} under way", rate.requests_per_s, rate.in_flight),
        age_ms: millis(rate.age),
    }
}

/// What forbids that `to` takes over now.
pub(super) fn fail_over_blockers(state: &State, name: &str, to: &str) -> Vec<Blocker> {
    let blocker = |code: &str, detail: String, lifted_by: &str| Blocker {
        code: code.to_owned(),
        detail,
        subject: subject(name),
        lifted_by: lifted_by.to_owned(),
    };
    let found = state.upstreams.find(name).and_then(|record| Ok((&record.upstream, record.endpoint(to)?)));
    let (upstream, target) = match found {
        Ok(found) => found,
        Err(refusal) => return vec![blocker(refusal.code.as_str(), refusal.detail, "plan again")],
    };
    if upstream.config.active_standby.is_none() {
        return vec![not_active_standby(name)];
    }
    let mut blockers = Vec::new();
    if upstream.primary.as_ref().is_some_and(|primary| primary.endpoint.as_deref() == Some(to)) {
        blockers.push(blocker(
            "already_primary",
            format!("{to} is the primary of {name} already"),
            "name another endpoint",
        ));
    }
    if target.state != EndpointState::Ready {
        blockers.push(blocker(
            "endpoint_not_ready",
            format!("{to} is in state {}", target.state.as_str()),
            "set it to ready first (set_endpoint_state)",
        ));
    }
    if target.health.verdict != Verdict::Healthy && !to_be_trusted_blindly(upstream, to) {
        let found = target.health.opinions.iter().find(|opinion| opinion.verdict == Verdict::Unhealthy);
        let why = found.map_or_else(String::new, |opinion| format!(": {}", opinion.detail));
        blockers.push(blocker(
            "endpoint_not_healthy",
            format!("the health of {to} is {}{why}", target.health.verdict.as_str()),
            "wait until its checks pass, or name another endpoint",
        ));
    }
    blockers
}

/// Without checks, nobody can know better.
fn to_be_trusted_blindly(upstream: &Upstream, to: &str) -> bool {
    upstream.config.health_check.is_none()
        && upstream.endpoint(to).is_some_and(|endpoint| endpoint.health.verdict == Verdict::Unknown)
}

fn impact(state: &State, upstream: &Upstream, id: &str, after: EndpointState) -> UpstreamImpact {
    let taking = |upstream: &Upstream| {
        let endpoints = upstream.config.endpoints.iter();
        endpoints.filter(|endpoint| upstream.is_serving(endpoint)).count() as u64
    };
    let mut then = upstream.clone();
    if let Some(endpoint) = then.endpoint_mut(id) {
        endpoint.state = after;
    }
    UpstreamImpact {
        upstream: upstream.name.clone(),
        endpoints: upstream.config.endpoints.len() as u64,
        taking_before: taking(upstream),
        taking_after: taking(&then),
        routes: state.routes.leading_to(&upstream.name).map(|route| route.name.clone()).collect(),
    }
}

fn subject(name: &str) -> String {
    FactKey::Upstream(name.to_owned()).to_string()
}
