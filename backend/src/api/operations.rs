//! `/v1/operations`: plans being run.

use crate::{
    api::{
        Api,
        extract::{Mutation, PageQuery, PathId, QueryOf, ReadQuery, page},
        problem::Refused,
    },
    state::command::Command,
};
use axum::{Json, extract::State as Extension};
use ringmaster_common::{id::OperationId, operation::Operation, page::Page};

pub async fn list(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<Operation>>, Refused> {
    let (limit, before) = (query.limit()?, query.cursor(OperationId(u64::MAX))?);
    let state = api.read(query.consistency).await?;
    Ok(Json(page(state.operations.before(before).cloned(), limit, |operation| operation.id.to_string())))
}

pub async fn get(
    Extension(api): Extension<Api>,
    PathId(id): PathId<OperationId>,
    QueryOf(query): QueryOf<ReadQuery>,
) -> Result<Json<Operation>, Refused> {
    let state = api.read(query.consistency).await?;
    Ok(Json(state.operations.find(id)?.operation.clone()))
}

pub async fn abort(
    Extension(api): Extension<Api>,
    PathId(operation): PathId<OperationId>,
    mutation: Mutation,
) -> Result<Json<Operation>, Refused> {
    let command = Command::AbortOperation { operation };
    Ok(Json(api.group.operate(mutation.request, command, mutation.deadline).await?.0))
}

pub async fn keep(
    Extension(api): Extension<Api>,
    PathId(operation): PathId<OperationId>,
    mutation: Mutation,
) -> Result<Json<Operation>, Refused> {
    let command = Command::KeepOperation { operation };
    Ok(Json(api.group.operate(mutation.request, command, mutation.deadline).await?.0))
}
