//! All that was ever counted, for whoever keeps figures over time.
//!
//! Endpoints stay apart up to a bound, in the order of their names; those beyond it are summed up as one. So what
//! reads them can tell each series apart, and has a bounded number of them.

use super::{
    Proxy,
    histogram::Counts,
    moment::Moment,
    upstream::{ErrorKind, Ineligible, Tried, Upstream},
};
use ringmaster_common::error::Code;
use std::{sync::atomic::Ordering::Relaxed, time::Duration};

/// How many upstreams, and how many endpoints of all of them together, are told apart.
pub const MAX_TOLD_APART: usize = 256;
/// What those beyond that are called.
pub const OTHER: &str = "other";
/// The bounds of latencies, in microseconds: half a millisecond, and four times as long each time. They lie where
/// buckets do.
pub const BOUNDS_MICROS: [u64; 8] = [1 << 9, 1 << 11, 1 << 13, 1 << 15, 1 << 17, 1 << 19, 1 << 21, 1 << 23];

/// Of one upstream, or of several.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTotals {
    pub upstream: String,
    pub retries: u64,
    pub turned_away: u64,
    pub clients_gone: u64,
}

/// Of one endpoint, or of several.
#[derive(Clone, Debug)]
pub struct EndpointTotals {
    pub upstream: String,
    pub endpoint: String,
    /// Answers, by the first digit of their status, from 1 on.
    pub answers: [u64; 5],
    pub errors: [(ErrorKind, u64); ErrorKind::ALL.len()],
    pub latency: Counts,
    pub in_flight: u64,
    /// How many of them take requests.
    pub up: u64,
    pub ejected: u64,
}

impl EndpointTotals {
    fn of(upstream: &Upstream, seat: usize, now: Moment) -> EndpointTotals {
        let endpoint = &upstream.seats[seat].endpoint;
        let why_ineligible = upstream.why_ineligible(seat, &Tried::default(), now);
        EndpointTotals {
            upstream: upstream.name.clone(),
            endpoint: endpoint.id.clone(),
            answers: endpoint.answers(),
            errors: ErrorKind::ALL.map(|kind| (kind, endpoint.errors(kind))),
            latency: endpoint.latency.ever(),
            in_flight: endpoint.in_flight.load(Relaxed).into(),
            up: u64::from(matches!(why_ineligible, None | Some(Ineligible::Full))),
            ejected: u64::from(endpoint.ejected_for(now).is_some_and(|left| left > Duration::ZERO)),
        }
    }

    fn add(&mut self, other: &EndpointTotals) {
        for (count, more) in self.answers.iter_mut().zip(other.answers) {
            *count += more;
        }
        for ((_, count), (_, more)) in self.errors.iter_mut().zip(other.errors) {
            *count += more;
        }
        self.latency.add(&other.latency);
        self.in_flight += other.in_flight;
        self.up += other.up;
        self.ejected += other.ejected;
    }
}

impl Proxy {
    /// Requests that were refused before an endpoint was looked for, by why.
    pub fn refusals(&self) -> impl Iterator<Item = (Code, u64)> {
        self.0.refusals.counts()
    }

    /// Since this node began to serve each of them.
    pub fn totals(&self) -> (Vec<UpstreamTotals>, Vec<EndpointTotals>) {
        let (table, now) = (self.0.table.load_full(), Moment::now());
        let (mut upstreams, mut endpoints) = (Vec::<UpstreamTotals>::new(), Vec::<EndpointTotals>::new());
        for upstream in table.upstreams() {
            let standing = &upstream.standing;
            let totals = UpstreamTotals {
                upstream: upstream.name.clone(),
                retries: standing.retries.load(Relaxed),
                turned_away: standing.turned_away.load(Relaxed),
                clients_gone: standing.clients_gone.load(Relaxed),
            };
            let told_apart = upstreams.len() < MAX_TOLD_APART;
            match upstreams.get_mut(MAX_TOLD_APART) {
                None if told_apart => upstreams.push(totals),
                None => upstreams.push(UpstreamTotals { upstream: OTHER.to_owned(), ..totals }),
                Some(others) => {
                    others.retries += totals.retries;
                    others.turned_away += totals.turned_away;
                    others.clients_gone += totals.clients_gone;
                }
            }
            for seat in 0..upstream.seats.len() {
                let totals = EndpointTotals::of(upstream, seat, now);
                let told_apart = endpoints.len() < MAX_TOLD_APART;
                match endpoints.get_mut(MAX_TOLD_APART) {
                    None if told_apart => endpoints.push(totals),
                    None => {
                        let (upstream, endpoint) = (OTHER.to_owned(), OTHER.to_owned());
                        endpoints.push(EndpointTotals { upstream, endpoint, ..totals });
                    }
                    Some(others) => others.add(&totals),
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
        upstream::{Outcome, tests::upstream},
    };
    use ringmaster_common::id::NodeId;

    #[tokio::test]
    async fn what_is_beyond_the_bound_is_summed_up() {
        let settings =
            Settings { node: NodeId(1), listen: None, data_dir: None, workers: Some(1), connections: 100 };
        let proxy = Proxy::start(settings).unwrap();
        let all: Vec<_> = (0..300).map(|n| upstream(&format!("u{n:03}"), &[("a", 1), ("b", 1)])).collect();
        proxy.set_table(all.iter(), [].into_iter());
        for upstream in proxy.0.table.load().upstreams() {
            upstream.standing.retries.store(2, Relaxed);
            for seat in &upstream.seats {
                seat.endpoint.count(Outcome::Answered(204));
                seat.endpoint.count(Outcome::Failed(ErrorKind::TimedOut));
            }
        }
        let (upstreams, endpoints) = proxy.totals();
        let others = (upstreams.last().unwrap(), endpoints.last().unwrap());
        assert_eq!((upstreams.len(), endpoints.len()), (MAX_TOLD_APART + 1, MAX_TOLD_APART + 1));
        assert_eq!((others.0.upstream.as_str(), others.0.retries), (OTHER, 2 * 44));
        assert_eq!((others.1.endpoint.as_str(), others.1.answers[1], others.1.up), (OTHER, 344, 344));
        assert_eq!(others.1.errors[2], (ErrorKind::TimedOut, 344));
        assert_eq!((endpoints[1].upstream.as_str(), endpoints[1].endpoint.as_str()), ("u000", "b"));
    }
}
