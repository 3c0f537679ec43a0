//! Counters since the start of this node, for a monitoring system.
//!
//! Upstreams and endpoints have series of their own up to a bound, in the order of their names; those beyond it are
//! summed up as one series. So the number of series is bounded.

pub use crate::outcome::ErrorKind;
use crate::{
    Proxy,
    coarse_clock::CoarseInstant,
    selection::{Ineligible, SlotSet},
    upstream::Upstream,
};
use ringmaster_net::histogram::Counts;
use std::{sync::atomic::Ordering::Relaxed, time::Duration};

/// How many upstreams, and how many endpoints of all upstreams together, have series of their own.
pub const MAX_SERIES: usize = 256;
/// The name of the series of those beyond that.
pub const OTHER: &str = "other";
/// The bounds of latencies, in microseconds: half a millisecond, and four times as long each time. They lie where
/// buckets do.
pub const BOUNDS_MICROS: [u64; 8] = [1 << 9, 1 << 11, 1 << 13, 1 << 15, 1 << 17, 1 << 19, 1 << 21, 1 << 23];

/// Of one upstream, or of several.
#[derive(Clone, Debug, Default)]
pub struct UpstreamCounters {
    pub upstream: String,
    pub retries: u64,
    pub no_endpoint: u64,
    pub client_disconnects: u64,
}

/// Of one endpoint, or of several.
#[derive(Clone, Debug)]
pub struct EndpointCounters {
    pub upstream: String,
    pub endpoint: String,
    /// By the first digit of the status, from 1 on.
    pub responses: [u64; 5],
    pub errors: [(ErrorKind, u64); ErrorKind::ALL.len()],
    /// Requests that were sent again, on a new connection.
    pub resends: u64,
    pub latency: Counts,
    pub in_flight: u64,
    /// How many of them are eligible.
    pub up: u64,
    pub ejected: u64,
}

impl EndpointCounters {
    fn of(upstream: &Upstream, slot: usize, now: CoarseInstant) -> EndpointCounters {
        let endpoint = upstream.endpoint(slot);
        let why_ineligible = upstream.why_ineligible(slot, &SlotSet::default(), now);
        EndpointCounters {
            upstream: upstream.name.clone(),
            endpoint: endpoint.id.clone(),
            responses: endpoint.responses(),
            errors: ErrorKind::ALL.map(|kind| (kind, endpoint.errors(kind))),
            resends: endpoint.resends.load(Relaxed),
            latency: endpoint.latency.total(),
            in_flight: endpoint.in_flight.load(Relaxed).into(),
            up: u64::from(matches!(why_ineligible, None | Some(Ineligible::Full))),
            ejected: u64::from(endpoint.ejected_for(now).is_some_and(|left| left > Duration::ZERO)),
        }
    }

    fn add(&mut self, other: &EndpointCounters) {
        for (count, more) in self.responses.iter_mut().zip(other.responses) {
            *count += more;
        }
        for ((_, count), (_, more)) in self.errors.iter_mut().zip(other.errors) {
            *count += more;
        }
        self.resends += other.resends;
        self.latency.add(&other.latency);
        self.in_flight += other.in_flight;
        self.up += other.up;
        self.ejected += other.ejected;
    }
}

impl Proxy {
    /// Since this node has had each of them in its routing table.
    pub fn counters(&self) -> (Vec<UpstreamCounters>, Vec<EndpointCounters>) {
        let (table, now) = (self.table(), CoarseInstant::now());
        let (mut upstreams, mut endpoints) = (Vec::<UpstreamCounters>::new(), Vec::<EndpointCounters>::new());
        for upstream in table.upstreams() {
            let stats = &upstream.stats;
            let counters = UpstreamCounters {
                upstream: upstream.name.clone(),
                retries: stats.retries.load(Relaxed),
                no_endpoint: stats.no_endpoint.load(Relaxed),
                client_disconnects: stats.client_disconnects.load(Relaxed),
            };
            let is_apart = upstreams.len() < MAX_SERIES;
            match upstreams.get_mut(MAX_SERIES) {
                None if is_apart => upstreams.push(counters),
                None => upstreams.push(UpstreamCounters { upstream: OTHER.to_owned(), ..counters }),
                Some(others) => {
                    others.retries += counters.retries;
                    others.no_endpoint += counters.no_endpoint;
                    others.client_disconnects += counters.client_disconnects;
                }
            }
            for slot in 0..upstream.slots.len() {
                let counters = EndpointCounters::of(upstream, slot, now);
                let is_apart = endpoints.len() < MAX_SERIES;
                match endpoints.get_mut(MAX_SERIES) {
                    None if is_apart => endpoints.push(counters),
                    None => {
                        let (upstream, endpoint) = (OTHER.to_owned(), OTHER.to_owned());
                        endpoints.push(EndpointCounters { upstream, endpoint, ..counters });
                    }
                    Some(others) => others.add(&counters),
                }
            }
        }
        (upstreams, endpoints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Settings,
        outcome::{AttemptOutcome, ResponseEnd},
        upstream::tests::upstream,
    };
    use ringmaster_common::id::NodeId;
    use ringmaster_net::supervisor::Supervisor;

    #[tokio::test]
    async fn series_beyond_the_bound_are_summed_up() {
        let settings =
            Settings { node: NodeId(1), listen: None, data_dir: None, workers: Some(1), connections: 100 };
        let proxy = Proxy::start(settings, &Supervisor::new()).unwrap();
        let all: Vec<_> = (0..300).map(|n| upstream(&format!("u{n:03}"), &[("a", 1), ("b", 1)])).collect();
        proxy.set_table(all.iter(), [].into_iter());
        for upstream in proxy.0.table.load().upstreams() {
            upstream.stats.retries.store(2, Relaxed);
            for slot in &upstream.slots {
                let response = AttemptOutcome::Response(204, ResponseEnd::Complete);
                slot.endpoint.end_attempt(response, Duration::ZERO, 0, None);
                let error = AttemptOutcome::Error(ErrorKind::Timeout);
                slot.endpoint.end_attempt(error, Duration::ZERO, 0, None);
            }
        }
        let (upstreams, endpoints) = proxy.counters();
        let others = (upstreams.last().unwrap(), endpoints.last().unwrap());
        assert_eq!((upstreams.len(), endpoints.len()), (MAX_SERIES + 1, MAX_SERIES + 1));
        assert_eq!((others.0.upstream.as_str(), others.0.retries), (OTHER, 2 * 44));
        assert_eq!((others.1.endpoint.as_str(), others.1.responses[1], others.1.up), (OTHER, 344, 344));
        assert_eq!(others.1.errors[2], (ErrorKind::Timeout, 344));
        assert_eq!((endpoints[1].upstream.as_str(), endpoints[1].endpoint.as_str()), ("u000", "b"));
    }
}
