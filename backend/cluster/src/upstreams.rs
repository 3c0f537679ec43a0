//! Upstreams: configuration under ETags, and the states of their endpoints.
//!
//! A PUT replaces the configuration and keeps the states. What always holds:
//! - A PUT changes no endpoint's state and no health, unless the endpoint's address changes: the health of a new
//!   address is unknown.
//! - A registered endpoint outlasts a PUT, and goes with its registration alone.
//! - An active-standby upstream keeps its primary through a PUT, which cannot change the primary's address. Where the
//!   primary itself is removed, or registers at another address, there is none until an endpoint takes over. The last
//!   primary is remembered while the upstream is not active-standby, and after the upstream is deleted. Epochs come from
//!   one counter of the whole cluster that only grows.
//!
//! The version of an upstream is that of its configuration. The version that plans read changes with states and
//! primaries, too, but not with health, which fluctuates.

pub mod health;
pub mod primary;
pub mod registration;

use self::primary::LastPrimary;
use crate::{
    Context,
    limits::Limits,
    outcome::{Outcome, Resource},
    precondition::Precondition,
    time::ClusterTime,
};
use imbl::OrdMap;
use ringmaster_common::{
    Timestamp,
    error::{Code, Refusal},
    event::Event,
    id::Revision,
    traffic::{
        check_name,
        health::{EndpointHealth, HealthRecord},
        upstream::{Endpoint, EndpointDetail, EndpointSpec, EndpointState, Upstream, UpstreamSpec},
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Upstreams {
    by_name: OrdMap<Arc<str>, Arc<UpstreamRecord>>,
    /// The highest epoch that any primary ever had.
    last_epoch: u64,
    /// The last primaries of upstreams that were deleted, by the upstream's name, the oldest first: they may still be up.
    #[serde(default)]
    former_primaries: Arc<Vec<(String, LastPrimary)>>,
}

/// An upstream, and what only the server needs to know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamRecord {
    pub upstream: Upstream,
    /// The revision that last changed its configuration, a state or the primary: what plans stand on.
    pub changed: Revision,
    /// The revision that last changed anything.
    pub touched: Revision,
    /// Changes of opinion about each endpoint, oldest first.
    health_history: BTreeMap<String, Vec<HealthRecord>>,
    /// With which revision each registration came that is in force.
    registered: BTreeMap<String, Revision>,
    /// When the cluster fails over automatically.
    fails_over: Option<ClusterTime>,
    /// When another endpoint last became the primary.
    last_failover: Option<ClusterTime>,
    /// While there is no primary, or the upstream is not active-standby: the endpoint that was the primary last. Unless it
    /// was fenced it may still be up.
    #[serde(default)]
    last_primary: Option<LastPrimary>,
}

impl Upstreams {
    /// Whether nothing can have changed between the two. Costs nothing.
    pub fn is_same_as(&self, other: &Upstreams) -> bool {
        self.by_name.ptr_eq(&other.by_name)
    }

    pub fn get(&self, name: &str) -> Option<&UpstreamRecord> {
        self.by_name.get(name).map(Arc::as_ref)
    }

    /// The upstream, or a refusal that names those that there are.
    pub fn find(&self, name: &str) -> Result<&UpstreamRecord, Refusal> {
        self.get(name).ok_or_else(|| {
            let mut known: Vec<_> =
                self.by_name.keys().take(NAMED_IN_REFUSALS + 1).map(Arc::as_ref).collect();
            if known.len() > NAMED_IN_REFUSALS {
                known[NAMED_IN_REFUSALS] = "…";
            }
            let known = if known.is_empty() {
                "there is none yet".to_owned()
            } else {
                format!("upstreams are {}", known.join(", "))
            };
            Refusal::new(Code::UnknownUpstream, format!("there is no upstream called {name:?}; {known}"))
        })
    }

    /// In the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &Upstream> {
        self.by_name.values().map(|record| &record.upstream)
    }

    pub(super) fn put(
        &mut self,
        context: &mut Context,
        name: String,
        spec: UpstreamSpec,
        precondition: &Precondition,
    ) -> Result<Outcome, Refusal> {
        let known = self.by_name.get(name.as_str()).cloned();
        precondition
            .check(&format!("upstream {name}"), known.as_ref().map(|known| known.upstream.version))?;
        let most = context.limits.upstreams;
        if known.is_none() && self.by_name.len() >= most {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("a cluster has {most} upstreams, and all are in use"),
            ));
        }
        let created = known.is_none();
        let mut record = known.map_or_else(
            || UpstreamRecord::new(name.clone(), self.former_primary(&name).cloned()),
            Arc::unwrap_or_clone,
        );
        let mut endpoints = Vec::with_capacity(spec.endpoints.len());
        for endpoint in &spec.endpoints {
            if spec.active_standby.is_some() {
                record.check_address(endpoint)?;
            }
            endpoints.push(record.configure(endpoint, context.wall)?);
        }
        let registered = record.upstream.config.endpoints.iter().filter(|known| known.registered.is_some());
        endpoints.extend(registered.cloned());
        check_count(context.limits, &name, endpoints.len())?;
        let last = record.latest_primary();
        let served = record.unjudged_serving();
        record.upstream.config = spec.with_endpoints(endpoints);
        record.assume_healthy(&served);
        record.upstream.configured(context.revision, context.wall, &context.actor.to_string());
        self.assign_primary(&mut record.upstream, last.as_ref(), context.wall);
        record.remember_primary(last);
        record.update_countdown(context);
        record.changes(context.revision);
        record.forget_the_gone();
        let stored = record.upstream.clone();
        context.emit(Event::UpstreamPut { upstream: Box::new(stored.clone()) });
        if self.former_primary(&name).is_some() {
            Arc::make_mut(&mut self.former_primaries).retain(|(former, _)| *former != name);
        }
        self.by_name.insert(name.into(), Arc::new(record));
        Ok(Outcome::stored(Resource::Upstream(stored), context.revision, created))
    }

    /// `routes` are the names of those that lead to it.
    pub(super) fn remove<'r>(
        &mut self,
        context: &mut Context,
        name: &str,
        precondition: &Precondition,
        routes: impl Iterator<Item = &'r str>,
    ) -> Result<Outcome, Refusal> {
        let record = self.find(name)?;
        let (version, last_primary) = (record.upstream.version, record.latest_primary());
        precondition.check(&format!("upstream {name}"), Some(version))?;
        let leading: Vec<_> = routes.take(NAMED_IN_REFUSALS).collect();
        if !leading.is_empty() {
            return Err(Refusal::new(
                Code::UpstreamInUse,
                format!("these routes lead to {name}: {}; delete or redirect them first", leading.join(", ")),
            ));
        }
        self.by_name.remove(name);
        if let Some(last) = last_primary {
            let former = Arc::make_mut(&mut self.former_primaries);
            former.push((name.to_owned(), last));
            if former.len() > context.limits.former_primaries {
                former.remove(0);
            }
        }
        context.emit(Event::UpstreamRemoved { upstream: name.to_owned() });
        Ok(Outcome::Done)
    }

    pub(super) fn put_endpoint(
        &mut self,
        context: &mut Context,
        name: &str,
        spec: &EndpointSpec,
        precondition: &Precondition,
    ) -> Result<Outcome, Refusal> {
        let record = self.find(name)?;
        precondition.check(&format!("upstream {name}"), Some(record.upstream.version))?;
        let others = record.upstream.config.endpoints.iter().filter(|other| other.id != spec.id);
        if let Some(other) = others.clone().find(|other| other.addr == spec.addr) {
            return Err(Refusal::new(
                Code::EndpointTaken,
                format!("endpoint {} of {name} has the address {} already", other.id, spec.addr),
            ));
        }
        check_count(context.limits, name, others.count() + 1)?;
        let mut record = record.clone();
        let created = record.upstream.endpoint(&spec.id).is_none();
        record.check_address(spec)?;
        let endpoint = record.configure(spec, context.wall)?;
        record.upstream.put_endpoint(endpoint.clone());
        record.upstream.configured(context.revision, context.wall, &context.actor.to_string());
        context.emit(Event::EndpointPut { upstream: name.to_owned(), endpoint });
        self.store(context, record, "it is the first endpoint");
        self.stored_endpoint(name, &spec.id, created)
    }

    pub(super) fn remove_endpoint(
        &mut self,
        context: &mut Context,
        name: &str,
        id: &str,
        reason: &str,
        precondition: &Precondition,
    ) -> Result<Outcome, Refusal> {
        let mut record = self.find(name)?.clone();
        precondition.check(&format!("upstream {name}"), Some(record.upstream.version))?;
        let gone =
            record.upstream.remove_endpoint(id).ok_or_else(|| unknown_endpoint(&record.upstream, id))?;
        if gone.registered.is_none() {
            record.upstream.configured(context.revision, context.wall, &context.actor.to_string());
        }
        context.emit(Event::EndpointRemoved {
            upstream: name.to_owned(),
            endpoint: id.to_owned(),
            reason: reason.to_owned(),
        });
        self.store(context, record, "the primary was removed");
        Ok(Outcome::Done)
    }

    /// A step of an operation sets the endpoint's state.
    pub(super) fn set_state(
        &mut self,
        context: &mut Context,
        name: &str,
        id: &str,
        state: EndpointState,
    ) -> Result<Outcome, Refusal> {
        let mut record = self.find(name)?.clone();
        let Some(endpoint) = record.upstream.endpoint_mut(id) else {
            return Err(unknown_endpoint(&record.upstream, id));
        };
        if endpoint.state != state {
            endpoint.set_state(state, context.wall);
            record.changes(context.revision);
            context.emit(Event::EndpointStateChanged {
                upstream: name.to_owned(),
                endpoint: id.to_owned(),
                state,
            });
            self.keep(record);
        }
        self.stored_endpoint(name, id, false)
    }

    /// The outcome of a write that stored one endpoint. Its version is that of its upstream.
    fn stored_endpoint(&self, name: &str, id: &str, created: bool) -> Result<Outcome, Refusal> {
        let record = self.find(name)?;
        Ok(Outcome::stored(Resource::Endpoint(record.detail(id)?), record.upstream.version, created))
    }

    /// Stores the changed upstream, and emits the change of its primary, if there is one.
    fn store(&mut self, context: &mut Context, mut record: UpstreamRecord, reason: &str) {
        let before = record.upstream.primary.clone();
        // By what was stored: the endpoint's address may have changed since.
        let last = self.get(&record.upstream.name).and_then(UpstreamRecord::latest_primary);
        self.assign_primary(&mut record.upstream, last.as_ref(), context.wall);
        record.remember_primary(last);
        record.update_countdown(context);
        record.primary_changes(context, before.as_ref(), reason);
        record.changes(context.revision);
        record.forget_the_gone();
        self.keep(record);
    }

    fn keep(&mut self, record: UpstreamRecord) {
        self.by_name.insert(record.upstream.name.as_str().into(), Arc::new(record));
    }
}

/// How many names a refusal lists.
const NAMED_IN_REFUSALS: usize = 8;

impl UpstreamRecord {
    fn new(name: String, last_primary: Option<LastPrimary>) -> Self {
        let upstream = Upstream {
            name,
            config: UpstreamSpec::default().with_endpoints(Vec::new()),
            primary: None,
            version: Revision(0),
            updated_at: Timestamp::UNIX_EPOCH,
            updated_by: String::new(),
        };
        UpstreamRecord {
            upstream,
            changed: Revision(0),
            touched: Revision(0),
            health_history: BTreeMap::new(),
            registered: BTreeMap::new(),
            fails_over: None,
            last_failover: None,
            last_primary,
        }
    }

    /// Another address is another process, which would be the primary in the epoch of the one before, and beside it.
    fn check_address(&self, spec: &EndpointSpec) -> Result<(), Refusal> {
        let name = &self.upstream.name;
        let primary = self.upstream.primary.as_ref().and_then(|primary| primary.endpoint.as_deref());
        match self.upstream.endpoint(&spec.id) {
            Some(known) if primary == Some(known.id.as_str()) && known.addr != spec.addr => {
                Err(Refusal::new(
                    Code::EndpointIsPrimary,
                    format!(
                        "endpoint {id} is the primary of {name}, at {}, and {} is another process; add that one under \
                     another id, make it the primary (fail_over_upstream), and remove {id}",
                        known.addr,
                        spec.addr,
                        id = known.id,
                    ),
                ))
            }
            _ => Ok(()),
        }
    }

    pub fn endpoint(&self, id: &str) -> Result<&Endpoint, Refusal> {
        self.upstream.endpoint(id).ok_or_else(|| unknown_endpoint(&self.upstream, id))
    }

    /// One endpoint, with its past.
    pub fn detail(&self, id: &str) -> Result<EndpointDetail, Refusal> {
        let endpoint = self.endpoint(id)?;
        Ok(EndpointDetail {
            upstream: self.upstream.name.clone(),
            endpoint: endpoint.clone(),
            is_serving: self.upstream.is_serving(endpoint),
            health_history: self.health_history.get(id).cloned().unwrap_or_default(),
        })
    }

    /// The endpoint as it is after it was configured: what became of it stays, unless it is elsewhere now.
    fn configure(&mut self, spec: &EndpointSpec, at: Timestamp) -> Result<Endpoint, Refusal> {
        let Some(known) = self.upstream.endpoint(&spec.id).cloned() else {
            return Ok(Endpoint::new(spec, at));
        };
        if known.registered.is_some() {
            return Err(Refusal::new(
                Code::EndpointTaken,
                format!(
                    "endpoint {} of {} registered itself at {}; remove it first, or choose another id",
                    known.id, self.upstream.name, known.addr
                ),
            ));
        }
        let mut health = known.health;
        if known.addr != spec.addr {
            health = EndpointHealth::default();
            self.health_history.remove(&spec.id);
        }
        Ok(Endpoint { addr: spec.addr.clone(), weight: spec.weight, health, ..known })
    }

    fn changes(&mut self, revision: Revision) {
        self.changed = revision;
        self.touched = revision;
    }

    fn forget_the_gone(&mut self) {
        let upstream = &self.upstream;
        self.health_history.retain(|id, _| upstream.endpoint(id).is_some());
        self.registered.retain(|id, _| upstream.endpoint(id).is_some());
    }
}

/// What can be said of an upstream without knowing the cluster. The API asks it before it proposes, so that
/// what is plainly wrong never reaches the log.
pub fn check(name: &str, spec: &UpstreamSpec) -> Result<(), Refusal> {
    check_name("an upstream", name).and_then(|()| spec.check()).map_err(invalid)
}

fn check_count(limits: &Limits, name: &str, count: usize) -> Result<(), Refusal> {
    let most = limits.endpoints;
    if count <= most {
        return Ok(());
    }
    Err(Refusal::new(
        Code::LimitReached,
        format!(
            "upstream {name} would have {count} endpoints with those that registered themselves, and may have {most}"
        ),
    ))
}

fn invalid(detail: String) -> Refusal {
    Refusal::new(Code::InvalidUpstream, detail)
}

fn unknown_endpoint(upstream: &Upstream, id: &str) -> Refusal {
    let mut known: Vec<_> =
        upstream.config.endpoints.iter().take(NAMED_IN_REFUSALS + 1).map(|known| known.id.as_str()).collect();
    if known.len() > NAMED_IN_REFUSALS {
        known[NAMED_IN_REFUSALS] = "…";
    }
    let known =
        if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
    Refusal::new(
        Code::UnknownEndpoint,
        format!("upstream {} has no endpoint called {id:?}; {known}", upstream.name),
    )
}
