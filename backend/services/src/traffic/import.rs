//! Import: upstreams and routes that are put together, in one entry of the log.

use crate::{ReadRequest, ServiceError, Services, WriteRequest, Written, cluster_group::Consistency};
use ringmaster_cluster::{command::Outcome, traffic::TrafficCommand};
use ringmaster_common::traffic::import::{Import, Imported};

/// Stores all of it, or nothing.
pub async fn import(
    services: &Services,
    request: WriteRequest,
    import: Import,
) -> Result<Written<Imported>, ServiceError> {
    services.write_traffic(request, TrafficCommand::Import(import)).await?.expect(|outcome| match outcome {
        Outcome::Imported(imported) => Some(imported),
        _ => None,
    })
}

/// Whether [`import`] would accept it now.
pub async fn check(
    services: &Services,
    request: WriteRequest,
    import: Import,
) -> Result<Written<()>, ServiceError> {
    let read = ReadRequest {
        principal: request.principal,
        consistency: Consistency::Linearizable,
        deadline: request.deadline,
    };
    let state = services.read(read).await?.value;
    request.check(state.check_import(import))?;
    Ok(request.without_entry(()))
}
