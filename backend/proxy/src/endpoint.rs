//! An endpoint as this node's proxy knows it: what is in flight there, its counters and latencies, the verdict of this
//! node's health check, and its pool of connections.
//!
//! All of it outlives a new routing table, as long as the endpoint keeps its upstream, id and address. What a request
//! touches here are atomics, and the pool of its own worker.

use crate::{
    coarse_clock::CoarseInstant,
    ewma::PeakEwma,
    hash::hash,
    last_heartbeat::LastHeartbeat,
    outcome::{AttemptOutcome, ErrorKind, ResponseEnd},
    pool::{Connection, Pool},
};
use ringmaster_common::traffic::{health::Verdict, warnings::RECENT_S};
use ringmaster_net::histogram::WindowedHistogram;
use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

#[derive(Debug)]
pub struct Endpoint {
    pub id: String,
    pub addr: String,
    /// The value of the sticky cookie that names this endpoint. It holds nothing else.
    pub token: u64,
    /// Requests, or connections of plain TCP.
    pub in_flight: AtomicU32,
    /// Responses, by the first digit of their status.
    classes: [AtomicU64; 5],
    errors: [AtomicU64; ErrorKind::ALL.len()],
    /// Requests that were sent here again, on a new connection, because the connection before had been closed.
    pub resends: AtomicU64,
    pub latency: WindowedHistogram,
    pub ewma: PeakEwma,
    pub consecutive_failures: AtomicU32,
    /// When an ejection ends, as a [`CoarseInstant`].
    pub ejected_until: AtomicU64,
    /// How often the endpoint was ejected, less one for each period without failures.
    pub ejections: AtomicU32,
    /// When the endpoint began to be eligible, as a [`CoarseInstant`]; 0: it needs no slow start.
    pub ready_since: AtomicU64,
    /// When what is in flight is cut off, as a [`CoarseInstant`].
    drain_deadline: AtomicU64,
    unhealthy: AtomicBool,
    healthy: AtomicBool,
    /// The present check has had a result.
    checked: AtomicBool,
    opinion: Mutex<Opinion>,
    pub last_heartbeat: LastHeartbeat,
    pub pool: Pool,
    pub reported: Mutex<Reported>,
}

/// What this node's own health check says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opinion {
    pub verdict: Verdict,
    pub detail: String,
    /// Which check says so.
    checker: u64,
}

/// The counts of the last report, for rates.
#[derive(Debug, Default)]
pub struct Reported {
    pub at: CoarseInstant,
    pub requests: u64,
    pub failures: u64,
    faults: u64,
    /// Requests and faults of the reports before, the latest last.
    before: VecDeque<(u64, u64)>,
}

impl Reported {
    /// Takes in the counts of now, once a second. Returns the requests and faults of the last [`RECENT_S`] seconds.
    pub fn update(&mut self, now: CoarseInstant, endpoint: &Endpoint) -> (u64, u64) {
        self.before.push_back((self.requests, self.faults));
        if self.before.len() > RECENT_S {
            self.before.pop_front();
        }
        self.at = now;
        (self.requests, self.failures, self.faults) =
            (endpoint.requests(), endpoint.failures(), endpoint.faults());
        let (first, failed_first) = self.before.front().copied().unwrap_or_default();
        (self.requests.saturating_sub(first), self.faults.saturating_sub(failed_first))
    }
}

impl Endpoint {
    pub fn new(upstream: &str, id: &str, addr: &str, workers: usize) -> Endpoint {
        Endpoint {
            id: id.to_owned(),
            addr: addr.to_owned(),
            token: hash(format!("{upstream}/{id}").as_bytes()),
            in_flight: AtomicU32::new(0),
            classes: Default::default(),
            errors: Default::default(),
            resends: AtomicU64::new(0),
            latency: WindowedHistogram::default(),
            ewma: PeakEwma::default(),
            consecutive_failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            ready_since: AtomicU64::new(0),
            drain_deadline: AtomicU64::new(0),
            unhealthy: AtomicBool::new(false),
            healthy: AtomicBool::new(false),
            checked: AtomicBool::new(false),
            opinion: Mutex::default(),
            last_heartbeat: LastHeartbeat::default(),
            pool: Pool::new(addr, workers),
            reported: Mutex::default(),
        }
    }

    /// Records the end of an attempt, and keeps its connection for another request of this worker. Returns the number of
    /// consecutive failures if it is one.
    pub fn end_attempt(
        &self,
        outcome: AttemptOutcome,
        latency: Duration,
        worker: usize,
        idle: Option<Connection>,
    ) -> Option<u32> {
        match outcome {
            AttemptOutcome::Response(status, end) => {
                self.classes[usize::from(status / 100).clamp(1, 5) - 1].fetch_add(1, Relaxed);
                match end {
                    // A response of 500 or above is a failure already.
                    ResponseEnd::Truncated if status < 500 => {
                        self.errors[ErrorKind::Truncated as usize].fetch_add(1, Relaxed);
                    }
                    ResponseEnd::TimedOut => {
                        self.errors[ErrorKind::IdleTimeout as usize].fetch_add(1, Relaxed);
                    }
                    ResponseEnd::Truncated | ResponseEnd::Complete | ResponseEnd::Abandoned => {}
                }
            }
            AttemptOutcome::Error(kind) => {
                self.errors[kind as usize].fetch_add(1, Relaxed);
            }
        }
        self.latency.record(latency.as_micros() as u64);
        let failures = outcome.is_failure().then(|| self.consecutive_failures.fetch_add(1, Relaxed) + 1);
        let is_success = matches!(outcome, AttemptOutcome::Response(_, ResponseEnd::Complete));
        if failures.is_none() && is_success && self.consecutive_failures.load(Relaxed) != 0 {
            self.consecutive_failures.store(0, Relaxed);
        }
        if let Some(connection) = idle {
            self.pool.keep_idle(worker, connection);
        }
        failures
    }

    /// Responses, by the first digit of their status, from 1 on.
    pub fn responses(&self) -> [u64; 5] {
        self.classes.each_ref().map(|count| count.load(Relaxed))
    }

    pub fn errors(&self, kind: ErrorKind) -> u64 {
        self.errors[kind as usize].load(Relaxed)
    }

    /// Requests that ended, with a response or without.
    pub fn requests(&self) -> u64 {
        self.responses().iter().sum::<u64>() + self.sum_errors(|kind| !kind.has_response())
    }

    /// Responses of 500 and above, truncated responses, and requests without a response.
    pub fn failures(&self) -> u64 {
        self.responses()[4] + self.sum_errors(|kind| kind != ErrorKind::IdleTimeout)
    }

    /// Of these, the ones that the endpoint or the path to it is to blame for.
    pub fn faults(&self) -> u64 {
        self.responses()[4] + self.sum_errors(ErrorKind::is_fault)
    }

    fn sum_errors(&self, counts: impl Fn(ErrorKind) -> bool) -> u64 {
        ErrorKind::ALL.into_iter().filter(|kind| counts(*kind)).map(|kind| self.errors(kind)).sum()
    }

    /// Whether this node's own check found it unhealthy.
    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Relaxed)
    }

    /// Whether this node's own check found it healthy.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    /// Whether its present check has had a result, good or bad.
    pub fn is_checked(&self) -> bool {
        self.checked.load(Relaxed)
    }

    /// The check had a result. Results of earlier checks are ignored.
    pub fn set_checked(&self, checker: u64) {
        let opinion = self.opinion.lock().unwrap_or_else(PoisonError::into_inner);
        if opinion.checker == checker {
            self.checked.store(true, Relaxed);
        }
    }

    pub fn opinion(&self) -> Opinion {
        self.opinion.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on opinions of earlier checks are ignored, however late they come. Returns the id for the next check.
    pub fn next_checker(&self) -> u64 {
        let mut opinion = self.opinion.lock().unwrap_or_else(PoisonError::into_inner);
        self.checked.store(false, Relaxed);
        opinion.checker += 1;
        opinion.checker
    }

    /// Returns whether the verdict changed.
    pub fn set_opinion(&self, checker: u64, verdict: Verdict, detail: String) -> bool {
        let mut opinion = self.opinion.lock().unwrap_or_else(PoisonError::into_inner);
        if opinion.checker != checker {
            return false;
        }
        if opinion.verdict == verdict {
            // The detail may change with each check; only changes of the verdict are published.
            opinion.detail = detail;
            return false;
        }
        if opinion.verdict == Verdict::Unhealthy {
            self.ready_since.store(CoarseInstant::now().0, Relaxed);
        }
        *opinion = Opinion { verdict, detail, checker };
        self.unhealthy.store(verdict == Verdict::Unhealthy, Relaxed);
        self.healthy.store(verdict == Verdict::Healthy, Relaxed);
        true
    }

    /// How much longer it is ejected.
    pub fn ejected_for(&self, now: CoarseInstant) -> Option<Duration> {
        match self.ejected_until.load(Relaxed) {
            0 => None,
            until => now.until(CoarseInstant(until)),
        }
    }

    /// From `deadline` on what is in flight is cut off; none: it may take its time.
    pub fn set_drain_deadline(&self, deadline: Option<CoarseInstant>) {
        let at = deadline.unwrap_or_default().0;
        let known = self.drain_deadline.load(Relaxed);
        // The earliest deadline holds: a routing table that repeats it prolongs nothing.
        if at == 0 || known == 0 || at < known {
            self.drain_deadline.store(at, Relaxed);
        }
    }

    /// Whether it receives no new requests, and what is in flight may end.
    pub fn is_draining(&self) -> bool {
        self.drain_deadline.load(Relaxed) != 0
    }

    pub fn is_past_drain_deadline(&self, now: CoarseInstant) -> bool {
        let at = self.drain_deadline.load(Relaxed);
        at != 0 && now.0 >= at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_deadline_is_not_prolonged() {
        let endpoint = Endpoint::new("u", "e", "127.0.0.1:1", 1);
        endpoint.set_drain_deadline(Some(CoarseInstant(100)));
        endpoint.set_drain_deadline(Some(CoarseInstant(200)));
        assert!(
            !endpoint.is_past_drain_deadline(CoarseInstant(99))
                && endpoint.is_past_drain_deadline(CoarseInstant(100))
        );
        endpoint.set_drain_deadline(None);
        assert!(!endpoint.is_past_drain_deadline(CoarseInstant(300)));
    }

    #[test]
    fn a_check_that_another_one_replaced_is_ignored() {
        let endpoint = Endpoint::new("u", "e", "127.0.0.1:1", 1);
        let (replaced, present) = (endpoint.next_checker(), endpoint.next_checker());
        assert!(!endpoint.set_opinion(replaced, Verdict::Healthy, String::new()));
        endpoint.set_checked(replaced);
        assert!(!endpoint.is_checked() && !endpoint.is_healthy());
        assert!(endpoint.set_opinion(present, Verdict::Healthy, String::new()));
        endpoint.set_checked(present);
        assert!(endpoint.is_checked() && endpoint.is_healthy());
        endpoint.next_checker();
        assert!(!endpoint.is_checked(), "the next one has had no result yet");
    }
}
