//! What is wrong with an upstream, in words: no endpoint available, requests that fail, redundancy that is lost.
//!
//! The replicated state says which endpoints get requests; the proxies' metrics say what became of the requests. An
//! endpoint is *available* if an operator has it ready and the cluster does not call it unhealthy.

use crate::{
    format::{self, capitalised, count, in_words, listed},
    tone::Tone,
    traffic::Load,
};
use ringmaster_common::{
    Timestamp,
    traffic::{
        health::Verdict,
        upstream::{Endpoint, EndpointState, Primary, Protocol, Upstream},
    },
    view::ClusterView,
};

/// An upstream of whose requests so many of a hundred fail is in trouble, and of whose so many more is down,
/// whatever its checks say, or where there are none.
const SOME_FAIL: f64 = 5.0;
const MOST_FAIL: f64 = 50.0;

/// How severe it is that so many of a hundred requests fail.
pub fn failure_tone(percent: f64) -> Tone {
    match percent {
        most if most >= MOST_FAIL => Tone::Bad,
        some if some >= SOME_FAIL => Tone::Warning,
        _ => Tone::Note,
    }
}

/// What is wrong with an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamProblem {
    pub tone: Tone,
    /// The state, without a full stop.
    pub text: String,
    /// What it means for requests, as a sentence.
    pub effect: String,
    /// What happens automatically, or what to do, as a sentence.
    pub reaction: String,
}

/// Whether an endpoint could get requests.
pub fn is_available(endpoint: &Endpoint) -> bool {
    endpoint.state == EndpointState::Ready && endpoint.health.verdict != Verdict::Unhealthy
}

/// How many endpoints are available and wanted for requests, of how many, and how many stand by beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Availability {
    pub available: usize,
    pub of: usize,
    pub standby: usize,
}

pub fn availability(upstream: &Upstream) -> Availability {
    let endpoints = &upstream.config.endpoints;
    let available = endpoints.iter().filter(|endpoint| is_available(endpoint)).count();
    match &upstream.primary {
        None => Availability { available, of: endpoints.len(), standby: 0 },
        Some(_) => {
            let serving = endpoints.iter().filter(|endpoint| upstream.is_serving(endpoint)).count();
            Availability { available: serving, of: endpoints.len().min(1), standby: available - serving }
        }
    }
}

impl Availability {
    /// For example `2 of 3 available` or `1 of 1 available, 1 standby`.
    pub fn in_words(self) -> String {
        let standby = if self.standby > 0 { format!(", {} standby", self.standby) } else { String::new() };
        format!("{} of {} available{standby}", self.available, self.of)
    }

    /// The same for a narrow column.
    pub fn short(self) -> String {
        let standby = if self.standby > 0 { format!(" +{}", self.standby) } else { String::new() };
        format!("{}/{}{standby}", self.available, self.of)
    }
}

/// How an upstream is, by the replicated state and by the outcome of its requests.
pub fn tone(view: &ClusterView, upstream: &Upstream, load: Load) -> Tone {
    match problem(view, upstream, load, &|at| at.to_string()) {
        Some(problem) => problem.tone,
        None if upstream.config.endpoints.is_empty() => Tone::Unknown,
        None => Tone::Good,
    }
}

/// The most severe problem of an upstream. `time_of` shows a time as the reader sees it.
pub fn problem(
    view: &ClusterView,
    upstream: &Upstream,
    load: Load,
    time_of: &dyn Fn(Timestamp) -> String,
) -> Option<UpstreamProblem> {
    let endpoints = &upstream.config.endpoints;
    let name = &upstream.name;
    let is_routed = view.routes.values().any(|route| route.spec.upstream == *name);
    if endpoints.is_empty() {
        return is_routed.then(|| UpstreamProblem {
            tone: Tone::Bad,
            text: format!("Upstream {name} has no endpoints, and routes lead to it"),
            effect: unserved_effect(upstream, is_routed, load),
            reaction: "Add an endpoint, or let one register.".to_owned(),
        });
    }
    if !endpoints.iter().any(|endpoint| upstream.is_serving(endpoint)) {
        return Some(unserved(upstream, is_routed, load, time_of));
    }
    let failing = load.failure_percent().unwrap_or(0.0);
    if failing >= SOME_FAIL {
        return Some(UpstreamProblem {
            tone: failure_tone(failing),
            text: format!("Upstream {name}: {failing:.0} % of requests fail"),
            effect: unserved_effect(upstream, is_routed, load),
            reaction: "An endpoint is available: check its log and its health check.".to_owned(),
        });
    }
    lost_redundancy(upstream, time_of)
}

/// No endpoint gets requests.
fn unserved(
    upstream: &Upstream,
    is_routed: bool,
    load: Load,
    time_of: &dyn Fn(Timestamp) -> String,
) -> UpstreamProblem {
    let name = &upstream.name;
    let (what, why, since) = match &upstream.primary {
        Some(Primary { endpoint: None, since, .. }) => ("primary", String::new(), Some(*since)),
        Some(Primary { endpoint: Some(id), .. }) => {
            let primary = upstream.endpoint(id);
            let why = primary.map(|endpoint| format!(": {id} is {}", unavailable_word(endpoint)));
            ("available primary", why.unwrap_or_default(), primary.and_then(unavailable_since))
        }
        None => {
            let endpoints = upstream.config.endpoints.iter();
            let since = endpoints.filter_map(unavailable_since).max();
            ("available endpoint", format!(": {}", reasons(upstream)), since)
        }
    };
    let since = since.map(|at| format!(" since {}", time_of(at))).unwrap_or_default();
    let reaction = match (&upstream.primary, &upstream.config.active_standby) {
        (Some(Primary { fails_over_at: Some(at), .. }), _) => {
            format!("Automatic failover at {}, unless the primary is healthy again before.", time_of(*at))
        }
        (Some(_), Some(config)) if !config.automatic => {
            "Automatic failover is off: fail over to a standby, or repair the primary.".to_owned()
        }
        (Some(_), _) => "Fail over to a standby, or repair the primary.".to_owned(),
        (None, _) if upstream.config.endpoints.iter().any(|one| one.state != EndpointState::Ready) => {
            "Set an endpoint to ready, or repair one that is unhealthy.".to_owned()
        }
        (None, _) => "It serves again as soon as an endpoint passes its checks.".to_owned(),
    };
    UpstreamProblem {
        // No client of the proxies needs it yet.
        tone: if is_routed || load.failures_per_s > 0.0 { Tone::Bad } else { Tone::Warning },
        text: format!("Upstream {name} has no {what}{since}{why}"),
        effect: unserved_effect(upstream, is_routed, load),
        reaction,
    }
}

/// Requests are served, and fewer endpoints than are configured could serve them.
fn lost_redundancy(upstream: &Upstream, time_of: &dyn Fn(Timestamp) -> String) -> Option<UpstreamProblem> {
    let name = &upstream.name;
    let endpoints = &upstream.config.endpoints;
    let available: Vec<&str> = endpoints
        .iter()
        .filter(|endpoint| is_available(endpoint))
        .map(|endpoint| endpoint.id.as_str())
        .collect();
    let unhealthy: Vec<&Endpoint> =
        endpoints.iter().filter(|endpoint| endpoint.health.verdict == Verdict::Unhealthy).collect();
    let is_last = available.len() == 1 && endpoints.len() > 1;
    if unhealthy.is_empty() && !is_last {
        return None;
    }
    let verb = if available.len() == 1 { "is" } else { "are" };
    let since = unhealthy.iter().filter_map(|endpoint| endpoint.health.since).min();
    let since = since.map(|at| format!(" since {}", time_of(at))).unwrap_or_default();
    let effect = match available.as_slice() {
        [only] => format!("If {only} fails, requests fail."),
        _ => "Requests are served by the others.".to_owned(),
    };
    Some(UpstreamProblem {
        tone: Tone::Warning,
        text: format!(
            "Upstream {name}: {} of {} {verb} available{since}: {}",
            available.len(),
            count(endpoints.len() as u64, "endpoint"),
            reasons(upstream)
        ),
        effect,
        reaction: String::new(),
    })
}

/// What it means for clients that no endpoint serves them.
fn unserved_effect(upstream: &Upstream, is_routed: bool, load: Load) -> String {
    match upstream.config.protocol {
        _ if load.failures_per_s > 0.0 => failing_now(load.failures_per_s),
        _ if !is_routed => "No route leads to it.".to_owned(),
        Protocol::Tcp => "Connections are closed at once.".to_owned(),
        Protocol::Http1 | Protocol::Http2 => "Requests get 503.".to_owned(),
    }
}

/// For example `4.0 requests/s fail.`
pub fn failing_now(failures_per_s: f64) -> String {
    format!("{} requests/s fail.", format::rate(failures_per_s).number)
}

/// Why endpoints are not available: by name where there are a few, else by number.
fn reasons(upstream: &Upstream) -> String {
    const NAMED: usize = 3;
    let out: Vec<&Endpoint> =
        upstream.config.endpoints.iter().filter(|endpoint| !is_available(endpoint)).collect();
    let mut words = Vec::new();
    for word in ["unhealthy", "draining", "in maintenance"] {
        let ids: Vec<&str> = out
            .iter()
            .filter(|endpoint| unavailable_word(endpoint) == word)
            .map(|endpoint| endpoint.id.as_str())
            .collect();
        match ids.len() {
            0 => {}
            1 => words.push(format!("{} is {word}", ids[0])),
            _ if out.len() <= NAMED => words.push(format!("{} are {word}", listed(&ids))),
            many => words.push(format!("{many} are {word}")),
        }
    }
    words.join(", ")
}

/// An order of an operator comes before what the checks find.
fn unavailable_word(endpoint: &Endpoint) -> &'static str {
    match endpoint.state {
        EndpointState::Drain => "draining",
        EndpointState::Maintenance => "in maintenance",
        EndpointState::Ready if endpoint.health.verdict == Verdict::Unhealthy => "unhealthy",
        EndpointState::Ready => "ready",
    }
}

/// Since when an endpoint is not available; none while it is.
fn unavailable_since(endpoint: &Endpoint) -> Option<Timestamp> {
    let ordered = (endpoint.state != EndpointState::Ready).then_some(endpoint.state_since);
    let failed = endpoint.health.since.filter(|_| endpoint.health.verdict == Verdict::Unhealthy);
    match (ordered, failed) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Several upstreams as one subject: `upstreams a, b and 13 more`.
pub fn named(names: &[&str]) -> String {
    const NAMED: usize = 2;
    match names {
        [one] => format!("upstream {one}"),
        few if few.len() <= NAMED + 1 => format!("upstreams {}", listed(few)),
        many => {
            let rest = in_words((many.len() - NAMED) as u64);
            format!("upstreams {} and {rest} more", many[..NAMED].join(", "))
        }
    }
}

/// The headline for several upstreams that serve no requests.
pub fn several(names: &[&str]) -> String {
    format!("{} serve no requests.", capitalised(&named(names)))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use ringmaster_common::traffic::route::Route;
    use serde_json::{Value, json};

    /// An endpoint that is in `state` since 10:00, with a verdict since 11:00.
    pub fn endpoint(id: &str, state: &str, verdict: &str) -> Value {
        json!({
            "id": id, "addr": "127.0.0.1:1", "weight": 1, "state": state, "state_since": "2026-01-01T10:00:00Z",
            "health": { "verdict": verdict, "since": "2026-01-01T11:00:00Z", "opinions": [] },
        })
    }

    pub fn upstream(name: &str, endpoints: &[Value]) -> Upstream {
        let text = json!({
            "name": name, "endpoints": endpoints, "version": 1, "updated_at": "2026-01-01T00:00:00Z",
            "updated_by": "me",
        });
        serde_json::from_value(text).unwrap()
    }

    /// A route of all requests to `upstream`.
    pub fn route(upstream: &str) -> Route {
        let text = json!({
            "name": upstream, "path_prefix": "/", "upstream": upstream, "version": 1,
            "updated_at": "2026-01-01T00:00:00Z", "updated_by": "me",
        });
        serde_json::from_value(text).unwrap()
    }

    fn active_standby(
        mut upstream: Upstream,
        primary: Option<&str>,
        fails_over_at: Option<&str>,
    ) -> Upstream {
        upstream.config.active_standby = Some(Default::default());
        upstream.primary = Some(Primary {
            endpoint: primary.map(str::to_owned),
            epoch: 3,
            since: "2026-01-01T09:00:00Z".parse().unwrap(),
            fails_over_at: fails_over_at.map(|at| at.parse().unwrap()),
        });
        upstream
    }

    fn failing(requests_per_s: f64, failures_per_s: f64) -> Load {
        Load { requests_per_s, failures_per_s, ..Load::default() }
    }

    fn found(upstream: &Upstream, load: Load) -> (Tone, String) {
        let time_of = |at: Timestamp| format::time_of_day(at, 0);
        let mut view = ClusterView::default();
        view.routes.put(route(&upstream.name));
        match problem(&view, upstream, load, &time_of) {
            Some(UpstreamProblem { tone, text, effect, reaction }) => {
                (tone, format!("{text}. {effect} {reaction}").trim_end().to_owned())
            }
            None => (tone(&view, upstream, load), String::new()),
        }
    }

    #[test]
    fn an_upstream_without_an_available_endpoint_is_down() {
        let web = upstream(
            "web",
            &[
                endpoint("web-1", "drain", "healthy"),
                endpoint("web-2", "ready", "unhealthy"),
                endpoint("web-3", "drain", "unhealthy"),
            ],
        );
        assert_eq!(
            found(&web, failing(4.0, 4.0)),
            (
                Tone::Bad,
                "Upstream web has no available endpoint since 11:00:00: web-2 is unhealthy, web-1 and web-3 are \
                 draining. 4.0 requests/s fail. Set an endpoint to ready, or repair one that is unhealthy."
                    .to_owned()
            )
        );
        let many: Vec<Value> = (0..9).map(|n| endpoint(&format!("e{n}"), "ready", "unhealthy")).collect();
        assert_eq!(
            found(&upstream("api", &many), Load::default()).1,
            "Upstream api has no available endpoint since 11:00:00: 9 are unhealthy. Requests get 503. It \
             serves again as soon as an endpoint passes its checks."
        );
    }

    #[test]
    fn a_standby_does_not_hide_that_the_primary_is_down() {
        let both = [endpoint("p1", "ready", "unhealthy"), endpoint("p2", "ready", "healthy")];
        let due = active_standby(upstream("payments", &both), Some("p1"), Some("2026-01-01T11:00:03Z"));
        assert_eq!(
            found(&due, failing(2.0, 2.0)).1,
            "Upstream payments has no available primary since 11:00:00: p1 is unhealthy. 2.0 requests/s fail. \
             Automatic failover at 11:00:03, unless the primary is healthy again before."
        );
        let mut by_hand = active_standby(upstream("payments", &both), Some("p1"), None);
        by_hand.config.active_standby.as_mut().unwrap().automatic = false;
        assert!(
            found(&by_hand, Load::default())
                .1
                .ends_with("Automatic failover is off: fail over to a standby, or repair the primary.")
        );
        let none = active_standby(upstream("payments", &both), None, None);
        assert!(
            found(&none, Load::default()).1.starts_with("Upstream payments has no primary since 09:00:00. "),
        );
    }

    #[test]
    fn lost_redundancy_is_a_warning() {
        let one = |verdict| endpoint("web-1", "ready", verdict);
        let web = |other: Value| upstream("web", &[one("healthy"), other]);
        assert_eq!(found(&web(endpoint("web-2", "ready", "healthy")), Load::default()).0, Tone::Good);
        assert_eq!(
            found(&web(endpoint("web-2", "ready", "unhealthy")), Load::default()),
            (
                Tone::Warning,
                "Upstream web: 1 of 2 endpoints is available since 11:00:00: web-2 is unhealthy. If web-1 fails, \
                 requests fail."
                    .to_owned()
            )
        );
        assert_eq!(
            found(&web(endpoint("web-2", "maintenance", "unknown")), Load::default()).1,
            "Upstream web: 1 of 2 endpoints is available: web-2 is in maintenance. If web-1 fails, requests fail."
        );
        let payments = active_standby(web(endpoint("web-2", "drain", "healthy")), Some("web-1"), None);
        assert_eq!(found(&payments, Load::default()).0, Tone::Warning, "its only standby is draining");
        let three =
            [one("healthy"), endpoint("web-2", "ready", "healthy"), endpoint("web-3", "drain", "healthy")];
        assert_eq!(found(&upstream("web", &three), Load::default()).0, Tone::Good, "an order leaves two");
        assert_eq!(
            found(&upstream("web", &[one("unknown")]), Load::default()).0,
            Tone::Good,
            "it is alone by intent"
        );
    }

    #[test]
    fn an_upstream_without_checks_is_as_its_requests_are() {
        let one = upstream("web", &[endpoint("e1", "ready", "unknown")]);
        assert_eq!(found(&one, Load::default()).0, Tone::Good);
        assert_eq!(found(&one, failing(100.0, 1.0)).0, Tone::Good);
        assert_eq!(found(&one, failing(100.0, 7.0)).0, Tone::Warning);
        assert_eq!(
            found(&one, failing(4.0, 4.0)),
            (
                Tone::Bad,
                "Upstream web: 100 % of requests fail. 4.0 requests/s fail. An endpoint is available: check its log \
                 and its health check."
                    .to_owned()
            )
        );
    }

    #[test]
    fn an_upstream_without_endpoints_matters_once_a_route_leads_to_it() {
        let empty = upstream("web", &[]);
        assert_eq!(tone(&ClusterView::default(), &empty, Load::default()), Tone::Unknown);
        let mut view = ClusterView::default();
        view.routes.put(route("web"));
        let found = problem(&view, &empty, failing(3.0, 3.0), &|at| at.to_string()).unwrap();
        assert_eq!(
            (found.tone, found.text.as_str(), found.effect.as_str()),
            (Tone::Bad, "Upstream web has no endpoints, and routes lead to it", "3.0 requests/s fail.")
        );
    }

    #[test]
    fn the_effect_is_that_on_the_clients_of_the_proxies() {
        let down = [endpoint("e1", "ready", "unhealthy")];
        let web = upstream("web", &down);
        let unrouted = problem(&ClusterView::default(), &web, Load::default(), &|at| at.to_string()).unwrap();
        assert_eq!((unrouted.tone, unrouted.effect.as_str()), (Tone::Warning, "No route leads to it."));
        let mut db = upstream("db", &down);
        db.config.protocol = Protocol::Tcp;
        let words = found(&db, Load::default()).1;
        assert!(words.contains("e1 is unhealthy. Connections are closed at once."), "{words}");
    }

    #[test]
    fn a_standby_is_counted_beside_the_primary() {
        let both = [endpoint("p1", "ready", "healthy"), endpoint("p2", "ready", "healthy")];
        let payments = active_standby(upstream("payments", &both), Some("p1"), None);
        let seen = availability(&payments);
        assert_eq!(
            (seen.in_words().as_str(), seen.short().as_str()),
            ("1 of 1 available, 1 standby", "1/1 +1")
        );
        let web = availability(&upstream("web", &[both[0].clone(), endpoint("p3", "drain", "healthy")]));
        assert_eq!((web.in_words().as_str(), web.short().as_str()), ("1 of 2 available", "1/2"));
    }
}
