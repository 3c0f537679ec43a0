//! Operations: plans that are being run, or were.

use crate::{
    Read, ReadRequest, ServiceError, Services, WriteRequest, Written,
    page::{Paging, page},
};
use ringmaster_cluster::command::Command;
use ringmaster_common::{id::OperationId, operation::Operation, page::Page};

/// The operations that are kept, the latest first.
pub async fn list(
    services: &Services,
    request: ReadRequest,
    paging: Paging<OperationId>,
) -> Result<Read<Page<Operation>>, ServiceError> {
    services
        .list(request, |state| {
            let earlier = state.operations.before(paging.after).cloned();
            Ok(page(earlier, paging.limit, |operation| operation.id.to_string()))
        })
        .await
}

pub async fn get(
    services: &Services,
    request: ReadRequest,
    id: OperationId,
) -> Result<Read<Operation>, ServiceError> {
    services.read(request).await?.find(|state| Ok(state.operations.find(id)?.operation.clone()))
}

/// Aborts a running operation before its point of no return.
pub async fn abort(
    services: &Services,
    request: WriteRequest,
    operation: OperationId,
) -> Result<Written<Operation>, ServiceError> {
    let written = services.operate(request, Command::AbortOperation { operation }).await?;
    Ok(written.map(|applied| applied.operation))
}

/// Keeps the effect of an operation that is reverted otherwise.
pub async fn keep(
    services: &Services,
    request: WriteRequest,
    operation: OperationId,
) -> Result<Written<Operation>, ServiceError> {
    let written = services.operate(request, Command::KeepOperation { operation }).await?;
    Ok(written.map(|applied| applied.operation))
}
