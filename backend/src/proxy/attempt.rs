//! A request at an endpoint: counted while it is under way, judged when it is answered, and explained to
//! whoever asks later.

use super::{
    endpoint::Endpoint,
    moment::Moment,
    pick::{Pick, Wish},
    table::Route,
    upstream::{Nobody, Outcome, Tried, Upstream},
};
use crate::clock;
use ringmaster_common::{duration, id::NodeId, traffic::live::Decision};
use std::sync::atomic::Ordering::Relaxed;

/// Counts as under way for as long as it lives.
#[derive(Debug)]
pub struct Attempt<'u> {
    upstream: &'u Upstream,
    pick: Pick,
    tried: Tried,
    since: Moment,
}

impl<'u> Attempt<'u> {
    pub fn begin(upstream: &'u Upstream, wish: &Wish, random: u64) -> Result<Attempt<'u>, Nobody> {
        let since = Moment::now();
        let pick = upstream.pick(wish, since, random)?;
        upstream.seats[pick.seat].endpoint.in_flight.fetch_add(1, Relaxed);
        Ok(Attempt { upstream, pick, tried: wish.tried, since })
    }

    pub fn upstream(&self) -> &'u Upstream {
        self.upstream
    }

    pub fn endpoint(&self) -> &'u Endpoint {
        &self.upstream.seats[self.pick.seat].endpoint
    }

    pub fn seat(&self) -> usize {
        self.pick.seat
    }

    pub fn answered(&self, status: u16, now: Moment) {
        self.upstream.note(self.pick.seat, Outcome::of_status(status), status, now.since(self.since), now);
    }

    pub fn failed(&self, now: Moment) {
        self.upstream.note(self.pick.seat, Outcome::Failed, 0, now.since(self.since), now);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.endpoint().in_flight.fetch_sub(1, Relaxed);
    }
}

/// What is told of a request once it is answered: a decision now and then, and the access log where
/// somebody wants it.
#[derive(Debug)]
pub struct Log<'r> {
    route: &'r Route,
    since: Moment,
    pub retries: u32,
}

impl<'r> Log<'r> {
    pub fn new(route: &'r Route, since: Moment) -> Log<'r> {
        Log { route, since, retries: 0 }
    }

    /// `line` is method and path; `attempt` is the one that was answered, if any was.
    pub fn ended(&self, line: &[u8], status: u16, attempt: Option<&Attempt<'_>>, why_not: &str) {
        let now = Moment::now();
        let upstream = &self.route.upstream;
        let wrong = attempt.is_none() || self.retries > 0 || status >= 500;
        if upstream.standing.decisions.wants(wrong, now) {
            upstream.standing.decisions.keep(self.decision(line, status, attempt, why_not, now));
        }
        tracing::debug!(
            target: "ringmaster::access",
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
        let upstream = &self.route.upstream;
        let tried = attempt.map(|attempt| attempt.tried).unwrap_or_default();
        Decision {
            at: clock::wall(),
            // Who asks knows whom.
            node: NodeId::default(),
            route: self.route.name.clone(),
            upstream: upstream.name.clone(),
            request: String::from_utf8_lossy(line).into_owned(),
            considered: upstream.candidates(&tried, now),
            chosen: attempt.map(|attempt| attempt.endpoint().id.clone()),
            why: attempt
                .map_or_else(|| why_not.to_owned(), |attempt| upstream.explain(attempt.pick.why).to_string()),
            retries: self.retries,
            status,
            took_us: duration::micros(now.since(self.since)),
        }
    }
}
