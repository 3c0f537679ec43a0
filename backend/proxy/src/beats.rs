//! Heartbeats: endpoints that say by themselves that they live, to whichever node they reach.
//!
//! A node tells the others what it has heard itself, as telemetry, and with its age; so each has the latest word of
//! all, and judges the TTL for itself. What came by way of another node may be as old as a report is late, so who has
//! heard of an endpoint that way waits a little longer than the TTL before it calls it silent.

use super::{Proxy, endpoint::Endpoint, moment::Moment, upstream::Upstream};
use ringmaster_common::{
    duration::millis,
    traffic::health::{HealthCheck, ReceivedHeartbeat},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// By how much reports of other nodes may be late: two reports' time, and a little.
const HEARSAY_DELAY: Duration = Duration::from_millis(1_500);
/// How many endpoints the others are told of at the most.
const MAX_TOLD: usize = 4096;

/// When an endpoint last said that it lives, as [`Moment`]s.
#[derive(Debug, Default)]
pub struct Beats {
    /// To this node.
    own: AtomicU64,
    /// To another, by its word.
    hearsay: AtomicU64,
}

impl Beats {
    fn beat(&self, now: Moment) {
        self.own.fetch_max(now.0, Relaxed);
    }

    fn learn(&self, at: Moment) {
        self.hearsay.fetch_max(at.0, Relaxed);
    }

    /// Whether it was heard of within its time; none where nobody ever heard of it: it may be talking to a node
    /// that has not told yet.
    pub fn lives(&self, ttl: Duration, now: Moment) -> Option<bool> {
        let (own, hearsay) = (self.own.load(Relaxed), self.hearsay.load(Relaxed));
        let delay = if hearsay == 0 { Duration::ZERO } else { HEARSAY_DELAY };
        let last = own.max(hearsay);
        (last != 0).then(|| now.since(Moment(last)) < ttl + delay)
    }
}

impl Proxy {
    /// An endpoint says that it lives. False where there is no such endpoint.
    pub fn heartbeat(&self, upstream: &str, endpoint: &str) -> bool {
        self.with_endpoint(upstream, endpoint, |endpoint| endpoint.beats.beat(Moment::now())).is_some()
    }

    /// The one endpoint at this address says so.
    pub fn heartbeat_from(&self, ip: IpAddr) -> Result<(), String> {
        let table = self.0.table.load_full();
        let at = |endpoint: &Endpoint| {
            endpoint.addr.parse::<SocketAddr>().is_ok_and(|addr| addr.ip().to_canonical() == ip)
        };
        let beating = table.upstreams().filter(|upstream| ttl_of(upstream).is_some());
        let mut there = beating.flat_map(|upstream| &upstream.seats).filter(|seat| at(&seat.endpoint));
        match (there.next(), there.count()) {
            (Some(seat), 0) => {
                seat.endpoint.beats.beat(Moment::now());
                Ok(())
            }
            (None, _) => Err(format!("no endpoint at {ip} goes by heartbeats; say which one lives")),
            (Some(_), more) => {
                Err(format!("{} endpoints at {ip} go by heartbeats; say which one lives", more + 1))
            }
        }
    }

    /// What this node has heard itself, and is of use to others.
    pub fn heard_beats(&self) -> Vec<ReceivedHeartbeat> {
        let (table, now) = (self.0.table.load_full(), Moment::now());
        let beating = table.upstreams().filter_map(|upstream| Some((upstream, ttl_of(upstream)?)));
        let all = beating.flat_map(|(upstream, ttl)| {
            upstream.seats.iter().filter_map(move |seat| {
                let own = Moment(seat.endpoint.beats.own.load(Relaxed));
                let age = now.since(own);
                (own != Moment::default() && age < ttl).then(|| ReceivedHeartbeat {
                    upstream: upstream.name.clone(),
                    endpoint: seat.endpoint.id.clone(),
                    addr: seat.endpoint.addr.clone(),
                    age_ms: millis(age),
                })
            })
        });
        all.take(MAX_TOLD).collect()
    }

    /// Another node has heard this, and said so `ago`.
    pub fn learn_beats(&self, beats: &[ReceivedHeartbeat], ago: Duration) {
        let now = Moment::now();
        for beat in beats {
            let age = ago.saturating_add(Duration::from_millis(beat.age_ms));
            let at = now.before(age);
            self.with_endpoint(&beat.upstream, &beat.endpoint, |endpoint| {
                // What was heard of another address says nothing of this one.
                if endpoint.addr == beat.addr {
                    endpoint.beats.learn(at);
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
        let table = self.0.table.load_full();
        let seat = table.upstream(upstream)?.seats.iter().find(|seat| seat.endpoint.id == endpoint)?;
        Some(then(&seat.endpoint))
    }
}

fn ttl_of(upstream: &Upstream) -> Option<Duration> {
    match upstream.config.health_check {
        Some(HealthCheck::Heartbeat { ttl_ms }) => Some(Duration::from_millis(ttl_ms)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_holds_for_its_time() {
        let (beats, ttl, start) = (Beats::default(), Duration::from_secs(2), Moment(1_000_000_000));
        let after = |millis| start.after(Duration::from_millis(millis));
        assert_eq!(beats.lives(ttl, start), None);
        beats.beat(start);
        assert_eq!([1_999, 2_000].map(|at| beats.lives(ttl, after(at))), [Some(true), Some(false)]);
        // Another node heard it later. What is older changes nothing.
        beats.learn(after(1_000));
        beats.learn(after(500));
        beats.beat(start);
        assert_eq!([4_499, 4_500].map(|at| beats.lives(ttl, after(at))), [Some(true), Some(false)]);
    }
}
