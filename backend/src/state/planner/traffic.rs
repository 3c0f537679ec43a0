//! What operators do to endpoints: giving them nothing new, nothing at all, or requests again.
//!
//! The question is always who is left for requests. It is asked of what the cluster says of health, which
//! may change until the plan is applied; so the operation's first step asks again.

use super::{footprint, unchanged};
use crate::state::{
    State,
    plans::{Draft, FactKey, Goal},
};
use ringmaster_common::{
    action::Action,
    error::Refusal,
    plan::{Blocker, Impact, UpstreamImpact, Warning},
    traffic::upstream::{EndpointState, Upstream},
};

pub(super) fn set_state(
    state: &State,
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
        footprint: footprint(state, [FactKey::Upstream(name)]),
        impact: Impact {
            leader_before: state.leader(),
            leader_after: state.leader(),
            upstream: Some(impact),
            ..unchanged(state)
        },
        observations: Vec::new(),
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

fn impact(state: &State, upstream: &Upstream, id: &str, after: EndpointState) -> UpstreamImpact {
    let taking = |upstream: &Upstream| {
        let endpoints = upstream.config.endpoints.iter();
        endpoints.filter(|endpoint| upstream.takes_requests(endpoint)).count() as u64
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
