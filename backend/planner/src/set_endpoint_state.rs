//! Setting the state of an endpoint: ready, drain or maintenance.
//!
//! It is blocked where requests come and no endpoint would be left to serve them. Health may change until the plan is
//! applied, so the operation's first step checks that again.

use crate::{
    blocker::Blocker,
    draft::{ENTRY_WITHIN, PREFLIGHT_WITHIN, draft, step, texts_of_blockers, texts_of_warnings},
    serving::{impact, load},
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
    error::Refusal,
    plan::{Impact, Scope},
    traffic::upstream::EndpointState,
};

pub fn plan(
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
    let impact = impact(state, &record.upstream, &id, after);
    let (left, of) = (impact.serving_after, impact.endpoints);
    let mut blockers = preflight(state, &name, &id, after);
    if before == after {
        let (upstream, endpoint) = (name.clone(), id.clone());
        blockers.insert(0, Blocker::AlreadyInState { upstream, endpoint, state: after });
    }
    let mut warnings = Vec::new();
    if blockers.is_empty() && left == 0 {
        warnings.push(Warning::NoEndpointLeft { upstream: name.clone() });
    } else if left == 1 && impact.serving_before > 1 {
        warnings.push(Warning::OneEndpointLeft { upstream: name.clone() });
    }
    let effect = match after {
        EndpointState::Ready => "gets requests again, if it is healthy".to_owned(),
        EndpointState::Drain => format!(
            "gets no new requests; those in flight may take {} s more",
            record.upstream.config.drain_ms.div_ceil(1_000)
        ),
        EndpointState::Maintenance => "gets no requests and no health checks".to_owned(),
    };
    let draft =
        draft(state, observations, action, Scope::Upstream(name.clone()), [FactKey::Upstream(name.clone())]);
    Ok(Draft {
        steps: steps(&name, &id, after),
        revert: Some(steps(&name, &id, before)),
        undo: Some(Action::SetEndpointState { upstream: name.clone(), endpoint: id.clone(), state: before }),
        summary: format!(
            "Endpoint {id} ({}) of {name} {effect}. After that, {left} of its {of} endpoints {}.",
            endpoint.addr,
            if left == 1 { "serves" } else { "serve" }
        ),
        impact: Impact { upstream: Some(impact), ..draft.impact },
        observations: vec![load(observations, &name, &id)],
        warnings: texts_of_warnings(&warnings),
        blockers: texts_of_blockers(&blockers),
        ..draft
    })
}

fn steps(name: &str, id: &str, state: EndpointState) -> Vec<DraftStep> {
    let (upstream, endpoint) = (name.to_owned(), id.to_owned());
    let check = Check::EndpointState { upstream: upstream.clone(), endpoint: endpoint.clone(), state };
    let title = match state {
        EndpointState::Ready => format!("Route requests to {id} of {name} again"),
        EndpointState::Drain => format!("Route no new requests to {id} of {name}"),
        EndpointState::Maintenance => format!("Stop requests and health checks of {id} of {name}"),
    };
    vec![
        step(
            StepSpec::Preflight(check),
            "Check again: at least one endpoint keeps serving",
            PREFLIGHT_WITHIN,
        ),
        step(StepSpec::SetEndpointState { upstream, endpoint, state }, title, ENTRY_WITHIN),
    ]
}

pub fn preflight(state: &State, name: &str, id: &str, after: EndpointState) -> Vec<Blocker> {
    let upstream = name.to_owned();
    let found = state.upstreams.find(name).and_then(|record| record.endpoint(id).map(|_| &record.upstream));
    let found = match found {
        Ok(found) => found,
        Err(refusal) => return vec![Blocker::TrafficRefused { upstream, refusal }],
    };
    let impact = impact(state, found, id, after);
    let Some(route) = impact.routes.first() else { return Vec::new() };
    if impact.serving_after > 0 || impact.serving_before == 0 {
        return Vec::new();
    }
    vec![Blocker::NoEndpointLeft {
        upstream,
        endpoint: id.to_owned(),
        route: route.clone(),
        is_primary: found.primary.is_some(),
    }]
}
