//! `/v1/operations`: plans being run.

use crate::http::{
    Api,
    extract::{Mutation, PageQuery, PathId, QueryOf, ReadQuery, page},
    openapi::problems,
    problem::Refused,
};
use axum::{Json, extract::State as Extension};
use ringmaster_cluster::command::Command;
use ringmaster_common::{id::OperationId, operation::Operation, page::Page};

/// All operations that are kept, the latest first
#[utoipa::path(
    get, path = "/operations", tag = "operations", operation_id = "operations", params(PageQuery),
    responses((status = 200, description = "The latest first", body = Page<Operation>), ListRefusals)
)]
pub async fn list(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<Operation>>, Refused> {
    let (limit, before) = (query.limit()?, query.cursor(OperationId(u64::MAX))?);
    let state = api.read(query.consistency).await?;
    Ok(Json(page(state.operations.before(before).cloned(), limit, |operation| operation.id.to_string())))
}

problems!(ListRefusals: [READ]);

/// One operation
#[utoipa::path(
    get, path = "/operations/{id}", tag = "operations", operation_id = "operation", params(("id" = OperationId, Path, description = "An operation's id", example = 1), ReadQuery),
    responses((status = 200, description = "The operation", body = Operation), GetRefusals)
)]
pub async fn get(
    Extension(api): Extension<Api>,
    PathId(id): PathId<OperationId>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Json<Operation>, Refused> {
    let state = api.read(query.consistency).await?;
    Ok(Json(state.operations.find(id)?.operation.clone()))
}

problems!(GetRefusals: [READ], UnknownOperation);

/// Abort a running operation, where there is a way back
#[utoipa::path(
    post, path = "/operations/{id}/abort", tag = "operations", operation_id = "abort_operation", params(("id" = OperationId, Path, description = "An operation's id", example = 1), Mutation),
    responses((status = 200, description = "The operation, which ends", body = Operation), AbortRefusals)
)]
pub async fn abort(
    Extension(api): Extension<Api>,
    PathId(operation): PathId<OperationId>,
    mutation: Mutation,
) -> Result<Json<Operation>, Refused> {
    let command = Command::AbortOperation { operation };
    Ok(Json(api.group.operate(mutation.request, command, mutation.deadline).await?.0))
}

problems!(AbortRefusals: [WRITE], UnknownOperation, NotAbortable);

/// Keep what an operation did, before it reverts by itself
#[utoipa::path(
    post, path = "/operations/{id}/keep", tag = "operations", operation_id = "keep_operation", params(("id" = OperationId, Path, description = "An operation's id", example = 1), Mutation),
    responses((status = 200, description = "The operation, which stays", body = Operation), KeepRefusals)
)]
pub async fn keep(
    Extension(api): Extension<Api>,
    PathId(operation): PathId<OperationId>,
    mutation: Mutation,
) -> Result<Json<Operation>, Refused> {
    let command = Command::KeepOperation { operation };
    Ok(Json(api.group.operate(mutation.request, command, mutation.deadline).await?.0))
}

problems!(KeepRefusals: [WRITE], UnknownOperation, NotAwaitingKeep);
