//! The primary of an active-standby upstream, and when the cluster fails over automatically.
//!
//! An epoch belongs to one endpoint at one address for good: whenever another one becomes the primary, or the same one
//! again, its epoch is new. An endpoint at another address is another process, so a primary that moves is gone. Without a
//! primary, no endpoint gets a request. The one before is remembered until another one is made the primary, whatever
//! becomes of its registration, its upstream or the upstream's mode: unless it was fenced, it may still be up.
//!
//! A countdown runs while the primary is unhealthy or missing: for the grace that it is given, and for as long as
//! failovers are held down after the one before. It is part of the state, in cluster time, so it outlasts the leader
//! and can only end late. What happens at its end is the leader's to plan.

use super::{UpstreamRecord, Upstreams, unknown_endpoint};
use crate::{
    Context,
    outcome::{Outcome, Resource},
    time::ClusterTime,
};
use ringmaster_common::{
    Timestamp,
    error::{Code, Refusal},
    event::Event,
    traffic::{
        health::Verdict,
        upstream::{Endpoint, Primary, Upstream},
    },
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// An endpoint that is or was the primary of an upstream, as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct LastPrimary {
    pub endpoint: String,
    /// None where a version that did not keep it has stored this.
    pub addr: Option<String>,
    pub epoch: u64,
}

/// The forms in which it may be stored.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Id(String),
    Whole { endpoint: String, addr: Option<String>, epoch: u64 },
}

impl From<Stored> for LastPrimary {
    fn from(stored: Stored) -> LastPrimary {
        match stored {
            Stored::Id(endpoint) => LastPrimary { endpoint, addr: None, epoch: 0 },
            Stored::Whole { endpoint, addr, epoch } => LastPrimary { endpoint, addr, epoch },
        }
    }
}

impl LastPrimary {
    /// Whether the endpoint is the same process. One address serves one process, under whichever id.
    pub fn is(&self, endpoint: &Endpoint) -> bool {
        self.addr.as_ref().map_or(self.endpoint == endpoint.id, |addr| *addr == endpoint.addr)
    }
}

impl Upstreams {
    /// A step of an operation makes another endpoint the primary, or has there be none.
    pub(crate) fn set_primary(
        &mut self,
        context: &mut Context,
        name: &str,
        endpoint: Option<String>,
        reason: &str,
    ) -> Result<Outcome, Refusal> {
        let mut record = self.find(name)?.clone();
        if let Some(id) = endpoint.as_ref().filter(|id| record.upstream.endpoint(id).is_none()) {
            return Err(unknown_endpoint(&record.upstream, id));
        }
        let before = record.upstream.primary.clone();
        if record.upstream.config.active_standby.is_none() {
            return Err(Refusal::new(
                Code::InvalidUpstream,
                format!("upstream {name} is not active-standby, and has no primary"),
            ));
        }
        if before.as_ref().is_some_and(|primary| primary.endpoint == endpoint) {
            let version = record.upstream.version;
            return Ok(Outcome::stored(Resource::Upstream(record.upstream), version, false));
        }
        let last = record.latest_primary();
        if endpoint.is_some() {
            self.last_epoch += 1;
            record.last_failover = Some(context.now);
        }
        record.upstream.primary =
            Some(Primary { endpoint, epoch: self.last_epoch, since: context.wall, fails_over_at: None });
        record.remember_primary(last);
        record.fails_over = None;
        record.update_countdown(context);
        record.primary_changes(context, before.as_ref(), reason);
        record.changes(context.revision);
        let stored = record.upstream.clone();
        self.keep(record);
        let version = stored.version;
        Ok(Outcome::stored(Resource::Upstream(stored), version, false))
    }

    /// Leaves out `count` epochs, which may have been given out by entries that are lost, and has every primary begin a
    /// new one: a resource that has seen one of those would refuse it.
    pub(crate) fn skip_epochs(&mut self, context: &mut Context, count: u64, reason: &str) {
        self.last_epoch = self.last_epoch.saturating_add(count);
        let records: Vec<UpstreamRecord> =
            self.by_name.values().map(|record| UpstreamRecord::clone(record)).collect();
        for mut record in records {
            let before = record.upstream.primary.clone();
            let Some(primary) = record.upstream.primary.as_mut().filter(|primary| primary.endpoint.is_some())
            else {
                continue;
            };
            self.last_epoch += 1;
            primary.epoch = self.last_epoch;
            primary.since = context.wall;
            record.primary_changes(context, before.as_ref(), reason);
            record.changes(context.revision);
            self.keep(record);
        }
    }

    /// Whether a countdown runs, or has run out.
    pub fn counts_down(&self) -> bool {
        self.by_name.values().any(|record| record.fails_over.is_some())
    }

    /// Those whose countdown has run out.
    pub fn due_to_fail_over(&self, now: ClusterTime) -> impl Iterator<Item = &Upstream> {
        let due = move |record: &&Arc<UpstreamRecord>| record.fails_over.is_some_and(|due| due <= now);
        self.by_name.values().filter(due).map(|record| &record.upstream)
    }

    /// The last primary of a deleted upstream of this name.
    pub(super) fn former_primary(&self, name: &str) -> Option<&LastPrimary> {
        self.former_primaries.iter().find(|(former, _)| former == name).map(|(_, last)| last)
    }

    /// An active-standby upstream that never had a primary takes its first endpoint; one whose primary was
    /// taken out, or is at another address than `last` says, has none. One that had a primary, and was not active-standby
    /// or not there since, takes the same one again, or none. Another upstream has no such thing.
    pub(super) fn assign_primary(
        &mut self,
        upstream: &mut Upstream,
        last: Option<&LastPrimary>,
        at: Timestamp,
    ) {
        if upstream.config.active_standby.is_none() {
            upstream.primary = None;
            return;
        }
        let endpoints = &upstream.config.endpoints;
        match (&mut upstream.primary, last) {
            (None, Some(last)) => {
                let same = endpoints.iter().find(|known| last.is(known));
                self.last_epoch += u64::from(same.is_some());
                upstream.primary = Some(Primary {
                    endpoint: same.map(|same| same.id.clone()),
                    epoch: if same.is_some() { self.last_epoch } else { last.epoch },
                    since: at,
                    fails_over_at: None,
                });
            }
            (None, None) => {
                if let Some(first) = endpoints.first() {
                    self.last_epoch += 1;
                    upstream.primary = Some(Primary {
                        endpoint: Some(first.id.clone()),
                        epoch: self.last_epoch,
                        since: at,
                        fails_over_at: None,
                    });
                }
            }
            (Some(primary), last) => {
                let moved = |known: &Endpoint| last.is_some_and(|last| !last.is(known));
                let gone = |id: &String| !endpoints.iter().any(|known| known.id == *id && !moved(known));
                if primary.endpoint.as_ref().is_some_and(gone) {
                    primary.endpoint = None;
                    primary.since = at;
                }
            }
        }
    }
}

impl UpstreamRecord {
    /// Starts the countdown where the primary is down, and stops it where that is over.
    pub(super) fn update_countdown(&mut self, context: &Context) {
        let upstream = &mut self.upstream;
        let (Some(standby), Some(primary)) = (&upstream.config.active_standby, &mut upstream.primary) else {
            self.fails_over = None;
            return;
        };
        let serving = primary
            .endpoint
            .as_ref()
            .and_then(|primary| upstream.config.endpoints.iter().find(|known| known.id == *primary));
        let is_down = serving.is_none_or(|serving| serving.health.verdict == Verdict::Unhealthy);
        if !(is_down && standby.automatic) {
            self.fails_over = None;
            primary.fails_over_at = None;
        } else if self.fails_over.is_none() {
            let after_grace = context.now.after(Duration::from_millis(standby.grace_ms));
            let hold_down = Duration::from_millis(standby.hold_down_ms);
            let held_down = self.last_failover.map(|last| last.after(hold_down));
            let due = held_down.map_or(after_grace, |held| held.max(after_grace));
            self.fails_over = Some(due);
            primary.fails_over_at =
                Some(context.wall + Duration::from_millis(due.0.saturating_sub(context.now.0)));
        }
    }

    /// The primary, or while there is none, the endpoint that was it last.
    pub fn latest_primary(&self) -> Option<LastPrimary> {
        let Some((id, epoch)) = self.present_primary() else { return self.last_primary.clone() };
        let addr = self.upstream.endpoint(id).map(|endpoint| endpoint.addr.clone());
        Some(LastPrimary { endpoint: id.to_owned(), addr, epoch })
    }

    /// The id and the epoch.
    fn present_primary(&self) -> Option<(&str, u64)> {
        let primary = self.upstream.primary.as_ref()?;
        Some((primary.endpoint.as_deref()?, primary.epoch))
    }

    /// Remembers which endpoint was the primary, while there is none.
    pub(super) fn remember_primary(&mut self, last: Option<LastPrimary>) {
        self.last_primary = last.filter(|_| self.present_primary().is_none());
    }

    /// Emits the change of the primary, if there is one; `reason` is why it would be another one.
    pub(super) fn primary_changes(&self, context: &mut Context, before: Option<&Primary>, reason: &str) {
        let Some(primary) = self.upstream.primary.clone().filter(|now| Some(now) != before) else { return };
        let reason = match before {
            Some(before) if before.epoch == primary.epoch && before.endpoint == primary.endpoint => {
                if primary.fails_over_at.is_some() {
                    "it is down, and another one is to take over"
                } else {
                    "it is not down any more"
                }
            }
            _ => reason,
        };
        let (upstream, reason) = (self.upstream.name.clone(), reason.to_owned());
        context.emit(Event::PrimaryChanged { upstream, primary, reason });
    }
}
