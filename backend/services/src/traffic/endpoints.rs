//! Endpoints: the addresses of an upstream, one by one. They are part of its configuration and share its version.

use crate::{
    Read, ReadRequest, ServiceError, Services, Stored, WriteRequest, Written,
    page::{Paging, page},
};
use ringmaster_cluster::{
    command::{Precondition, Resource},
    traffic::TrafficCommand,
};
use ringmaster_common::{
    error::{Code, Refusal},
    page::Page,
    traffic::upstream::{Endpoint, EndpointDetail, EndpointSpec},
};

/// In the order of the configuration; registered endpoints come last.
pub async fn list(
    services: &Services,
    request: ReadRequest,
    upstream: &str,
    paging: Paging<String>,
) -> Result<Read<Page<Endpoint>>, ServiceError> {
    services
        .list(request, |state| {
            let endpoints = &state.upstreams.find(upstream)?.upstream.config.endpoints;
            // The cursor names the last endpoint of the page before. If it was deleted since, the list starts again.
            let start =
                endpoints.iter().position(|known| known.id == paging.after).map_or(0, |last| last + 1);
            Ok(page(endpoints.iter().skip(start).cloned(), paging.limit, |endpoint| endpoint.id.clone()))
        })
        .await
}

/// One endpoint, with the history of its health.
pub async fn get(
    services: &Services,
    request: ReadRequest,
    upstream: &str,
    id: &str,
) -> Result<Read<Stored<EndpointDetail>>, ServiceError> {
    services.read(request).await?.find(|state| {
        let record = state.upstreams.find(upstream)?;
        Ok(Stored::found(record.detail(id)?, record.upstream.version))
    })
}

/// Configures one endpoint. Its health becomes unknown where its address changes.
pub async fn put(
    services: &Services,
    request: WriteRequest,
    upstream: String,
    endpoint: EndpointSpec,
    precondition: Precondition,
) -> Result<Written<Stored<EndpointDetail>>, ServiceError> {
    request.check(endpoint.check().map_err(|detail| Refusal::new(Code::InvalidUpstream, detail)))?;
    let command = TrafficCommand::PutEndpoint { upstream, endpoint, precondition };
    services.write_traffic(request, command).await?.stored(|resource| match resource {
        Resource::Endpoint(endpoint) => Some(endpoint),
        _ => None,
    })
}

pub async fn delete(
    services: &Services,
    request: WriteRequest,
    upstream: String,
    endpoint: String,
    precondition: Precondition,
) -> Result<Written<()>, ServiceError> {
    let command = TrafficCommand::DeleteEndpoint { upstream, endpoint, precondition };
    Ok(services.write_traffic(request, command).await?.map(drop))
}
