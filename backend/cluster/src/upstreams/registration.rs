//! Endpoints that registered themselves, and go with their registration.
//!
//! The log holds that one came and that it is gone. Whether it was renewed in time is the leader's to watch
//! (`controllers/registrations.rs`); the end names the registration that it is the end of, so that it takes away no
//! later one.

use super::{UpstreamRecord, Upstreams, check_count, unknown_endpoint};
use crate::{Context, outcome::Outcome, precondition::Precondition};
use ringmaster_common::{
    error::{Code, Refusal},
    event::Event,
    id::Revision,
    traffic::{
        health::Verdict,
        register::Register,
        upstream::{Endpoint, Registration},
    },
};

/// A registration that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveRegistration {
    pub upstream: String,
    pub endpoint: String,
    /// The revision that it came with.
    pub revision: Revision,
    pub ttl_ms: u64,
}

impl Upstreams {
    /// All registrations that are in force.
    pub fn registrations(&self) -> impl Iterator<Item = ActiveRegistration> {
        self.by_name.values().flat_map(|record| record.registrations())
    }

    pub(crate) fn register(
        &mut self,
        context: &mut Context,
        name: &str,
        register: &Register,
    ) -> Result<Outcome, Refusal> {
        let mut record = self.find(name)?.clone();
        let known = record.upstream.endpoint(&register.id).cloned();
        let taken = |detail: String| Err(Refusal::new(Code::EndpointTaken, detail));
        if known.as_ref().is_some_and(|known| known.registered.is_none()) {
            return taken(format!(
                "endpoint {} of {name} is configured; register under another id",
                register.id
            ));
        }
        // Two processes that compete for an id would both win, again and again. A dead one does not block the id.
        if let Some(known) = known.as_ref().filter(|known| known.addr != register.addr)
            && known.health.verdict != Verdict::Unhealthy
        {
            return taken(format!(
                "endpoint {} of {name} is registered at {}; that registration has to end first",
                register.id, known.addr
            ));
        }
        let endpoints = &record.upstream.config.endpoints;
        let others = endpoints.iter().filter(|other| other.id != register.id);
        if let Some(other) = others.clone().find(|other| other.addr == register.addr) {
            if other.registered.is_none() {
                return taken(format!("endpoint {} of {name} is configured with that address", other.id));
            }
            // One address serves one process: the one before it is gone.
            let (gone, reason) = (other.id.clone(), format!("{} has its address now", register.id));
            self.remove_endpoint(context, name, &gone, &reason, &Precondition::None)?;
            record = self.find(name)?.clone();
        } else {
            check_count(context.limits, name, others.count() + 1)?;
        }
        let created = known.is_none();
        let registered = Registration { ttl_ms: register.ttl_ms, since: context.wall };
        let fresh = Endpoint::new(&register.endpoint(), context.wall);
        let endpoint = match known {
            Some(known) if known.addr == fresh.addr => {
                // What it said again is no news.
                let since = known.registered.as_ref().map_or(context.wall, |registered| registered.since);
                let registered = Some(Registration { since, ..registered });
                Endpoint { weight: fresh.weight, registered, ..known }
            }
            Some(known) => Endpoint {
                // Its address is new, so its health is unknown; the state that an operator set still holds.
                state: known.state,
                state_since: known.state_since,
                registered: Some(registered),
                ..fresh
            },
            None => Endpoint { registered: Some(registered), ..fresh },
        };
        let moved = record.upstream.endpoint(&register.id).is_some_and(|known| known.addr != endpoint.addr);
        if moved {
            record.health_history.remove(&register.id);
        }
        record.registered.insert(register.id.clone(), context.revision);
        if record.upstream.endpoint(&register.id) == Some(&endpoint) {
            self.keep(record);
            return self.stored_endpoint(name, &register.id, false);
        }
        record.upstream.put_endpoint(endpoint.clone());
        context.emit(Event::EndpointPut { upstream: name.to_owned(), endpoint });
        let reason =
            if moved { "the primary registered at another address" } else { "it is the first endpoint" };
        self.store(context, record, reason);
        self.stored_endpoint(name, &register.id, created)
    }

    /// Where a registration is named, this one alone ends.
    pub(crate) fn deregister(
        &mut self,
        context: &mut Context,
        name: &str,
        id: &str,
        only: Option<Revision>,
        reason: &str,
    ) -> Result<Outcome, Refusal> {
        let record = self.find(name)?;
        let endpoint = record.upstream.endpoint(id).ok_or_else(|| unknown_endpoint(&record.upstream, id))?;
        if endpoint.registered.is_none() {
            return Err(Refusal::new(
                Code::EndpointTaken,
                format!("endpoint {id} of {name} is configured, and did not register itself"),
            ));
        }
        if only.is_some_and(|only| record.registered.get(id) != Some(&only)) {
            return Ok(Outcome::Done);
        }
        self.remove_endpoint(context, name, id, reason, &Precondition::None)
    }
}

impl UpstreamRecord {
    fn registrations(&self) -> impl Iterator<Item = ActiveRegistration> {
        self.registered.iter().filter_map(|(id, revision)| {
            let registered = self.upstream.endpoint(id)?.registered.as_ref()?;
            Some(ActiveRegistration {
                upstream: self.upstream.name.clone(),
                endpoint: id.clone(),
                revision: *revision,
                ttl_ms: registered.ttl_ms,
            })
        })
    }

    /// The registration of an endpoint, if it has one.
    pub fn registration(&self, id: &str) -> Option<ActiveRegistration> {
        self.registrations().find(|registration| registration.endpoint == id)
    }
}
