//! A request's way from endpoint to endpoint until one answers: what is decided alike in all protocols.
//!
//! Whoever serves a protocol asks for the next attempt, makes it, and says how it went. Whether it is made
//! again elsewhere, what the client is told, and what is counted and written down is said here. A request is
//! sent again only if the endpoint cannot have seen it, or if seeing it twice changes nothing; and to whom the routing
//! table of by then has, not of when it came.

use super::{
    answer::Refusal,
    attempt::Attempt,
    endpoint::Endpoint,
    moment::Moment,
    pick::Wish,
    table::{Route, Table},
    timer::Late,
    upstream::{ErrorKind, Tried, Upstream},
};
use arc_swap::ArcSwap;
use ringmaster_common::{duration, error::Code, id::NodeId, traffic::live::Decision};
use ringmaster_net::clock;
use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// What the access log says of a client that did not wait. No client ever reads it.
const CLIENT_GONE: u16 = 499;

#[derive(Debug)]
pub struct Course<'r> {
    route: &'r Route,
    wish: Wish,
    client: IpAddr,
    since: Moment,
    retries: u32,
    /// Why the attempt before came to nothing.
    last: Option<Refusal>,
    /// The endpoint of the last attempt that came to nothing, for people to read.
    failed_at: Option<String>,
    /// The upstream as it has become meanwhile.
    moved: Option<Arc<Upstream>>,
}

/// Why an attempt came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// The endpoint cannot have seen the request.
    Unreached(String),
    /// It may have seen it.
    Unanswered(String),
    TimedOut(String),
    /// The answer cannot be trusted.
    Untrusted(Refusal),
    /// The endpoint is drained, and time is up.
    Cut,
    /// It is not the endpoint's fault.
    Client(Refusal),
    ClientGone,
}

/// What follows from that.
#[derive(Debug)]
pub enum Then {
    /// Another attempt.
    Again,
    Refuse(Refusal),
    /// There is nobody to tell.
    Nothing,
}

impl Failure {
    pub fn late(late: Late, what: &str, limit: Duration) -> Failure {
        match late {
            Late::TimedOut => Failure::TimedOut(format!("{what} within {} ms", limit.as_millis())),
            Late::Told => Failure::Cut,
        }
    }

    fn refusal(self, endpoint: &Endpoint) -> Option<Refusal> {
        let says = |code, what: String| Some(Refusal::new(code, format!("endpoint {}: {what}", endpoint.id)));
        match self {
            Failure::Unreached(why) | Failure::Unanswered(why) => says(Code::BadGateway, why),
            Failure::Untrusted(why) => says(Code::BadGateway, why.detail),
            Failure::TimedOut(why) => says(Code::GatewayTimeout, why),
            Failure::Cut => says(Code::BadGateway, "it was drained, and its time was up".to_owned()),
            Failure::Client(refusal) => Some(refusal),
            Failure::ClientGone => None,
        }
    }

    /// What it counts as; none where it is not the endpoint's.
    fn kind(&self) -> Option<ErrorKind> {
        match self {
            Failure::Unreached(_) => Some(ErrorKind::Unreached),
            Failure::Unanswered(_) => Some(ErrorKind::Unanswered),
            Failure::TimedOut(_) => Some(ErrorKind::TimedOut),
            Failure::Untrusted(_) => Some(ErrorKind::Untrusted),
            Failure::Cut | Failure::Client(_) | Failure::ClientGone => None,
        }
    }
}

impl<'r> Course<'r> {
    pub fn new(route: &'r Route, wish: Wish, client: IpAddr) -> Course<'r> {
        Course {
            route,
            wish,
            client,
            since: Moment::now(),
            retries: 0,
            last: None,
            failed_at: None,
            moved: None,
        }
    }

    /// What the next attempt chooses from, if that is not what the route had when the request came.
    pub fn moved(&self) -> Option<Arc<Upstream>> {
        self.moved.clone()
    }

    /// The next one; else what the client is told. `random` is any number that nobody can foresee.
    pub fn attempt<'u>(&mut self, upstream: &'u Upstream, random: u64) -> Result<Attempt<'u>, Refusal> {
        Attempt::begin(upstream, &self.wish, random).map_err(|nobody| {
            self.last.take().unwrap_or_else(|| {
                upstream.standing.turned_away.fetch_add(1, Relaxed);
                Refusal::new(Code::NoEndpoint, nobody.0)
            })
        })
    }

    /// What a client's sticky cookie is to say, if it says something else.
    pub fn sticky(&self, attempt: &Attempt<'_>) -> Option<u64> {
        let token = attempt.endpoint().token;
        (self.wish.sticky != Some(token)).then_some(token)
    }

    /// `line` is method and path.
    pub fn answered(&self, line: &[u8], status: u16, attempt: &Attempt<'_>) {
        attempt.answered(status, Moment::now());
        self.ended(line, status, Some(attempt), "");
    }

    /// An attempt came to nothing. `resendable`: it changes nothing if the endpoint sees it twice, and all
    /// of it is still there. `tables` has the one of now.
    pub fn failed(
        &mut self,
        line: &[u8],
        attempt: &Attempt<'_>,
        failure: Failure,
        resendable: bool,
        tables: &ArcSwap<Table>,
    ) -> Then {
        let upstream = &self.route.upstream;
        match failure.kind() {
            Some(kind) => attempt.failed(kind, Moment::now()),
            None if matches!(failure, Failure::ClientGone) => {
                upstream.standing.clients_gone.fetch_add(1, Relaxed);
                self.ended(line, CLIENT_GONE, Some(attempt), "the client is gone");
            }
            None => {}
        }
        let again = match &failure {
            Failure::Unreached(_) => true,
            Failure::Unanswered(_) => resendable,
            _ => false,
        };
        self.wish.tried.add(attempt.seat());
        let again = again
            && self.retries < upstream.config.retries.attempts
            && self.catch_up(&tables.load())
            && upstream.may_retry();
        let refusal = failure.refusal(attempt.endpoint());
        self.failed_at = Some(attempt.endpoint().id.clone());
        if again {
            self.retries += 1;
            self.last = refusal;
            return Then::Again;
        }
        refusal.map_or(Then::Nothing, Then::Refuse)
    }

    /// Time has passed: what is tried next is chosen by the table of now. Not where that would have its endpoint be
    /// told something else than what is written already.
    fn catch_up(&mut self, table: &Table) -> bool {
        let known = self.moved.as_ref().unwrap_or(&self.route.upstream);
        let Some(current) = table.upstream(&known.name) else { return false };
        if Arc::ptr_eq(current, known) {
            return true;
        }
        if current.epoch != known.epoch || current.config.protocol != known.config.protocol {
            return false;
        }
        let mut tried = Tried::default();
        for (at, seat) in current.seats.iter().enumerate() {
            let before = known.seats.iter().position(|other| Arc::ptr_eq(&other.endpoint, &seat.endpoint));
            if before.is_some_and(|before| self.wish.tried.has(before)) {
                tried.add(at);
            }
        }
        self.wish.tried = tried;
        self.moved = Some(current.clone());
        true
    }

    /// The client is told this instead of an endpoint's answer.
    pub fn refused(&self, line: &[u8], refusal: &Refusal) {
        self.ended(line, refusal.code.status(), None, &refusal.detail);
    }

    fn upstream(&self) -> &Upstream {
        self.moved.as_deref().unwrap_or(&self.route.upstream)
    }

    /// A decision now and then, and the access log where somebody wants it.
    fn ended(&self, line: &[u8], status: u16, attempt: Option<&Attempt<'_>>, why_not: &str) {
        let now = Moment::now();
        let upstream = &self.route.upstream;
        let wrong = attempt.is_none() || self.retries > 0 || status >= 500;
        if upstream.standing.decisions.wants(wrong, now) {
            upstream.standing.decisions.keep(self.decision(line, status, attempt, why_not, now));
        }
        tracing::debug!(
            target: "ringmaster::access",
            client = %self.client,
            request = %String::from_utf8_lossy(line),
            route = self.route.name,
            upstream = upstream.name,
            endpoint = attempt.map_or("", |attempt| attempt.endpoint().id.as_str()),
            status,
            retries = self.retries,
            took_us = duration::micros(now.since(self.since)),
            why = why_not,
        );
    }

    fn decision(
        &self,
        line: &[u8],
        status: u16,
        attempt: Option<&Attempt<'_>>,
        why_not: &str,
        now: Moment,
    ) -> Decision {
        let upstream = attempt.map_or_else(|| self.upstream(), Attempt::upstream);
        let nobody = Tried::default();
        Decision {
            at: clock::wall(),
            // Who asks knows whom.
            node: NodeId::default(),
            route: self.route.name.clone(),
            upstream: upstream.name.clone(),
            request: String::from_utf8_lossy(line).into_owned(),
            considered: upstream.candidates(attempt.map_or(&nobody, Attempt::tried), now),
            chosen: attempt.map(|attempt| attempt.endpoint().id.clone()).or_else(|| self.failed_at.clone()),
            why: attempt
                .map_or_else(|| why_not.to_owned(), |attempt| upstream.explain(attempt.why()).to_string()),
            retries: self.retries,
            status,
            took_us: duration::micros(now.since(self.since)),
        }
    }
}
