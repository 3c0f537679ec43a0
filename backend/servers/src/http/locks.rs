//! `/v1/locks`: leases with fencing tokens, and the queues for them.
//!
//! A name may hold slashes: the rest of the path is the name, whether its slashes are percent-encoded or not. GET reads a
//! lock, POST acts on locks, so a lock may be called `acquire`.

use crate::http::{
    Api,
    extract::{Caller, JsonBody, PageQuery, PathId, QueryOf, ReadQuery, Write},
    openapi::problems,
    problem::ApiError,
    response_metadata as metadata,
};
use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::Response,
};
use ringmaster_common::{
    lock::{AcquireLock, Lock, LockDetail, LockGrant, LockVerdict, ReleaseLock, RenewLock, VerifyLock},
    page::Page,
};
use ringmaster_services::{
    locks::{self, LockFilter},
    page::Paging,
};
use serde::Deserialize;

/// Acquire a lock
///
/// The response comes once the lock is granted, or the wait has passed. The same request under the same
/// Idempotency-Key finds its own lease or its own place in the queue again, on any node; without a wait, it gives its
/// place up. Count the TTL from
/// before the request was sent; after a wait, renew at once. A lock protects only resources that check its token.
#[utoipa::path(
    post, path = "/v1/locks/acquire", tag = "locks", operation_id = "acquire_lock", params(Write),
    request_body(content = AcquireLock, examples(
        ("exclusive" = (summary = "Exclusive, without a wait", value = json!({
            "name": "jobs/nightly", "owner": "worker-7", "ttl_ms": 10000, "meta": { "why": "the nightly report" }
        }))),
        ("shared" = (summary = "Shared, after a wait of up to 30 s", value = json!({
            "name": "schema", "owner": "reader-1", "ttl_ms": 10000, "wait_ms": 30000, "mode": "shared"
        }))),
        ("semaphore" = (summary = "For three holders at a time", value = json!({
            "name": "uploads", "owner": "worker-7", "ttl_ms": 10000, "limit": 3
        })))
    )),
    responses((status = 200, description = "Granted", body = LockGrant), AcquireRefusals)
)]
pub async fn acquire(
    State(api): State<Api>,
    Write(request): Write,
    JsonBody(body): JsonBody<AcquireLock>,
) -> Result<Response, ApiError> {
    Ok(metadata::written(StatusCode::OK, locks::acquire(&api.services, request, body).await?))
}

problems!(AcquireRefusals: [WRITE, BODY], LockHeld, LockLimitDiffers, LockLost, LimitReached);

/// Renew a lease
#[utoipa::path(
    post, path = "/v1/locks/renew", tag = "locks", operation_id = "renew_lock", params(Write),
    request_body(content = RenewLock, examples(
        ("plain" = (value = json!({ "name": "schema", "owner": "reader-1", "token": 3, "ttl_ms": 10000 })))
    )),
    responses((status = 200, description = "Renewed", body = LockGrant), RenewRefusals)
)]
pub async fn renew(
    State(api): State<Api>,
    Write(request): Write,
    JsonBody(body): JsonBody<RenewLock>,
) -> Result<Response, ApiError> {
    Ok(metadata::written(StatusCode::OK, locks::renew(&api.services, request, body).await?))
}

problems!(RenewRefusals: [WRITE, BODY], LockLost);

/// Release a lock
///
/// A release that was carried out before gets its first response again.
#[utoipa::path(
    post, path = "/v1/locks/release", tag = "locks", operation_id = "release_lock", params(Write),
    request_body(content = ReleaseLock, examples(
        ("plain" = (value = json!({ "name": "jobs/nightly", "owner": "worker-7", "token": 1 })))
    )),
    responses((status = 204, description = "Released"), ReleaseRefusals)
)]
pub async fn release(
    State(api): State<Api>,
    Write(request): Write,
    JsonBody(body): JsonBody<ReleaseLock>,
) -> Result<Response, ApiError> {
    Ok(metadata::no_content(locks::release(&api.services, request, body).await?))
}

problems!(ReleaseRefusals: [WRITE, BODY], LockLost);

/// Check whether a token still holds
///
/// By the time that the response is read, it may not. A resource is safe only if it stores the highest token that
/// it has seen, and refuses lower ones.
#[utoipa::path(
    post, path = "/v1/locks/verify", tag = "locks", operation_id = "verify_lock", params(ReadQuery),
    request_body(content = VerifyLock, examples(
        ("plain" = (value = json!({ "name": "jobs/nightly", "token": 1 })))
    )),
    responses((status = 200, description = "Whether the token holds", body = LockVerdict), VerifyRefusals)
)]
pub async fn verify(
    State(api): State<Api>,
    caller: Caller,
    QueryOf(query): QueryOf<ReadQuery>,
    JsonBody(body): JsonBody<VerifyLock>,
) -> Result<Response, ApiError> {
    Ok(metadata::read(locks::verify(&api.services, caller.read(query.consistency), body).await?))
}

problems!(VerifyRefusals: [READ, BODY]);

/// Which locks are listed.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LocksQuery {
    /// Only the locks whose names begin with this.
    #[param(example = "jobs/")]
    prefix: Option<String>,
    /// Only the locks that have waiters.
    #[serde(default)]
    contended: bool,
}

/// The locks in use
#[utoipa::path(
    get, path = "/v1/locks", tag = "locks", operation_id = "locks", params(LocksQuery, PageQuery),
    responses((status = 200, description = "In the order of names", body = Page<Lock>), ListRefusals)
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    QueryOf(query): QueryOf<LocksQuery>,
    QueryOf(which): QueryOf<PageQuery>,
) -> Result<Response, ApiError> {
    let request = caller.read(which.consistency);
    let filter = LockFilter { prefix: query.prefix.unwrap_or_default(), contended: query.contended };
    let paging = Paging { limit: which.limit()?, after: which.cursor };
    Ok(metadata::read(locks::list(&api.services, request, filter, paging).await?))
}

problems!(ListRefusals: [READ]);

/// One lock, with its history, its waiters and their deadlocks
#[utoipa::path(
    get, path = "/v1/locks/{*name}", tag = "locks", operation_id = "lock",
    params(("name" = String, Path, description = "May hold slashes", example = "jobs/nightly"), ReadQuery),
    responses((status = 200, description = "The lock", body = LockDetail), GetRefusals)
)]
pub async fn get(
    State(api): State<Api>,
    caller: Caller,
    PathId(name): PathId<String>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, ApiError> {
    Ok(metadata::read(locks::get(&api.services, caller.read(query.consistency), &name).await?))
}

problems!(GetRefusals: [READ], UnknownLock);

/// Reads the lock that has the name of an action: the paths of the actions take POST alone.
pub async fn get_namesake(
    state: State<Api>,
    caller: Caller,
    uri: Uri,
    query: QueryOf<ReadQuery>,
) -> Result<Response, ApiError> {
    let name = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    get(state, caller, PathId(name), query).await
}

/// The actions, which are paths below that of the locks.
pub const ACTIONS: [&str; 4] =
    ["/v1/locks/acquire", "/v1/locks/renew", "/v1/locks/release", "/v1/locks/verify"];
