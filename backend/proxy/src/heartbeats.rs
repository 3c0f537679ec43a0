//! Heartbeats: endpoints that report that they are alive, to any node.
//!
//! A node reports the heartbeats that it received to the other nodes, as telemetry and with their age; so each node
//! knows the latest heartbeat of all endpoints, and judges the TTL itself. A relayed heartbeat may be as old as a report
//! is late, so its endpoint gets a little more than the TTL.

use crate::{Proxy, coarse_clock::CoarseInstant, endpoint::Endpoint, upstream::Upstream};
use ringmaster_common::{
    duration::millis,
    traffic::health::{HealthCheck, ReceivedHeartbeat},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// How many endpoints are reported to the other nodes.
const MAX_REPORTED: usize = 4096;

impl Proxy {
    /// A heartbeat of an endpoint. False if there is no such endpoint.
    pub fn heartbeat(&self, upstream: &str, endpoint: &str) -> bool {
        let record = |endpoint: &Endpoint| endpoint.last_heartbeat.record(CoarseInstant::now());
        self.with_endpoint(upstream, endpoint, record).is_some()
    }

    /// A heartbeat of the only endpoint at this address.
    pub fn heartbeat_from(&self, ip: IpAddr) -> Result<(), String> {
        let table = self.table();
        let is_at = |endpoint: &Endpoint| {
            endpoint.addr.parse::<SocketAddr>().is_ok_and(|addr| addr.ip().to_canonical() == ip)
        };
        let checked = table.upstreams().filter(|upstream| ttl_of(upstream).is_some());
        let mut there = checked
            .flat_map(|upstream| &upstream.slots)
            .map(|slot| &slot.endpoint)
            .filter(|endpoint| is_at(endpoint));
        match (there.next(), there.count()) {
            (Some(endpoint), 0) => {
                endpoint.last_heartbeat.record(CoarseInstant::now());
                Ok(())
            }
            (None, _) => Err(format!("no endpoint at {ip} uses heartbeats; name the endpoint")),
            (Some(_), more) => {
                Err(format!("{} endpoints at {ip} use heartbeats; name the endpoint", more + 1))
            }
        }
    }

    /// The heartbeats that this node received itself, as far as they are within their TTL.
    pub fn received_heartbeats(&self) -> Vec<ReceivedHeartbeat> {
        let (table, now) = (self.table(), CoarseInstant::now());
        let checked = table.upstreams().filter_map(|upstream| Some((upstream, ttl_of(upstream)?)));
        let all = checked.flat_map(|(upstream, ttl)| {
            upstream.slots.iter().filter_map(move |slot| {
                let last = slot.endpoint.last_heartbeat.direct();
                let age = now.since(last);
                (last != CoarseInstant::default() && age < ttl).then(|| ReceivedHeartbeat {
                    upstream: upstream.name.clone(),
                    endpoint: slot.endpoint.id.clone(),
                    addr: slot.endpoint.addr.clone(),
                    age_ms: millis(age),
                })
            })
        });
        all.take(MAX_REPORTED).collect()
    }

    /// Heartbeats that another node received, by its report of `ago`.
    pub fn merge_heartbeats(&self, heartbeats: &[ReceivedHeartbeat], ago: Duration) {
        let now = CoarseInstant::now();
        for heartbeat in heartbeats {
            let at = now.before(ago.saturating_add(Duration::from_millis(heartbeat.age_ms)));
            self.with_endpoint(&heartbeat.upstream, &heartbeat.endpoint, |endpoint| {
                // A heartbeat from another address says nothing about this one.
                if endpoint.addr == heartbeat.addr {
                    endpoint.last_heartbeat.record_relayed(at);
                }
            });
        }
    }

    fn with_endpoint<T>(
        &self,
        upstream: &str,
        endpoint: &str,
        then: impl FnOnce(&Endpoint) -> T,
    ) -> Option<T> {
        let table = self.table();
        let slot = table.upstream(upstream)?.slots.iter().find(|slot| slot.endpoint.id == endpoint)?;
        Some(then(&slot.endpoint))
    }
}

fn ttl_of(upstream: &Upstream) -> Option<Duration> {
    match upstream.config.health_check {
        Some(HealthCheck::Heartbeat { ttl_ms }) => Some(Duration::from_millis(ttl_ms)),
        _ => None,
    }
}
