//! Endpoints that register themselves, and who asks where a service is.

use crate::http::{
    Api,
    extract::{JsonBody, Mutation, PathId, QueryOf},
    openapi::problems,
    problem::Refused,
};
use axum::{Json, extract::State as Extension, http::StatusCode};
use ringmaster_cluster::{State, traffic::TrafficCommand};
use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
    traffic::register::{Deregister, HealthyEndpoints, Register, Registered},
};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::timeout;

/// The longest that a question for healthy endpoints waits for a change.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Register an endpoint, or renew its registration
///
/// The same again is a renewal, and costs no entry of the log. Without one for its TTL, the endpoint is taken out.
#[utoipa::path(
    post, path = "/upstreams/{upstream}/register", tag = "traffic", operation_id = "register",
    params(("upstream" = String, Path, description = "The upstream's name", example = "web"), Mutation),
    request_body(content = Register, examples(
        ("plain" = (value = json!({ "id": "worker-7", "addr": "127.0.0.1:9107", "ttl_ms": 10000 })))
    )),
    responses((status = 200, description = "It is registered", body = Registered), RegisterRefusals)
)]
pub async fn register(
    Extension(api): Extension<Api>,
    PathId(upstream): PathId<String>,
    mutation: Mutation,
    JsonBody(body): JsonBody<Register>,
) -> Result<Json<Registered>, Refused> {
    body.check().map_err(|detail| Refusal::new(Code::InvalidUpstream, detail))?;
    let answer = Registered {
        upstream: upstream.clone(),
        id: body.id.clone(),
        ttl_ms: body.ttl_ms,
        renew_after_ms: body.ttl_ms / 3,
    };
    let renewed = is_registered(&api.group.state(), &upstream, &body)
        && api.group.renew_registration(&upstream, &body.id, mutation.deadline).await?;
    if !renewed {
        api.configure(mutation, TrafficCommand::Register { upstream, register: body }).await?;
    }
    Ok(Json(answer))
}

problems!(RegisterRefusals: [WRITE, BODY], UnknownUpstream, InvalidUpstream, EndpointTaken, UpgradeUnfinished, LimitReached, NotReady);

fn is_registered(state: &State, upstream: &str, register: &Register) -> bool {
    let record = state.upstreams.get(upstream);
    record.and_then(|record| record.upstream.endpoint(&register.id)).is_some_and(|known| {
        let ttl_ms = known.registered.as_ref().map(|registered| registered.ttl_ms);
        known.spec() == register.endpoint() && ttl_ms == Some(register.ttl_ms)
    })
}

/// End a registration
#[utoipa::path(
    post, path = "/upstreams/{upstream}/deregister", tag = "traffic", operation_id = "deregister",
    params(("upstream" = String, Path, description = "The upstream's name", example = "web"), Mutation),
    request_body(content = Deregister, examples(("plain" = (value = json!({ "id": "worker-8" }))))),
    responses((status = 204, description = "It is ended"), DeregisterRefusals)
)]
pub async fn deregister(
    Extension(api): Extension<Api>,
    PathId(upstream): PathId<String>,
    mutation: Mutation,
    JsonBody(body): JsonBody<Deregister>,
) -> Result<StatusCode, Refused> {
    let reason = "it deregistered itself".to_owned();
    let command = TrafficCommand::Deregister { upstream, endpoint: body.id, only: None, reason };
    api.configure(mutation, command).await?;
    Ok(StatusCode::NO_CONTENT)
}

problems!(DeregisterRefusals: [WRITE, BODY], UnknownUpstream, UnknownEndpoint, EndpointTaken, UpgradeUnfinished, NotReady);

/// What is waited for.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HealthyQuery {
    /// Wait until something about the upstream changed after this revision: the one of the answer before.
    revision: Option<Revision>,
    /// For so long at the most, up to 10 s; then it is answered as it is.
    #[serde(default)]
    wait_ms: u64,
}

/// Who takes requests now
///
/// For clients that balance by themselves. It is answered from what this node has applied. With `revision` and
/// `wait_ms` it waits for a change, so that asking again and again keeps a client up to date.
#[utoipa::path(
    get, path = "/upstreams/{upstream}/healthy", tag = "traffic", operation_id = "healthy_endpoints",
    params(("upstream" = String, Path, description = "The upstream's name", example = "web"), HealthyQuery),
    responses((status = 200, description = "Those that take requests", body = HealthyEndpoints), HealthyRefusals)
)]
pub async fn healthy(
    Extension(api): Extension<Api>,
    PathId(name): PathId<String>,
    QueryOf(query): QueryOf<HealthyQuery>,
) -> Result<Json<HealthyEndpoints>, Refused> {
    let mut applied = api.group.published().watch_control();
    let mut answer = healthy_of(&api.group.state(), &name)?;
    if let Some(seen) = query.revision.filter(|seen| answer.revision <= *seen) {
        let changed = async {
            while answer.revision <= seen && applied.changed().await.is_ok() {
                answer = healthy_of(&api.group.state(), &name)?;
            }
            Ok::<_, Refusal>(())
        };
        // Where nothing changed in time, it is answered as it is.
        if let Ok(refused) = timeout(Duration::from_millis(query.wait_ms).min(MAX_WAIT), changed).await {
            refused?;
        }
    }
    Ok(Json(answer))
}

problems!(HealthyRefusals: [], InvalidRequest, UnknownUpstream);

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
