//! What still drains of an upstream: requests in flight at endpoints that receive no new ones, over all nodes.
//!
//! The configuration is replicated, and the counts are telemetry: a node that has not reported since the upstream last
//! changed is named, because it may still send requests by an older routing table.

use crate::{Read, ReadRequest, ServiceError, Services};
use ringmaster_common::traffic::live::{Draining, InFlight};

pub async fn draining(
    services: &Services,
    request: ReadRequest,
    upstream: &str,
) -> Result<Read<Draining>, ServiceError> {
    services.read(request).await?.find(|state| {
        let record = state.upstreams.find(upstream)?;
        let nodes = state.membership.iter().filter(|node| node.is_alive()).map(|node| node.id);
        let (endpoints, unconfirmed) = services.telemetry.draining(upstream, record.touched, nodes);
        Ok(Draining {
            upstream: upstream.to_owned(),
            drain_ms: record.upstream.config.drain_ms,
            endpoints: endpoints
                .into_iter()
                .map(|one| InFlight { endpoint: one.endpoint, addr: one.addr, in_flight: one.in_flight })
                .collect(),
            unconfirmed,
        })
    })
}
