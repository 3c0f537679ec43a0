//! What a change does to the endpoints of an upstream that serve requests.

use ringmaster_cluster::{State, observations::Observations};
use ringmaster_common::{
    duration::millis,
    plan::{Observation, UpstreamImpact},
    traffic::upstream::{EndpointState, Upstream},
};

/// The impact of a change that puts endpoint `id` into state `after`.
pub fn impact(state: &State, upstream: &Upstream, id: &str, after: EndpointState) -> UpstreamImpact {
    let mut then = upstream.clone();
    if let Some(endpoint) = then.endpoint_mut(id) {
        endpoint.state = after;
    }
    UpstreamImpact { serving_after: serving(&then), ..unchanged(state, upstream) }
}

/// The impact of a change that leaves all endpoints as they are.
pub fn unchanged(state: &State, upstream: &Upstream) -> UpstreamImpact {
    UpstreamImpact {
        upstream: upstream.name.clone(),
        endpoints: upstream.config.endpoints.len() as u64,
        serving_before: serving(upstream),
        serving_after: serving(upstream),
        routes: state.routes.leading_to(&upstream.name).map(|route| route.name.clone()).collect(),
    }
}

fn serving(upstream: &Upstream) -> u64 {
    upstream.config.endpoints.iter().filter(|endpoint| upstream.is_serving(endpoint)).count() as u64
}

/// The load that the change moves away from an endpoint, or gives back to it.
pub fn load(observations: &Observations, upstream: &str, id: &str) -> Observation {
    let rate = observations.endpoints.get(&(upstream.to_owned(), id.to_owned())).copied().unwrap_or_default();
    Observation {
        what: format!("requests at {id}"),
        value: format!("{:.1} per second, {} in flight", rate.requests_per_s, rate.in_flight),
        age_ms: millis(rate.age),
    }
}
