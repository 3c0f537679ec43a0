//! Forwarding: sends a request to one endpoint after another until one responds. The same for all protocols.
//!
//! A connection says how it makes one attempt ([`Exchange`]). What is decided here: whether a failed request is sent
//! again and where, what the client gets if not, and what is recorded. A request is sent again only if the endpoint
//! cannot have seen it, or if seeing it twice changes nothing; and by the routing table of that time, not of the time
//! when the request came.
//!
//! An endpoint may close a connection at any time, and says of HTTP/2 streams which of them it has not processed. A
//! request that is lost so goes to the same endpoint again, on a new connection. That is no failure of the endpoint, and
//! no retry.
//!
//! What always holds: the outcome of a request is recorded once, at its end, and here.

use crate::{
    attempt::Attempt,
    coarse_clock::CoarseInstant,
    decisions,
    error::UpstreamError,
    outcome::{AttemptOutcome, ResponseEnd},
    pool::{Connection, reuse::Reuse},
    random::Random,
    selection::{Ineligible, SelectionHints, SlotSet},
    table::{Route, Table},
    upstream::{Slot, Upstream},
};
use arc_swap::ArcSwap;
use ringmaster_common::{
    duration,
    error::{Code, Refusal},
    id::NodeId,
    traffic::live::Decision,
};
use ringmaster_net::clock;
use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// The status of the access log for a client that disconnected. No client ever gets it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// How often a request is sent to the same endpoint again. On a new connection nothing comes before it, so once is enough
/// for an endpoint that serves requests at all; the second time is for one that closes that connection, too.
const MAX_RESENDS: u32 = 2;

/// How a connection of a client makes one attempt.
pub trait Exchange: Send {
    /// Sends the request to the endpoint, and its response to the client. An error means that the client got nothing
    /// of a final response.
    fn attempt(
        &mut self,
        attempt: &Attempt<'_>,
        reuse: Reuse,
    ) -> impl Future<Output = Result<Response, UpstreamError>> + Send;

    /// Whether an endpoint may see the request twice, and all of it is still there.
    fn may_repeat(&self) -> bool;

    /// What follows a response that switched protocols, after it was recorded.
    fn tunnel(&mut self, _attempt: &Attempt<'_>) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// A response that was begun.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// From the beginning of the attempt to the head of the response.
    pub latency: Duration,
    pub end: ResponseEnd,
    /// The endpoint's connection, if it takes another request.
    pub idle: Option<Connection>,
    /// A tunnel follows.
    pub is_switched: bool,
}

/// What became of a request.
#[derive(Debug)]
pub enum Forwarded {
    Responded(ResponseEnd),
    /// The client gets this from the proxy.
    Refused(Refusal),
    /// The client is gone.
    ClientClosed,
}

enum RetryDecision {
    Retry,
    Refuse(Refusal),
    ClientClosed,
}

/// A request on its way. `'r` is its connection's.
#[derive(Debug)]
pub struct Forwarding<'r> {
    route: &'r Route,
    hints: SelectionHints,
    client: IpAddr,
    /// Method and path, for people to read.
    line: &'r [u8],
    since: CoarseInstant,
    retries: u32,
    /// What the client gets if no further endpoint is eligible.
    last_refusal: Option<Refusal>,
    /// The endpoint of the last failed attempt, for people to read.
    failed_at: Option<String>,
    /// The upstream of a newer routing table.
    current: Option<Arc<Upstream>>,
}

impl<'r> Forwarding<'r> {
    pub fn new(route: &'r Route, hints: SelectionHints, client: IpAddr, line: &'r [u8]) -> Forwarding<'r> {
        Forwarding {
            route,
            hints,
            client,
            line,
            since: CoarseInstant::now(),
            retries: 0,
            last_refusal: None,
            failed_at: None,
            current: None,
        }
    }

    /// Runs until the request has an outcome. `tables` has the routing table of now.
    pub async fn run(
        mut self,
        exchange: &mut impl Exchange,
        worker: usize,
        tables: &ArcSwap<Table>,
        random: &mut Random,
    ) -> Forwarded {
        let route = self.route;
        let mut waited = false;
        loop {
            let current = self.current.clone();
            let upstream = current.as_deref().unwrap_or(&route.upstream);
            let now = CoarseInstant::now();
            let chosen = upstream.choose(&self.hints, worker, now, random.next());
            if chosen.is_err() && !waited && self.last_refusal.is_none() {
                waited = true;
                if upstream.first_check(&self.hints.tried).await {
                    continue;
                }
            }
            let mut attempt = match chosen {
                Ok(attempt) => attempt,
                Err(reasons) => {
                    let refusal = self.last_refusal.take().unwrap_or_else(|| {
                        upstream.stats.no_endpoint.fetch_add(1, Relaxed);
                        Refusal::new(Code::NoEndpoint, reasons.0)
                    });
                    return self.refuse(refusal);
                }
            };
            match self.at_endpoint(&mut attempt, exchange, tables).await {
                Ok(Response { status, latency, end, idle, is_switched }) => {
                    let outcome = AttemptOutcome::Response(status, end);
                    if let Some(failures) = attempt.endpoint().end_attempt(outcome, latency, worker, idle) {
                        upstream.eject_failing(attempt.choice.slot, failures, CoarseInstant::now());
                    }
                    self.record_end(status, Some(&attempt), end.detail());
                    if is_switched {
                        exchange.tunnel(&attempt).await;
                    }
                    return Forwarded::Responded(end);
                }
                Err(error) => match self.record_error(&attempt, error, exchange.may_repeat(), worker, tables)
                {
                    RetryDecision::Retry => {}
                    RetryDecision::Refuse(refusal) => return self.refuse(refusal),
                    RetryDecision::ClientClosed => return Forwarded::ClientClosed,
                },
            }
        }
    }

    /// Sends the request to one endpoint, and to the same one again if it cannot have seen it, or if its connection had been
    /// closed before and it may see it twice.
    async fn at_endpoint(
        &self,
        attempt: &mut Attempt<'_>,
        exchange: &mut impl Exchange,
        tables: &ArcSwap<Table>,
    ) -> Result<Response, UpstreamError> {
        let (mut reuse, mut resends) = (Reuse::Allowed, 0);
        loop {
            let error = match exchange.attempt(attempt, reuse).await {
                Err(error) => error,
                response => return response,
            };
            let is_lost = match &error {
                UpstreamError::Unprocessed(_) => true,
                UpstreamError::Stale(_) => exchange.may_repeat(),
                _ => false,
            };
            if !is_lost || resends == MAX_RESENDS || !is_still_eligible(attempt, &tables.load()) {
                return Err(error);
            }
            (reuse, resends) = (Reuse::Forbidden, resends + 1);
            attempt.endpoint().resends.fetch_add(1, Relaxed);
            attempt.restart();
        }
    }

    fn record_error(
        &mut self,
        attempt: &Attempt<'_>,
        error: UpstreamError,
        may_repeat: bool,
        worker: usize,
        tables: &ArcSwap<Table>,
    ) -> RetryDecision {
        let endpoint = attempt.endpoint();
        match error.kind() {
            Some(kind) => {
                let now = CoarseInstant::now();
                let took = now.since(attempt.since);
                attempt.observe_latency(took, now);
                let failures = endpoint.end_attempt(AttemptOutcome::Error(kind), took, worker, None);
                attempt.upstream.eject_failing(attempt.choice.slot, failures.unwrap_or_default(), now);
            }
            None if matches!(error, UpstreamError::ClientClosed) => {
                attempt.upstream.stats.client_disconnects.fetch_add(1, Relaxed);
                self.record_end(CLIENT_CLOSED_REQUEST, Some(attempt), "the client disconnected");
            }
            None => {}
        }
        let may_retry = match &error {
            UpstreamError::ConnectFailed(_) | UpstreamError::Unprocessed(_) => true,
            UpstreamError::NoResponse(_) | UpstreamError::Stale(_) => may_repeat,
            _ => false,
        };
        self.hints.tried.add(attempt.choice.slot);
        let retry = may_retry
            && self.retries < self.route.upstream.config.retries.attempts
            && self.follow_table(&tables.load())
            && self.take_retry();
        self.failed_at = Some(endpoint.id.clone());
        let refusal = error.into_refusal(&endpoint.id);
        if retry {
            self.retries += 1;
            self.last_refusal = refusal;
            return RetryDecision::Retry;
        }
        refusal.map_or(RetryDecision::ClientClosed, RetryDecision::Refuse)
    }

    fn take_retry(&self) -> bool {
        let stats = &self.route.upstream.stats;
        let taken = stats.retry_budget.take();
        if taken {
            stats.retries.fetch_add(1, Relaxed);
        }
        taken
    }

    /// Time has passed: the next endpoint is chosen by the routing table of now. False if a retry would need another
    /// head than the prepared one.
    fn follow_table(&mut self, table: &Table) -> bool {
        let known = self.current.as_ref().unwrap_or(&self.route.upstream);
        let Some(current) = table.upstream(&known.name) else { return false };
        if Arc::ptr_eq(current, known) {
            return true;
        }
        if current.epoch != known.epoch || current.config.protocol != known.config.protocol {
            return false;
        }
        let mut tried = SlotSet::default();
        for (at, slot) in current.slots.iter().enumerate() {
            let before = known.slots.iter().position(|other| Arc::ptr_eq(&other.endpoint, &slot.endpoint));
            if before.is_some_and(|before| self.hints.tried.has(before)) {
                tried.add(at);
            }
        }
        self.hints.tried = tried;
        self.current = Some(current.clone());
        true
    }

    fn refuse(&self, refusal: Refusal) -> Forwarded {
        self.record_end(refusal.code.status(), None, &refusal.detail);
        Forwarded::Refused(refusal)
    }

    /// The access log, and now and then a decision. `detail` says why there was no response of an endpoint.
    fn record_end(&self, status: u16, attempt: Option<&Attempt<'_>>, detail: &str) {
        let now = CoarseInstant::now();
        let upstream = &self.route.upstream;
        let went_wrong = attempt.is_none() || self.retries > 0 || status >= 500;
        let kept = &upstream.stats.decisions;
        let is_sampled = attempt.is_some_and(|attempt| attempt.considered.is_some());
        if is_sampled || went_wrong && kept.bad.is_due(decisions::INTERVAL, now) {
            kept.keep(self.decision(status, attempt, detail, now));
        }
        tracing::debug!(
            target: "ringmaster::access",
            client = %self.client,
            request = %String::from_utf8_lossy(self.line),
            route = self.route.name,
            upstream = upstream.name,
            endpoint = attempt.map_or("", |attempt| attempt.endpoint().id.as_str()),
            status,
            retries = self.retries,
            took_us = duration::micros(now.since(self.since)),
            detail,
        );
    }

    fn decision(
        &self,
        status: u16,
        attempt: Option<&Attempt<'_>>,
        detail: &str,
        now: CoarseInstant,
    ) -> Decision {
        let newest = self.current.as_deref().unwrap_or(&self.route.upstream);
        let upstream = attempt.map_or(newest, |attempt| attempt.upstream);
        let tried = attempt.map_or_else(SlotSet::default, |attempt| attempt.tried);
        let considered = attempt.and_then(|attempt| attempt.considered.clone()).unwrap_or_else(|| {
            let mut seen_now = upstream.candidates(&tried, now);
            seen_now.iter_mut().for_each(|candidate| candidate.weighed += " at the end of the request");
            seen_now
        });
        Decision {
            at: clock::wall(),
            // The node fills in its own id when it is asked.
            node: NodeId::default(),
            route: self.route.name.clone(),
            upstream: upstream.name.clone(),
            request: String::from_utf8_lossy(self.line).into_owned(),
            considered,
            chosen: attempt.map(|attempt| attempt.endpoint().id.clone()).or_else(|| self.failed_at.clone()),
            why: attempt.map_or_else(|| detail.to_owned(), |attempt| upstream.explain(attempt.choice.reason)),
            retries: self.retries,
            status,
            took_us: duration::micros(now.since(self.since)),
        }
    }
}

/// Whether the endpoint of a lost request may get it again, by the routing table of now: time has passed.
fn is_still_eligible(attempt: &Attempt<'_>, table: &Table) -> bool {
    let chosen = attempt.upstream;
    let Some(current) = table.upstream(&chosen.name) else { return false };
    let same = |slot: &Slot| std::ptr::eq(&*slot.endpoint, attempt.endpoint());
    let slot = current.slots.iter().position(same);
    // The request is in flight there itself, and an ejection is only an opinion.
    let may_have_it = |slot| {
        let why = current.why_ineligible(slot, &SlotSet::default(), CoarseInstant::now());
        matches!(why, None | Some(Ineligible::Full | Ineligible::Ejected))
    };
    current.epoch == chosen.epoch
        && current.config.protocol == chosen.config.protocol
        && slot.is_some_and(may_have_it)
}
