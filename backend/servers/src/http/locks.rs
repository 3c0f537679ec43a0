//! `/v1/locks`: leases with fencing tokens, and the queues for them.
//!
//! Names may hold slashes; in a path they are percent-encoded.

use crate::http::{
    Api,
    admission::Class,
    extract::{JsonBody, Mutation, PageQuery, PathId, QueryOf, ReadQuery, page},
    openapi::problems,
    problem::Refused,
};
use axum::{Json, extract::State as Extension, http::StatusCode};
use ringmaster_cluster::command::{Command, Outcome};
use ringmaster_common::{
    error::{Code, Refusal},
    lock::{
        AcquireLock, Lock, LockDetail, LockGrant, LockVerdict, ReleaseLock, RenewLock, VerifyLock, check_name,
    },
    page::Page,
};
use serde::Deserialize;

/// Acquire a lock
///
/// The answer comes once the lock is granted, or the wait has passed. The same request under the same
/// Idempotency-Key finds its own lease or its own place in the queue again, on any node. Count the TTL from
/// before the request was sent; after a wait, renew at once. A lock protects only what checks its token.
#[utoipa::path(
    post, path = "/locks/acquire", tag = "locks", operation_id = "acquire_lock", params(Mutation),
    request_body(content = AcquireLock, examples(
        ("exclusive" = (summary = "For one, at once or not at all", value = json!({
            "name": "jobs/nightly", "owner": "worker-7", "ttl_ms": 10000, "meta": { "why": "the nightly report" }
        }))),
        ("shared" = (summary = "For all who share it, after a wait of up to 30 s", value = json!({
            "name": "schema", "owner": "reader-1", "ttl_ms": 10000, "wait_ms": 30000, "mode": "shared"
        }))),
        ("semaphore" = (summary = "For three at a time", value = json!({
            "name": "uploads", "owner": "worker-7", "ttl_ms": 10000, "limit": 3
        })))
    )),
    responses((status = 200, description = "It is granted", body = LockGrant), AcquireRefusals)
)]
pub async fn acquire(
    Extension(api): Extension<Api>,
    mutation: Mutation,
    JsonBody(body): JsonBody<AcquireLock>,
) -> Result<Json<LockGrant>, Refused> {
    body.check().map_err(invalid)?;
    let class = if body.wait_ms == 0 { Class::Locks } else { Class::LockWaits };
    let _under_way = api.admission.enter(class)?;
    Ok(Json(api.group.acquire(mutation.request, body).await?))
}

problems!(AcquireRefusals: [WRITE, BODY], LockHeld, LockLimitDiffers, LimitReached);

/// Renew a lease
#[utoipa::path(
    post, path = "/locks/renew", tag = "locks", operation_id = "renew_lock", params(Mutation),
    request_body(content = RenewLock, examples(
        ("plain" = (value = json!({ "name": "schema", "owner": "reader-1", "token": 3, "ttl_ms": 10000 })))
    )),
    responses((status = 200, description = "It runs on", body = LockGrant), RenewRefusals)
)]
pub async fn renew(
    Extension(api): Extension<Api>,
    mutation: Mutation,
    JsonBody(body): JsonBody<RenewLock>,
) -> Result<Json<LockGrant>, Refused> {
    check_name(&body.name).map_err(invalid)?;
    let response = api.group.propose(mutation.request, Command::RenewLock(body), mutation.deadline).await?;
    match response.outcome {
        Outcome::LockGranted(grant) => Ok(Json(grant)),
        _ => Err(Refused::new(Code::Internal, "the cluster answered with something else")),
    }
}

problems!(RenewRefusals: [WRITE, BODY], LockLost);

/// Release a lock
///
/// A release that was carried out before is answered as it was then.
#[utoipa::path(
    post, path = "/locks/release", tag = "locks", operation_id = "release_lock", params(Mutation),
    request_body(content = ReleaseLock, examples(
        ("plain" = (value = json!({ "name": "jobs/nightly", "owner": "worker-7", "token": 1 })))
    )),
    responses((status = 204, description = "It is released"), ReleaseRefusals)
)]
pub async fn release(
    Extension(api): Extension<Api>,
    mutation: Mutation,
    JsonBody(body): JsonBody<ReleaseLock>,
) -> Result<StatusCode, Refused> {
    check_name(&body.name).map_err(invalid)?;
    api.group.propose(mutation.request, Command::ReleaseLock(body), mutation.deadline).await?;
    Ok(StatusCode::NO_CONTENT)
}

problems!(ReleaseRefusals: [WRITE, BODY], LockLost);

/// Ask whether a token still holds
///
/// By the time that the answer is read, it may not. A resource is safe only if it keeps the highest token that
/// it has seen, and refuses those below.
#[utoipa::path(
    post, path = "/locks/verify", tag = "locks", operation_id = "verify_lock", params(ReadQuery),
    request_body(content = VerifyLock, examples(
        ("plain" = (value = json!({ "name": "jobs/nightly", "token": 1 })))
    )),
    responses((status = 200, description = "Whether it does", body = LockVerdict), VerifyRefusals)
)]
pub async fn verify(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<ReadQuery>,
    JsonBody(body): JsonBody<VerifyLock>,
) -> Result<Json<LockVerdict>, Refused> {
    check_name(&body.name).map_err(invalid)?;
    let state = api.read(query.consistency).await?;
    Ok(Json(state.locks.verify(&body.name, body.token)))
}

problems!(VerifyRefusals: [READ, BODY]);

/// Which locks are listed.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LocksQuery {
    /// Only those whose names begin with this.
    #[param(example = "jobs/")]
    prefix: Option<String>,
    /// Only those that somebody waits for.
    #[serde(default)]
    contended: bool,
}

/// The locks in use
#[utoipa::path(
    get, path = "/locks", tag = "locks", operation_id = "locks", params(LocksQuery, PageQuery),
    responses((status = 200, description = "In the order of names", body = Page<Lock>), ListRefusals)
)]
pub async fn list(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<LocksQuery>,
    QueryOf(which): QueryOf<PageQuery>,
) -> Result<Json<Page<Lock>>, Refused> {
    let (limit, after) = (which.limit()?, which.cursor.as_deref());
    let state = api.read(which.consistency).await?;
    let prefix = query.prefix.unwrap_or_default();
    let locks = state.locks.list(&prefix, after, query.contended, api.group.cluster_time_here());
    Ok(Json(page(locks, limit, |lock| lock.name.clone())))
}

problems!(ListRefusals: [READ]);

/// One lock, with its past and with who waits for whom
#[utoipa::path(
    get, path = "/locks/{name}", tag = "locks", operation_id = "lock",
    params(("name" = String, Path, description = "Percent-encoded", example = "jobs%2Fnightly"), ReadQuery),
    responses((status = 200, description = "The lock", body = LockDetail), GetRefusals)
)]
pub async fn get(
    Extension(api): Extension<Api>,
    PathId(name): PathId<String>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Json<LockDetail>, Refused> {
    let state = api.read(query.consistency).await?;
    match state.locks.detail(&name, api.group.cluster_time_here()) {
        Some(detail) => Ok(Json(detail)),
        None => {
            Err(Refused::new(Code::UnknownLock, format!("nobody holds, waits for or lately held {name:?}")))
        }
    }
}

problems!(GetRefusals: [READ], UnknownLock);

fn invalid(detail: String) -> Refusal {
    Refusal::new(Code::InvalidRequest, detail)
}
