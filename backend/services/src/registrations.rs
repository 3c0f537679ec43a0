//! Registrations: endpoints that add themselves to an upstream and renew that, and the clients that look for them.

use crate::{ServiceError, Services, WriteRequest, Written};
use ringmaster_cluster::{State, traffic::TrafficCommand};
use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
    traffic::register::{HealthyEndpoints, Register, Registered},
};
use std::time::Duration;
use tokio::time::timeout;

/// The longest that a request for healthy endpoints waits for a change.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// How long a node waits for a revision that it has not reached. It may be late; but the revision may also be of another
/// cluster that had this address, and a client finds that out by the answer.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Registers an endpoint, or renews its registration. A renewal is kept by the leader alone and costs no entry of
/// the log.
pub async fn register(
    services: &Services,
    request: WriteRequest,
    upstream: String,
    register: Register,
) -> Result<Written<Registered>, ServiceError> {
    request.check(register.check().map_err(|detail| Refusal::new(Code::InvalidUpstream, detail)))?;
    let registered = Registered {
        upstream: upstream.clone(),
        id: register.id.clone(),
        ttl_ms: register.ttl_ms,
        renew_after_ms: register.ttl_ms / 3,
    };
    if is_registered(&services.group.state(), &upstream, &register) {
        let renewed = services.group.renew_registration(&upstream, &register.id, request.deadline).await;
        if request.check(renewed)? {
            return Ok(request.without_entry(registered));
        }
    }
    let command = TrafficCommand::Register { upstream, register };
    Ok(services.write_traffic(request, command).await?.map(|_| registered))
}

fn is_registered(state: &State, upstream: &str, register: &Register) -> bool {
    let record = state.upstreams.get(upstream);
    record.and_then(|record| record.upstream.endpoint(&register.id)).is_some_and(|known| {
        let ttl_ms = known.registered.as_ref().map(|registered| registered.ttl_ms);
        known.spec() == register.endpoint() && ttl_ms == Some(register.ttl_ms)
    })
}

pub async fn deregister(
    services: &Services,
    request: WriteRequest,
    upstream: String,
    endpoint: String,
) -> Result<Written<()>, ServiceError> {
    let reason = "it deregistered itself".to_owned();
    let command = TrafficCommand::Deregister { upstream, endpoint, only: None, reason };
    Ok(services.write_traffic(request, command).await?.map(drop))
}

/// The endpoints that get requests now, from the state that this node has applied. With `seen` it waits, up to
/// `wait`, until the upstream has changed after that revision, but not long for a revision that it has not reached.
pub async fn healthy(
    services: &Services,
    upstream: &str,
    seen: Option<Revision>,
    wait: Duration,
) -> Result<HealthyEndpoints, Refusal> {
    let mut applied = services.group.published().watch_control();
    let mut healthy = healthy_of(&services.group.state(), upstream)?;
    if let Some(seen) = seen.filter(|seen| healthy.revision <= *seen) {
        let changed = async {
            while healthy.revision <= seen && applied.changed().await.is_ok() {
                healthy = healthy_of(&services.group.state(), upstream)?;
            }
            Ok::<_, Refusal>(())
        };
        let is_ahead = seen > services.group.state().revision;
        let wait = wait.min(if is_ahead { CATCH_UP } else { MAX_WAIT });
        // Without a change in time, the answer is the present state.
        if let Ok(ended) = timeout(wait, changed).await {
            ended?;
        }
    }
    Ok(healthy)
}

fn healthy_of(state: &State, name: &str) -> Result<HealthyEndpoints, Refusal> {
    let record = state.upstreams.find(name)?;
    let endpoints = record.upstream.config.endpoints.iter();
    Ok(HealthyEndpoints {
        upstream: name.to_owned(),
        revision: record.touched,
        endpoints: endpoints
            .filter(|endpoint| record.upstream.is_serving(endpoint))
            .map(|endpoint| endpoint.spec())
            .collect(),
    })
}
