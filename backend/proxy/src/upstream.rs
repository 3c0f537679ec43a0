//! An upstream as the proxy uses it: its configuration, a seat for each endpoint, and what outlives
//! a new routing table.
//!
//! A seat says who may be chosen. It is closed to who is drained, in maintenance or unhealthy (by the
//! cluster's verdict or by this node's own), who has all that it may have under way, who stands by,
//! and to who is ejected for failures. The last is only an opinion: where everybody else is left out,
//! an ejected endpoint is better than none.

use super::{decisions::Decisions, endpoint::Endpoint, moment::Moment};
use ringmaster_common::traffic::{
    health::Verdict,
    upstream::{self as traffic, Configured, EndpointState, Upstream as Configuration},
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// How many retries there are at the most at once, whatever came before.
const MAX_RETRY_TOKENS: i64 = 200;
/// So many retries a second are allowed where there are hardly any requests.
const MIN_RETRIES_PER_S: i64 = 10;

#[derive(Debug)]
pub struct Upstream {
    pub name: String,
    /// Without its endpoints, which have [`Upstream::seats`].
    pub config: Configured<traffic::Endpoint>,
    pub seats: Vec<Seat>,
    /// Where there is one primary: its seat, if anybody is.
    pub primary: Option<Option<usize>>,
    /// What endpoints are told where there is one primary.
    pub epoch: Option<String>,
    pub standing: Arc<Standing>,
}

#[derive(Debug)]
pub struct Seat {
    pub endpoint: Arc<Endpoint>,
    pub weight: u32,
    pub state: EndpointState,
    pub verdict: Verdict,
}

/// What outlives a routing table.
#[derive(Debug)]
pub struct Standing {
    /// Whose turn it is.
    pub cursor: AtomicUsize,
    /// What each seat is owed, for a smooth weighted round robin.
    pub owed: Mutex<Vec<i64>>,
    retry_tokens: AtomicI64,
    requests_seen: AtomicU64,
    pub retries: AtomicU64,
    pub retries_told: AtomicU64,
    /// Requests that no endpoint was there for.
    pub turned_away: AtomicU64,
    pub turned_away_told: AtomicU64,
    /// Requests whose client did not wait for the answer.
    pub clients_gone: AtomicU64,
    pub decisions: Decisions,
    ejecting: Mutex<()>,
}

impl Default for Standing {
    fn default() -> Self {
        Standing {
            cursor: AtomicUsize::default(),
            owed: Mutex::default(),
            retry_tokens: AtomicI64::new(MAX_RETRY_TOKENS),
            requests_seen: AtomicU64::default(),
            retries: AtomicU64::default(),
            retries_told: AtomicU64::default(),
            turned_away: AtomicU64::default(),
            turned_away_told: AtomicU64::default(),
            clients_gone: AtomicU64::default(),
            decisions: Decisions::default(),
            ejecting: Mutex::default(),
        }
    }
}

/// Why an endpoint cannot be chosen. In the order in which it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ineligible {
    Standby,
    Drained,
    Maintenance,
    Unhealthy,
    Full,
    Tried,
    Ejected,
}

impl Ineligible {
    pub fn as_str(self) -> &'static str {
        match self {
            Ineligible::Standby => "standing by",
            Ineligible::Drained => "drained",
            Ineligible::Maintenance => "in maintenance",
            Ineligible::Unhealthy => "unhealthy",
            Ineligible::Full => "at its limit of requests",
            Ineligible::Tried => "tried before",
            Ineligible::Ejected => "ejected",
        }
    }
}

/// The seats that a request has been sent to without success: a bit for each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried([u64; 4]);

impl Tried {
    pub fn add(&mut self, seat: usize) {
        self.0[seat / 64 % 4] |= 1 << (seat % 64);
    }

    pub fn has(&self, seat: usize) -> bool {
        self.0[seat / 64 % 4] & 1 << (seat % 64) != 0
    }
}

/// Nobody is left to take a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nobody(pub String);

impl fmt::Display for Nobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a request went, as far as its endpoint is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this status.
    Answered(u16),
    Failed(ErrorKind),
}

/// Why an endpoint did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    Unreached,
    Unanswered,
    TimedOut,
    Untrusted,
    /// It did answer, but not to the end.
    BrokenOff,
}

impl ErrorKind {
    pub const ALL: [ErrorKind; 5] = [
        ErrorKind::Unreached,
        ErrorKind::Unanswered,
        ErrorKind::TimedOut,
        ErrorKind::Untrusted,
        ErrorKind::BrokenOff,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Unreached => "connect_failed",
            ErrorKind::Unanswered => "no_response",
            ErrorKind::TimedOut => "timed_out",
            ErrorKind::Untrusted => "invalid_response",
            ErrorKind::BrokenOff => "truncated",
        }
    }
}

impl Outcome {
    /// Whether it speaks for ejecting the endpoint: no connection, no answer, or one of 502, 503 and 504.
    fn is_bad(self) -> bool {
        matches!(self, Outcome::Failed(_) | Outcome::Answered(502..=504))
    }
}

impl Upstream {
    pub fn compile(from: &Configuration, previous: Option<&Upstream>, workers: usize) -> Upstream {
        let known: BTreeMap<_, _> = previous
            .iter()
            .flat_map(|upstream| &upstream.seats)
            .map(|seat| ((seat.endpoint.id.as_str(), seat.endpoint.addr.as_str()), seat))
            .collect();
        let now = Moment::now();
        // Of whom there is to be one, only that one goes on for long.
        let stands_by = |endpoint: &traffic::Endpoint| {
            from.config.active_standby.is_some()
                && from.primary.as_ref().and_then(|primary| primary.endpoint.as_ref()) != Some(&endpoint.id)
        };
        let seats: Vec<_> = from
            .config
            .endpoints
            .iter()
            .map(|configured| {
                let before = known.get(&(configured.id.as_str(), configured.addr.as_str()));
                let endpoint = match before {
                    Some(seat) => seat.endpoint.clone(),
                    None => Arc::new(Endpoint::new(&from.name, &configured.id, &configured.addr, workers)),
                };
                let takes = configured.state == EndpointState::Ready
                    && configured.health.verdict != Verdict::Unhealthy;
                let took = before.is_some_and(|seat| {
                    seat.state == EndpointState::Ready && seat.verdict != Verdict::Unhealthy
                });
                // Of the first table everybody is old: nobody was there to compare with.
                if takes && !took && previous.is_some() {
                    endpoint.ready_since.store(now.0, Relaxed);
                }
                let goes_on = configured.state == EndpointState::Ready && !stands_by(configured);
                endpoint.cut_at((!goes_on).then(|| now.after(Duration::from_millis(from.config.drain_ms))));
                Seat {
                    endpoint,
                    weight: configured.weight,
                    state: configured.state,
                    verdict: configured.health.verdict,
                }
            })
            .collect();
        let standing = previous.map_or_else(Arc::default, |upstream| upstream.standing.clone());
        let ids = |seats: &[Seat]| seats.iter().map(|seat| seat.endpoint.token).collect::<Vec<_>>();
        if previous.is_some_and(|previous| ids(&previous.seats) != ids(&seats)) {
            standing.owed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        let primary = from.config.active_standby.as_ref().map(|_| {
            let id = from.primary.as_ref()?.endpoint.as_ref()?;
            seats.iter().position(|seat| seat.endpoint.id == *id)
        });
        let epoch = from
            .config
            .active_standby
            .as_ref()
            .and(from.primary.as_ref())
            .map(|primary| primary.epoch.to_string());
        let config = from.config.clone().with_endpoints(Vec::new());
        Upstream { name: from.name.clone(), config, seats, primary, epoch, standing }
    }

    /// Why a seat cannot be chosen, if so.
    pub fn why_ineligible(&self, seat: usize, tried: &Tried, now: Moment) -> Option<Ineligible> {
        let Seat { endpoint, state, verdict, .. } = &self.seats[seat];
        // Who is primary, and how it is, is decided by the cluster alone: no node turns away from it by itself.
        let is_primary = self.primary == Some(Some(seat));
        match state {
            _ if self.primary.is_some() && !is_primary => Some(Ineligible::Standby),
            EndpointState::Drain => Some(Ineligible::Drained),
            EndpointState::Maintenance => Some(Ineligible::Maintenance),
            EndpointState::Ready
                if *verdict == Verdict::Unhealthy || !is_primary && endpoint.seems_unhealthy() =>
            {
                Some(Ineligible::Unhealthy)
            }
            EndpointState::Ready if endpoint.in_flight.load(Relaxed) >= self.config.max_in_flight => {
                Some(Ineligible::Full)
            }
            EndpointState::Ready if tried.has(seat) => Some(Ineligible::Tried),
            EndpointState::Ready if is_primary => None,
            EndpointState::Ready => endpoint.ejected_for(now).map(|_| Ineligible::Ejected),
        }
    }

    /// What became of all who could have taken a request: `3 endpoints: 2 unhealthy, 1 drained`.
    pub fn nobody(&self, tried: &Tried, now: Moment) -> Nobody {
        if self.seats.is_empty() {
            return Nobody(format!("upstream {} has no endpoints", self.name));
        }
        let mut counts: BTreeMap<Ineligible, usize> = BTreeMap::new();
        for why in (0..self.seats.len()).filter_map(|seat| self.why_ineligible(seat, tried, now)) {
            *counts.entry(why).or_default() += 1;
        }
        let reasons: Vec<_> = counts.iter().map(|(why, count)| format!("{count} {}", why.as_str())).collect();
        let plural = if self.seats.len() == 1 { "" } else { "s" };
        let primary = if self.primary == Some(None) { ", and none is primary" } else { "" };
        Nobody(format!(
            "upstream {} has {} endpoint{plural}: {}{primary}",
            self.name,
            self.seats.len(),
            reasons.join(", ")
        ))
    }

    /// A seat's weight by now, in hundredths: a newcomer's grows.
    pub fn weight(&self, seat: usize, now: Moment) -> u32 {
        let Seat { endpoint, weight, .. } = &self.seats[seat];
        weight * self.share(endpoint, now)
    }

    /// How much of its share an endpoint gets, in per cent.
    pub fn share(&self, endpoint: &Endpoint, now: Moment) -> u32 {
        /// What a newcomer begins with: without any request it would never warm up.
        const FIRST: u64 = 10;
        let since = endpoint.ready_since.load(Relaxed);
        if self.config.slow_start_ms == 0 || since == 0 {
            return 100;
        }
        let age = now.0.saturating_sub(since) / 1_000;
        (age * 100 / self.config.slow_start_ms).clamp(FIRST, 100) as u32
    }

    /// Takes down how an attempt went.
    pub fn note(&self, seat: usize, outcome: Outcome, took: Duration, now: Moment) {
        let endpoint = &self.seats[seat].endpoint;
        endpoint.count(outcome);
        endpoint.latency.record(took.as_micros() as u64);
        if self.config.policy == traffic::Policy::P2cEwma {
            endpoint.ewma.observe(took, now);
        }
        if outcome.is_bad() {
            self.fails(seat, now);
        }
    }

    /// An answer has come to its end.
    pub fn went_well(&self, seat: usize, outcome: Outcome) {
        let failing = &self.seats[seat].endpoint.failing;
        if !outcome.is_bad() && failing.load(Relaxed) != 0 {
            failing.store(0, Relaxed);
        }
    }

    /// An answer has not. What was a failure already counts once.
    pub fn broke_off(&self, seat: usize, outcome: Outcome, now: Moment) {
        if !matches!(outcome, Outcome::Answered(500..)) {
            self.seats[seat].endpoint.count(Outcome::Failed(ErrorKind::BrokenOff));
        }
        if !outcome.is_bad() {
            self.fails(seat, now);
        }
    }

    /// Leaves out who keeps failing.
    fn fails(&self, seat: usize, now: Moment) {
        let endpoint = &self.seats[seat].endpoint;
        let failures = endpoint.failing.fetch_add(1, Relaxed) + 1;
        let enough = self.config.outlier_ejection.consecutive_failures;
        if enough > 0 && failures >= enough {
            self.eject(seat, now);
        }
    }

    fn eject(&self, seat: usize, now: Moment) {
        let outliers = &self.config.outlier_ejection;
        let endpoint = &self.seats[seat].endpoint;
        let _one_at_a_time = self.standing.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let ejected = self.seats.iter().filter(|seat| seat.endpoint.ejected_for(now).is_some()).count();
        let allowed = (self.seats.len() * outliers.max_ejected_percent as usize / 100).max(1);
        let others = (0..self.seats.len())
            .any(|other| other != seat && self.why_ineligible(other, &Tried::default(), now).is_none());
        if outliers.max_ejected_percent == 0
            || endpoint.ejected_for(now).is_some()
            || ejected >= allowed
            || !others
        {
            return;
        }
        let times = endpoint.ejections.fetch_add(1, Relaxed);
        let wait = Duration::from_millis(ejection_ms(outliers, times));
        let until = now.after(wait);
        endpoint.failing.store(0, Relaxed);
        endpoint.ejected_until.store(until.0, Relaxed);
        endpoint.ready_since.store(until.0, Relaxed);
        tracing::info!(
            upstream = self.name,
            endpoint = endpoint.id,
            for_ms = wait.as_millis() as u64,
            "ejected: it keeps failing"
        );
    }

    /// Whether one more retry is within the budget; takes it out.
    pub fn may_retry(&self) -> bool {
        let tokens = &self.standing.retry_tokens;
        let taken = tokens.fetch_update(Relaxed, Relaxed, |left| (left > 0).then(|| left - 1)).is_ok();
        if taken {
            self.standing.retries.fetch_add(1, Relaxed);
        }
        taken
    }

    /// Once a second: fills the budget of retries up, forgets old ejections, closes what nobody needs.
    pub fn tick(&self, now: Moment) {
        let requests: u64 = self.seats.iter().map(|seat| seat.endpoint.requests()).sum();
        let before = self.standing.requests_seen.swap(requests, Relaxed);
        let earned = requests.saturating_sub(before) * u64::from(self.config.retries.budget_percent) / 100;
        let earned =
            if self.config.retries.budget_percent == 0 { 0 } else { (earned as i64).max(MIN_RETRIES_PER_S) };
        let tokens = &self.standing.retry_tokens;
        let fill = |left: i64| Some((left + earned).min(MAX_RETRY_TOKENS));
        let _ = tokens.fetch_update(Relaxed, Relaxed, fill);
        for Seat { endpoint, .. } in &self.seats {
            endpoint.close_idle(now);
            let (times, until) = (endpoint.ejections.load(Relaxed), endpoint.ejected_until.load(Relaxed));
            let good_for = now.since(Moment(until));
            let last = ejection_ms(&self.config.outlier_ejection, times.saturating_sub(1));
            if times > 0 && now.0 > until && good_for > Duration::from_millis(2 * last) {
                endpoint.ejections.store(times - 1, Relaxed);
                endpoint.ejected_until.store(now.0, Relaxed);
            }
        }
    }
}

/// How long the ejection after so many others takes.
fn ejection_ms(outliers: &traffic::OutlierEjection, times: u32) -> u64 {
    outliers.base_ms.saturating_mul(1 << times.min(30)).min(outliers.max_ms)
}

#[cfg(test)]
pub mod tests;
