//! Counters since the start of this node, for a monitoring system.
//!
//! Upstreams and endpoints have series of their own up to a bound; those beyond it are summed up as one series. So the
//! number of series is bounded.

mod series;

use self::series::{Counted, Series};
pub use crate::outcome::ErrorKind;
use crate::{
    Proxy,
    coarse_clock::CoarseInstant,
    selection::{Ineligible, SlotSet},
    upstream::Upstream,
};
use ringmaster_net::histogram::Counts;
use std::{
    sync::{Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

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
    pub latency: Latency,
    pub in_flight: u64,
    /// How many of them are eligible.
    pub up: u64,
    pub ejected: u64,
}

/// How long requests took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// The number of requests up to each of [`BOUNDS_MICROS`] and above the one before.
    pub within: [u64; BOUNDS_MICROS.len()],
    /// The number of those above all bounds.
    pub longer: u64,
    pub sum_micros: u64,
}

impl Latency {
    fn of(counts: &Counts) -> Latency {
        let (within, longer) = counts.between(BOUNDS_MICROS);
        Latency { within, longer, sum_micros: counts.sum_micros() }
    }

    fn add(&mut self, other: &Latency) {
        for (count, more) in self.within.iter_mut().zip(other.within) {
            *count += more;
        }
        self.longer += other.longer;
        self.sum_micros += other.sum_micros;
    }
}

type OfUpstreams = Series<String, UpstreamCounters>;
/// By upstream and endpoint.
type OfEndpoints = Series<(String, String), EndpointCounters>;

/// The series of this node's metrics.
#[derive(Debug, Default)]
pub struct AllSeries(Mutex<(OfUpstreams, OfEndpoints)>);

impl Counted for UpstreamCounters {
    fn add(&mut self, other: &UpstreamCounters) {
        self.retries += other.retries;
        self.no_endpoint += other.no_endpoint;
        self.client_disconnects += other.client_disconnects;
    }

    fn of_the_past(&self) -> UpstreamCounters {
        self.clone()
    }

    fn count(&self) -> u64 {
        self.retries + self.no_endpoint + self.client_disconnects
    }
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
            latency: Latency::of(&endpoint.latency.total()),
            in_flight: endpoint.in_flight.load(Relaxed).into(),
            up: u64::from(matches!(why_ineligible, None | Some(Ineligible::Full))),
            ejected: u64::from(endpoint.ejected_for(now).is_some_and(|left| left > Duration::ZERO)),
        }
    }
}

impl Counted for EndpointCounters {
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

    fn of_the_past(&self) -> EndpointCounters {
        EndpointCounters { in_flight: 0, up: 0, ejected: 0, ..self.clone() }
    }

    fn count(&self) -> u64 {
        let errors: u64 = self.errors.iter().map(|(_, count)| count).sum();
        self.responses.iter().sum::<u64>() + errors
    }
}

impl Proxy {
    /// Since this node has had each of them in its routing table.
    pub fn counters(&self) -> (Vec<UpstreamCounters>, Vec<EndpointCounters>) {
        // Before the table is read: two at once must not count by an older table after a newer one.
        let mut series = self.0.series.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (table, now) = (self.table(), CoarseInstant::now());
        let upstreams = table.upstreams().map(|upstream| {
            let stats = &upstream.stats;
            let counters = UpstreamCounters {
                upstream: upstream.name.clone(),
                retries: stats.retries.load(Relaxed),
                no_endpoint: stats.no_endpoint.load(Relaxed),
                client_disconnects: stats.client_disconnects.load(Relaxed),
            };
            (upstream.name.clone(), counters)
        });
        let endpoints = table.upstreams().flat_map(|upstream| {
            (0..upstream.slots.len()).map(move |slot| {
                let counters = EndpointCounters::of(upstream, slot, now);
                ((counters.upstream.clone(), counters.endpoint.clone()), counters)
            })
        });
        let (mut upstreams, others) = series.0.update(upstreams, MAX_SERIES);
        upstreams.extend(others.map(|others| UpstreamCounters { upstream: OTHER.to_owned(), ..others }));
        let (mut endpoints, others) = series.1.update(endpoints, MAX_SERIES);
        let named =
            |others| EndpointCounters { upstream: OTHER.to_owned(), endpoint: OTHER.to_owned(), ..others };
        endpoints.extend(others.map(named));
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
