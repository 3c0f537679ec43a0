//! Upstreams: the services that requests are forwarded to.

use crate::{
    Read, ReadRequest, ServiceError, Services, Stored, WriteRequest, Written,
    page::{Paging, page},
};
use ringmaster_cluster::{
    command::{Precondition, Resource},
    traffic::TrafficCommand,
    upstreams,
};
use ringmaster_common::{
    page::Page,
    traffic::upstream::{Upstream, UpstreamSpec},
};

/// In the order of names.
pub async fn list(
    services: &Services,
    request: ReadRequest,
    paging: Paging<String>,
) -> Result<Read<Page<Upstream>>, ServiceError> {
    services
        .list(request, |state| {
            let rest = state.upstreams.iter().filter(|upstream| upstream.name > paging.after).cloned();
            Ok(page(rest, paging.limit, |upstream| upstream.name.clone()))
        })
        .await
}

pub async fn get(
    services: &Services,
    request: ReadRequest,
    name: &str,
) -> Result<Read<Stored<Upstream>>, ServiceError> {
    services.read(request).await?.find(|state| {
        let upstream = &state.upstreams.find(name)?.upstream;
        Ok(Stored::found(upstream.clone(), upstream.version))
    })
}

pub async fn put(
    services: &Services,
    request: WriteRequest,
    name: String,
    spec: UpstreamSpec,
    precondition: Precondition,
) -> Result<Written<Stored<Upstream>>, ServiceError> {
    request.check(upstreams::check(&name, &spec))?;
    let command = TrafficCommand::PutUpstream { name, spec, precondition };
    services.write_traffic(request, command).await?.stored(|resource| match resource {
        Resource::Upstream(upstream) => Some(upstream),
        _ => None,
    })
}

/// Deletes an upstream that no route leads to.
pub async fn delete(
    services: &Services,
    request: WriteRequest,
    name: String,
    precondition: Precondition,
) -> Result<Written<()>, ServiceError> {
    let command = TrafficCommand::DeleteUpstream { name, precondition };
    Ok(services.write_traffic(request, command).await?.map(drop))
}
