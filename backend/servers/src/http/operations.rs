//! `/v1/operations`: plans that are being run, or were.

use crate::http::{
    Api,
    extract::{Caller, PageQuery, PathId, QueryOf, ReadQuery, Write},
    openapi::problems,
    problem::ApiError,
    response_metadata as metadata,
};
use axum::{extract::State, http::StatusCode, response::Response};
use ringmaster_common::{id::OperationId, operation::Operation, page::Page};
use ringmaster_services::operations;

/// All operations that are kept, the latest first
#[utoipa::path(
    get, path = "/v1/operations", tag = "operations", operation_id = "operations", params(PageQuery),
    responses((status = 200, description = "The latest first", body = Page<Operation>), ListRefusals)
)]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Response, ApiError> {
    let (request, paging) = (caller.read(query.consistency), query.paging(OperationId(u64::MAX))?);
    Ok(metadata::read(operations::list(&api.services, request, paging).await?))
}

problems!(ListRefusals: [READ]);

/// One operation
#[utoipa::path(
    get, path = "/v1/operations/{id}", tag = "operations", operation_id = "operation", params(("id" = OperationId, Path, description = "An operation's id", example = 1), ReadQuery),
    responses((status = 200, description = "The operation", body = Operation), GetRefusals)
)]
pub async fn get(
    State(api): State<Api>,
    caller: Caller,
    PathId(id): PathId<OperationId>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Response, ApiError> {
    Ok(metadata::read(operations::get(&api.services, caller.read(query.consistency), id).await?))
}

problems!(GetRefusals: [READ], UnknownOperation);

/// Abort a running operation before its point of no return
#[utoipa::path(
    post, path = "/v1/operations/{id}/abort", tag = "operations", operation_id = "abort_operation", params(("id" = OperationId, Path, description = "An operation's id", example = 1), Write),
    responses((status = 200, description = "The operation, which is being aborted", body = Operation), AbortRefusals)
)]
pub async fn abort(
    State(api): State<Api>,
    PathId(id): PathId<OperationId>,
    Write(request): Write,
) -> Result<Response, ApiError> {
    Ok(metadata::written(StatusCode::OK, operations::abort(&api.services, request, id).await?))
}

problems!(AbortRefusals: [WRITE], UnknownOperation, NotAbortable);

/// Keep the effect of an operation before it is reverted automatically
#[utoipa::path(
    post, path = "/v1/operations/{id}/keep", tag = "operations", operation_id = "keep_operation", params(("id" = OperationId, Path, description = "An operation's id", example = 1), Write),
    responses((status = 200, description = "The operation, which is kept", body = Operation), KeepRefusals)
)]
pub async fn keep(
    State(api): State<Api>,
    PathId(id): PathId<OperationId>,
    Write(request): Write,
) -> Result<Response, ApiError> {
    Ok(metadata::written(StatusCode::OK, operations::keep(&api.services, request, id).await?))
}

problems!(KeepRefusals: [WRITE], UnknownOperation, NotAwaitingKeep);
