//! Routes: which requests go to which upstream.

use crate::{
    Read, ReadRequest, ServiceError, Services, Stored, WriteRequest, Written,
    page::{Paging, page},
};
use ringmaster_cluster::{
    command::{Precondition, Resource},
    routes,
    traffic::TrafficCommand,
};
use ringmaster_common::{
    page::Page,
    traffic::route::{Route, RouteSpec},
};

/// In the order of names.
pub async fn list(
    services: &Services,
    request: ReadRequest,
    paging: Paging<String>,
) -> Result<Read<Page<Route>>, ServiceError> {
    services
        .list(request, |state| {
            let rest = state.routes.iter().filter(|route| route.name > paging.after).cloned();
            Ok(page(rest, paging.limit, |route| route.name.clone()))
        })
        .await
}

pub async fn get(
    services: &Services,
    request: ReadRequest,
    name: &str,
) -> Result<Read<Stored<Route>>, ServiceError> {
    services.read(request).await?.find(|state| {
        let route = state.routes.find(name)?;
        Ok(Stored::found(route.clone(), route.version))
    })
}

pub async fn put(
    services: &Services,
    request: WriteRequest,
    name: String,
    spec: RouteSpec,
    precondition: Precondition,
) -> Result<Written<Stored<Route>>, ServiceError> {
    request.check(routes::check(&name, &spec))?;
    let command = TrafficCommand::PutRoute { name, spec, precondition };
    services.write_traffic(request, command).await?.stored(|resource| match resource {
        Resource::Route(route) => Some(route),
        _ => None,
    })
}

pub async fn delete(
    services: &Services,
    request: WriteRequest,
    name: String,
    precondition: Precondition,
) -> Result<Written<()>, ServiceError> {
    let command = TrafficCommand::DeleteRoute { name, precondition };
    Ok(services.write_traffic(request, command).await?.map(drop))
}
