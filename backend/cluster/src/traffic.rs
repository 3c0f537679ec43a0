//! What the log holds of traffic: upstreams, endpoints and routes.
//!
//! Versions from before there was any of this cannot read it, so it is written once the cluster's feature
//! level says that all members can ([`LEVEL`]).

use crate::{
    Context, State,
    outcome::Outcome,
    precondition::Precondition,
    routes::{self, RouteContext},
    upstreams::{self, health::HealthChange},
};
use ringmaster_common::{
    action::Action,
    error::{Code, Refusal},
    id::Revision,
    plan::Scope,
    traffic::{
        MAX_ROUTES, MAX_UPSTREAMS,
        import::{Import, Imported, Put, PutResult},
        register::Register,
        route::RouteSpec,
        upstream::{EndpointSpec, EndpointState, UpstreamSpec},
    },
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The feature level at which all members know of traffic.
pub const LEVEL: u32 = 2;

/// The feature level at which all members know of such an action.
pub fn level_of(action: &Action) -> u32 {
    match action {
        Action::SetEndpointState { .. } | Action::FailOverUpstream { .. } => LEVEL,
        _ => 0,
    }
}

/// A change to upstreams, endpoints or routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrafficCommand {
    PutUpstream {
        name: String,
        spec: UpstreamSpec,
        precondition: Precondition,
    },
    DeleteUpstream {
        name: String,
        precondition: Precondition,
    },
    PutEndpoint {
        upstream: String,
        endpoint: EndpointSpec,
        precondition: Precondition,
    },
    DeleteEndpoint {
        upstream: String,
        endpoint: String,
        precondition: Precondition,
    },
    PutRoute {
        name: String,
        spec: RouteSpec,
        precondition: Precondition,
    },
    DeleteRoute {
        name: String,
        precondition: Precondition,
    },
    /// Puts all of it, or nothing.
    Import(Import),
    Register {
        upstream: String,
        register: Register,
    },
    Deregister {
        upstream: String,
        endpoint: String,
        /// The registration that it is the end of; none: whichever there is.
        only: Option<Revision>,
        reason: String,
    },
    /// A step of an operation sets an endpoint's state.
    SetEndpointState {
        upstream: String,
        endpoint: String,
        state: EndpointState,
    },
    /// A step of a failover makes an endpoint the primary, or has there be none.
    SetPrimary {
        upstream: String,
        endpoint: Option<String>,
        reason: String,
    },
    /// What observers say of endpoints, where it changed, and the verdicts that follow.
    RecordHealth {
        changes: Vec<HealthChange>,
    },
}

impl TrafficCommand {
    /// Whether it is well-formed; see [`crate::command::Command::check_form`].
    pub(super) fn check_form(&self) -> Result<(), Refusal> {
        let invalid = |detail: String| Refusal::new(Code::InvalidUpstream, detail);
        match self {
            TrafficCommand::PutUpstream { name, spec, .. } => upstreams::check(name, spec),
            TrafficCommand::PutEndpoint { endpoint, .. } => endpoint.check().map_err(invalid),
            TrafficCommand::PutRoute { name, spec, .. } => routes::check(name, spec),
            TrafficCommand::Import(import) => check_import_form(import),
            TrafficCommand::Register { register, .. } => register.check().map_err(invalid),
            _ => Ok(()),
        }
    }

    /// In a few words, for the audit; none for what no operator asks for.
    pub fn audited_as(&self) -> Option<String> {
        match self {
            TrafficCommand::PutUpstream { name, .. } => Some(format!("put upstream {name}")),
            TrafficCommand::DeleteUpstream { name, .. } => Some(format!("delete upstream {name}")),
            TrafficCommand::PutEndpoint { upstream, endpoint, .. } => {
                Some(format!("put endpoint {} of {upstream}", endpoint.id))
            }
            TrafficCommand::DeleteEndpoint { upstream, endpoint, .. } => {
                Some(format!("delete endpoint {endpoint} of {upstream}"))
            }
            TrafficCommand::PutRoute { name, .. } => Some(format!("put route {name}")),
            TrafficCommand::DeleteRoute { name, .. } => Some(format!("delete route {name}")),
            TrafficCommand::Import(Import { upstreams, routes }) => {
                Some(format!("import {} upstreams and {} routes", upstreams.len(), routes.len()))
            }
            TrafficCommand::Register { .. }
            | TrafficCommand::Deregister { .. }
            | TrafficCommand::SetEndpointState { .. }
            | TrafficCommand::SetPrimary { .. }
            | TrafficCommand::RecordHealth { .. } => None,
        }
    }
}

fn check_import_form(import: &Import) -> Result<(), Refusal> {
    // Defaults make a short upstream long, so the number of them bounds the size of the entry.
    at_most("upstreams", import.upstreams.len(), MAX_UPSTREAMS)?;
    at_most("routes", import.routes.len(), MAX_ROUTES)?;
    named_once("upstream", import.upstreams.iter().map(|put| put.name.as_str()))?;
    named_once("route", import.routes.iter().map(|put| put.name.as_str()))?;
    for Put { name, spec, .. } in &import.upstreams {
        upstreams::check(name, spec).map_err(|refusal| refusal.of(&format!("upstream {name}")))?;
    }
    for Put { name, spec, .. } in &import.routes {
        routes::check(name, spec).map_err(|refusal| refusal.of(&format!("route {name}")))?;
    }
    Ok(())
}

fn at_most(what: &str, count: usize, max: usize) -> Result<(), Refusal> {
    if count <= max {
        return Ok(());
    }
    Err(Refusal::new(Code::LimitReached, format!("a cluster has up to {max} {what}, and the import {count}")))
}

/// A name that stands there twice would be put upon itself.
fn named_once<'n>(what: &str, names: impl Iterator<Item = &'n str>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Refusal::new(Code::InvalidRequest, format!("{what} {name} is named twice")));
        }
    }
    Ok(())
}

impl State {
    /// What the import would be refused for, by what this state holds.
    pub fn check_import(&self, import: Import) -> Result<(), Refusal> {
        check_import_form(&import)?;
        self.clone().import(&mut self.context(), import).map(drop)
    }

    /// Upstreams come first, because routes lead to them.
    fn import(&mut self, context: &mut Context, import: Import) -> Result<Outcome, Refusal> {
        let Import { upstreams, routes } = import;
        let (known, emitted) = ((self.upstreams.clone(), self.routes.clone()), context.events.len());
        let mut imported = Imported { version: context.revision, upstreams: Vec::new(), routes: Vec::new() };
        let put_all = || {
            for Put { name, version, spec } in upstreams {
                let of = format!("upstream {name}");
                imported.upstreams.push(PutResult { name: name.clone(), created: version.is_none() });
                self.upstreams
                    .put(context, name, spec, &expecting(version))
                    .map_err(|refusal| refusal.of(&of))?;
            }
            // Two routes may change places.
            let before = self.routes.clone();
            self.routes = before.without(routes.iter().map(|route| route.name.as_str()));
            for Put { name, version, spec } in routes {
                let of = format!("route {name}");
                imported.routes.push(PutResult { name: name.clone(), created: version.is_none() });
                let stored = before.get(&name).map(|route| route.version);
                let route_context = RouteContext { upstreams: &self.upstreams, membership: &self.membership };
                expecting(version)
                    .check(&of, stored)
                    .and_then(|()| self.routes.put(context, name, spec, &Precondition::Absent, route_context))
                    .map_err(|refusal| refusal.of(&of))?;
            }
            Ok(Outcome::Imported(imported))
        };
        let outcome = put_all();
        if outcome.is_err() {
            (self.upstreams, self.routes) = known;
            context.events.truncate(emitted);
        }
        outcome
    }

    pub(super) fn change_traffic(&mut self, context: &mut Context, command: TrafficCommand) -> Outcome {
        self.try_change_traffic(context, command).unwrap_or_else(Outcome::Refused)
    }

    fn try_change_traffic(
        &mut self,
        context: &mut Context,
        command: TrafficCommand,
    ) -> Result<Outcome, Refusal> {
        match command {
            TrafficCommand::PutUpstream { name, spec, precondition } => {
                self.upstreams.put(context, name, spec, &precondition)
            }
            TrafficCommand::DeleteUpstream { name, precondition } => {
                // Its steps would find the upstream gone.
                self.operations.check_free(&Scope::Upstream(name.clone()))?;
                let routes = self.routes.leading_to(&name).map(|route| route.name.as_str());
                self.upstreams.remove(context, &name, &precondition, routes)
            }
            TrafficCommand::PutEndpoint { upstream, endpoint, precondition } => {
                self.upstreams.put_endpoint(context, &upstream, &endpoint, &precondition)
            }
            TrafficCommand::DeleteEndpoint { upstream, endpoint, precondition } => {
                let reason = format!("{} deleted it", context.actor);
                self.upstreams.remove_endpoint(context, &upstream, &endpoint, &reason, &precondition)
            }
            TrafficCommand::PutRoute { name, spec, precondition } => {
                let route_context = RouteContext { upstreams: &self.upstreams, membership: &self.membership };
                self.routes.put(context, name, spec, &precondition, route_context)
            }
            TrafficCommand::DeleteRoute { name, precondition } => {
                self.routes.remove(context, &name, &precondition)
            }
            TrafficCommand::Import(import) => self.import(context, import),
            TrafficCommand::Register { upstream, register } => {
                self.upstreams.register(context, &upstream, &register)
            }
            TrafficCommand::Deregister { upstream, endpoint, only, reason } => {
                self.upstreams.deregister(context, &upstream, &endpoint, only, &reason)
            }
            TrafficCommand::SetEndpointState { upstream, endpoint, state } => {
                self.upstreams.set_state(context, &upstream, &endpoint, state)
            }
            TrafficCommand::SetPrimary { upstream, endpoint, reason } => {
                self.upstreams.set_primary(context, &upstream, endpoint, &reason)
            }
            TrafficCommand::RecordHealth { changes } => {
                self.upstreams.record_health(context, &changes, &self.membership);
                Ok(Outcome::Done)
            }
        }
    }
}

/// The resource is still at the version that the import names.
fn expecting(version: Option<Revision>) -> Precondition {
    version.map_or(Precondition::Absent, |version| Precondition::AnyOf(vec![version]))
}
