//! Upstreams and routes: the lists, and one upstream in detail.

use super::{change, line, time};
use crate::{
    cli::table::{Cell, Column, Table},
    out::{Paint, Tone},
};
use ringmaster_common::{
    plan::UpstreamImpact,
    traffic::{
        health::Verdict,
        route::Route,
        upstream::{Endpoint, EndpointState, Upstream},
    },
};

pub fn upstreams(upstreams: &[Upstream], paint: Paint) -> String {
    let mut table = Table::new(&[
        Column::Left("NAME"),
        Column::Left("MODE"),
        Column::Right("ENDPOINTS"),
        Column::Right("SERVING"),
        Column::Left("PRIMARY"),
        Column::Right("VERSION"),
        Column::Left("BY"),
        Column::Left("REMARK"),
    ]);
    for upstream in upstreams {
        let endpoints = &upstream.config.endpoints;
        let serving = endpoints.iter().filter(|endpoint| upstream.is_serving(endpoint)).count();
        let primary = upstream.primary.as_ref().map(|primary| match &primary.endpoint {
            Some(endpoint) => format!("{endpoint}, epoch {}", primary.epoch),
            None => "none".to_owned(),
        });
        let remark = match (serving, endpoints.len()) {
            (0, 0) => Cell::toned("no endpoints", Tone::Warn),
            (0, _) => Cell::toned("no serving endpoint", Tone::Bad),
            _ => Cell::default(),
        };
        table.row([
            upstream.name.as_str().into(),
            mode(upstream).into(),
            endpoints.len().to_string().into(),
            serving.to_string().into(),
            Cell::maybe(primary),
            upstream.version.to_string().into(),
            upstream.updated_by.as_str().into(),
            remark,
        ]);
    }
    if upstreams.is_empty() { "There are no upstreams.\n".to_owned() } else { table.render(paint) }
}

pub fn upstream(upstream: &Upstream, paint: Paint) -> String {
    let heading = |text: &str| paint.apply(Tone::Strong, text);
    let config = &upstream.config;
    let mut text = String::new();
    line(&mut text, format!("{}  {}, version {}", heading("Upstream"), upstream.name, upstream.version));
    line(&mut text, format!("{}      {}, {}", heading("Mode"), mode(upstream), config.protocol.as_str()));
    if let Some(primary) = &upstream.primary {
        let endpoint = primary.endpoint.as_deref().unwrap_or("none: requests are refused");
        line(&mut text, format!("{}   {endpoint}, in epoch {}", heading("Primary"), primary.epoch));
        let automatic = config.active_standby.as_ref().is_some_and(|standby| standby.automatic);
        let next = match primary.fails_over_at {
            Some(at) => format!("automatic at {}, unless the primary recovers", time(at)),
            None if automatic => "automatic, when the primary is down".to_owned(),
            None => "by an operator only".to_owned(),
        };
        line(&mut text, format!("{}  {next}", heading("Failover")));
    }
    text.push('\n');
    let mut table = Table::new(&[
        Column::Left("ENDPOINT"),
        Column::Left("ADDRESS"),
        Column::Right("WEIGHT"),
        Column::Left("STATE"),
        Column::Left("HEALTH"),
        Column::Left("SERVING"),
        Column::Left("REASON"),
    ]);
    for endpoint in &config.endpoints {
        let is_serving = upstream.is_serving(endpoint);
        table.row([
            endpoint.id.as_str().into(),
            endpoint.addr.as_str().into(),
            endpoint.weight.to_string().into(),
            state(endpoint.state),
            verdict(endpoint.health.verdict),
            if is_serving { "yes".into() } else { Cell::toned("no", Tone::Warn) },
            Cell::toned(reasons(upstream, endpoint), Tone::Faint),
        ]);
    }
    if config.endpoints.is_empty() { text + "It has no endpoints.\n" } else { text + &table.render(paint) }
}

/// How many endpoints keep serving, and the routes to them.
pub fn impact(impact: &UpstreamImpact) -> Vec<(&'static str, String)> {
    let UpstreamImpact { endpoints, serving_before, serving_after, routes, .. } = impact;
    let routes = if routes.is_empty() { "none".to_owned() } else { routes.join(", ") };
    vec![
        ("serving", format!("{} of {endpoints} endpoints", change(*serving_before, *serving_after))),
        ("routes", routes),
    ]
}

/// The check results of the nodes, and the registration.
fn findings(endpoint: &Endpoint) -> String {
    let registered =
        endpoint.registered.as_ref().map(|registered| format!("registered at {}", time(registered.since)));
    let opinions = endpoint
        .health
        .opinions
        .iter()
        .filter(|opinion| opinion.verdict == Verdict::Unhealthy)
        .map(|opinion| format!("node {}: {}", opinion.observer, opinion.detail));
    registered.into_iter().chain(opinions).collect::<Vec<_>>().join("; ")
}

/// How an endpoint is selected: by a policy, or as the primary.
fn mode(upstream: &Upstream) -> &'static str {
    match upstream.primary {
        Some(_) => "active_standby",
        None => upstream.config.policy.as_str(),
    }
}

/// Why the endpoint serves requests or does not.
fn reasons(upstream: &Upstream, endpoint: &Endpoint) -> String {
    let since = time(endpoint.state_since);
    let primary = upstream.primary.as_ref().map(|primary| primary.endpoint.as_ref() == Some(&endpoint.id));
    let state = match (endpoint.state, primary) {
        (EndpointState::Drain, _) => format!("drained since {since}"),
        (EndpointState::Maintenance, _) => format!("in maintenance since {since}"),
        (EndpointState::Ready, Some(true)) => "primary".to_owned(),
        (EndpointState::Ready, Some(false)) => "standby".to_owned(),
        (EndpointState::Ready, None) => String::new(),
    };
    let waiting = if upstream.awaits_first_check(endpoint) { "waiting for its first check" } else { "" };
    let parts = [state, waiting.to_owned(), findings(endpoint)];
    parts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
}

fn state(state: EndpointState) -> Cell {
    let tone = if state == EndpointState::Ready { Tone::Good } else { Tone::Warn };
    Cell::toned(state.as_str(), tone)
}

fn verdict(verdict: Verdict) -> Cell {
    let tone = match verdict {
        Verdict::Unknown => Tone::Faint,
        Verdict::Healthy => Tone::Good,
        Verdict::Unhealthy => Tone::Bad,
    };
    Cell::toned(verdict.as_str(), tone)
}

pub fn routes(routes: &[Route], paint: Paint) -> String {
    let mut table = Table::new(&[
        Column::Left("NAME"),
        Column::Left("HOST"),
        Column::Left("PATH"),
        Column::Left("UPSTREAM"),
        Column::Left("LISTENER"),
        Column::Right("VERSION"),
        Column::Left("BY"),
    ]);
    for route in routes {
        let spec = &route.spec;
        let rewritten = spec.rewrite_prefix.as_ref().map(|prefix| format!(" → {prefix}"));
        table.row([
            route.name.as_str().into(),
            spec.host.as_deref().map_or_else(|| Cell::toned("any", Tone::Faint), Cell::from),
            format!("{}{}", spec.path_prefix, rewritten.unwrap_or_default()).into(),
            spec.upstream.as_str().into(),
            spec.listener.as_deref().map_or_else(|| Cell::toned("default", Tone::Faint), Cell::from),
            route.version.to_string().into(),
            route.updated_by.as_str().into(),
        ]);
    }
    if routes.is_empty() { "There are no routes.\n".to_owned() } else { table.render(paint) }
}
