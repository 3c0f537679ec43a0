//! Routes: which requests go to which upstream, under ETags.
//!
//! What always holds: each route leads to an upstream that there is, no two match the very same requests, and none
//! was put with a listener that a member of then had for itself.

use crate::{
    Context,
    membership::Membership,
    outcome::{Outcome, Resource},
    precondition::Precondition,
    upstreams::Upstreams,
};
use imbl::OrdMap;
use ringmaster_common::{
    error::{Code, Refusal},
    event::Event,
    id::Revision,
    traffic::{
        check_name,
        route::{Route, RouteSpec},
    },
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routes {
    by_name: OrdMap<Arc<str>, Arc<Route>>,
}

impl Routes {
    /// Whether nothing can have changed between the two. Costs nothing.
    pub fn is_same_as(&self, other: &Routes) -> bool {
        self.by_name.ptr_eq(&other.by_name)
    }

    pub fn get(&self, name: &str) -> Option<&Route> {
        self.by_name.get(name).map(Arc::as_ref)
    }

    pub fn find(&self, name: &str) -> Result<&Route, Refusal> {
        self.get(name)
            .ok_or_else(|| Refusal::new(Code::NoSuchRoute, format!("there is no route called {name:?}")))
    }

    /// In the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.by_name.values().map(Arc::as_ref)
    }

    /// Those that lead to the upstream.
    pub fn leading_to(&self, upstream: &str) -> impl Iterator<Item = &Route> {
        self.iter().filter(move |route| route.spec.upstream == upstream)
    }

    pub(super) fn put(
        &mut self,
        context: &mut Context,
        name: String,
        spec: RouteSpec,
        precondition: &Precondition,
        route_context: RouteContext<'_>,
    ) -> Result<Outcome, Refusal> {
        let stored = self.get(&name).map(|route| route.version);
        precondition.check(&format!("route {name}"), stored)?;
        route_context.upstreams.find(&spec.upstream)?;
        if let Some(listener) = &spec.listener {
            check_listener(listener, route_context.membership)?;
        }
        if let Some(other) = self.iter().find(|other| other.name != name && other.spec.shadows(&spec)) {
            return Err(Refusal::new(
                Code::RouteShadows,
                format!(
                    "route {} matches the very same requests, and leads to {}; change or delete it first",
                    other.name, other.spec.upstream
                ),
            ));
        }
        let most = context.limits.routes;
        if stored.is_none() && self.by_name.len() >= most {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("a cluster has {most} routes, and all are in use"),
            ));
        }
        let route = Route {
            name: name.clone(),
            spec,
            version: context.revision,
            updated_at: context.wall,
            updated_by: context.actor.to_string(),
        };
        self.by_name.insert(name.into(), Arc::new(route.clone()));
        context.emit(Event::RoutePut { route: Box::new(route.clone()) });
        Ok(Outcome::stored(Resource::Route(route), context.revision, stored.is_none()))
    }

    /// The routes without these, so that those of one import conflict only with the others.
    pub(super) fn without<'a>(&self, names: impl Iterator<Item = &'a str>) -> Routes {
        let mut rest = self.clone();
        for name in names {
            rest.by_name.remove(name);
        }
        rest
    }

    pub(super) fn remove(
        &mut self,
        context: &mut Context,
        name: &str,
        precondition: &Precondition,
    ) -> Result<Outcome, Refusal> {
        let version: Revision = self.find(name)?.version;
        precondition.check(&format!("route {name}"), Some(version))?;
        self.by_name.remove(name);
        context.emit(Event::RouteRemoved { route: name.to_owned() });
        Ok(Outcome::Done)
    }
}

/// What a route has to fit in with, beside other routes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteContext<'a> {
    pub upstreams: &'a Upstreams,
    pub membership: &'a Membership,
}

/// On the machine of a member, its own addresses are not to be had.
fn check_listener(listener: &str, membership: &Membership) -> Result<(), Refusal> {
    for node in membership.iter() {
        for (what, addr) in [("API", &node.api_addr), ("peer", &node.peer_addr)] {
            if meet(listener, addr) {
                return Err(Refusal::new(
                    Code::ListenerTaken,
                    format!(
                        "{addr} is the {what} address of node {}, so no proxy can listen on {listener} there; choose \
                         another port",
                        node.id
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Whether who listens on the one leaves no room for the other: the same port, and the same address or any.
fn meet(one: &str, other: &str) -> bool {
    let (Some((host, port)), Some((other_host, other_port))) = (one.rsplit_once(':'), other.rsplit_once(':'))
    else {
        return false;
    };
    let is_any = |host: &str| matches!(host, "0.0.0.0" | "[::]");
    let bare = |host: &str| {
        if host.eq_ignore_ascii_case("localhost") { "127.0.0.1".to_owned() } else { host.to_owned() }
    };
    port == other_port && (bare(host) == bare(other_host) || is_any(host) || is_any(other_host))
}

/// What can be said of a route without knowing the others. The API asks it before it proposes, so that
/// what is plainly wrong never reaches the log.
pub fn check(name: &str, spec: &RouteSpec) -> Result<(), Refusal> {
    check_name("a route", name)
        .and_then(|()| spec.check())
        .map_err(|detail| Refusal::new(Code::InvalidRoute, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_meet_on_a_port() {
        for (one, other, expected) in [
            ("127.0.0.1:7701", "127.0.0.1:7701", true),
            ("localhost:7701", "127.0.0.1:7701", true),
            ("0.0.0.0:7701", "127.0.0.1:7701", true),
            ("10.0.0.1:7701", "[::]:7701", true),
            ("10.0.0.1:7701", "10.0.0.2:7701", false),
            ("127.0.0.1:7900", "127.0.0.1:7701", false),
        ] {
            assert_eq!(meet(one, other), expected, "{one} and {other}");
        }
    }
}
