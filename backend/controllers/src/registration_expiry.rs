//! Ends registrations of endpoints that were not renewed in time.
//!
//! Renewals are in the leader's memory, not in the log; the end of a registration is in the log. It names the
//! registration, so that it ends no later one.

use crate::{
    IDLE_INTERVAL,
    reconcile::{self, Controller, Leadership, NextLook},
};
use ringmaster_cluster::{
    command::Command, traffic::TrafficCommand, upstreams::registration::ActiveRegistration,
};
use ringmaster_cluster_group::ClusterGroup;
use std::time::Duration;

/// How often the leader looks while there are registrations. An end may come so much later.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

pub async fn run(group: ClusterGroup) {
    let changes = group.published().watch_control();
    reconcile::run(group, changes, RegistrationExpiry).await;
}

struct RegistrationExpiry;

impl Controller for RegistrationExpiry {
    async fn reconcile(&mut self, leadership: &Leadership) -> NextLook {
        for expired in leadership.ended_registrations(leadership.term) {
            if let Err(refusal) = leadership.propose(end(expired)).await {
                tracing::debug!(%refusal, "the end of a registration was not recorded; the leader tries again");
            }
        }
        let are_there_any = leadership.state().upstreams.registrations().next().is_some();
        if are_there_any { NextLook::after(POLL_INTERVAL) } else { NextLook::within(IDLE_INTERVAL) }
    }
}

fn end(expired: ActiveRegistration) -> Command {
    Command::Traffic(Box::new(TrafficCommand::Deregister {
        reason: format!("it did not renew its registration within {} ms", expired.ttl_ms),
        upstream: expired.upstream,
        endpoint: expired.endpoint,
        only: Some(expired.revision),
    }))
}
