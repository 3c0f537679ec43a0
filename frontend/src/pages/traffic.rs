//! Traffic: the services that requests are forwarded to, what is done for each right now, and which requests
//! go to which.
//!
//! The configuration comes from the view, the load from the nodes' proxies, once a second over the stream.
//! Filters and order are in the address, as is a form that is open (`?new=upstream`, `?new=route`, `?edit=web`).
//!
//! Test ids: `traffic-<metric>`, `new-upstream`, `new-route`, `upstream-row` (with `data-name`), `mode-<name>`,
//! `taking-<name>`, and those of [`routes`], [`crate::components::form`] and [`crate::components::filters`].

pub mod forms;
mod routes;

use crate::{
    address::use_address,
    components::{
        filters::{filters, has_words, segments, wanted_words},
        icons::{labelled, name_text},
        live::{click, each, either, live, text, when},
        load::{failures, load_cells, load_key, load_of, rate_cell, since},
        metric::spark_line,
        sorting::{Column, Order, SortKey, column, number, places},
        text::{card, empty, quantity, skeleton},
    },
    format::{Quantity, count, grouped, micros, rate},
    store::{Store, use_store},
    tone::Tone,
    traffic::{Load, TrafficScope, mode},
    upstream_health::{Availability, availability, failure_tone, tone},
};
use leptos::prelude::*;
use ringmaster_common::traffic::upstream::Upstream;

const COLUMNS: [Column; 8] = [
    column("name", "Upstream"),
    column("mode", "Mode"),
    number("taking", "Available", "Endpoints that are ready and not unhealthy; +1: one standby"),
    number("rate", "Requests", "Per second, through all proxies that report"),
    number("failures", "Failing", "Answers of 500 and above, and requests that got none"),
    number("p50", "p50", "The highest of the nodes', over ten seconds"),
    number("p99", "p99", "The highest of the nodes', over ten seconds"),
    number("flight", "In flight", "Requests in flight"),
];
const ORDER: Order = Order { columns: &COLUMNS, latest_first: false, of: "" };
/// The filters for upstreams.
const IS: [&str; 4] = ["busy", "idle", "troubled", "active_standby"];

pub fn traffic_page() -> AnyView {
    let store = use_store();
    let address = use_address();
    let which = Memo::new(move |_| address.parameter("upstream"));
    let filter = Memo::new(|_| wanted_words());
    let all =
        Memo::new(move |_| store.with_view(|view| view.upstreams.keys().cloned().collect::<Vec<String>>()));
    let shown = Memo::new(move |_| {
        let (column, descending) = ORDER.of(address);
        store.with_view(|view| {
            let passes = |upstream: &&Upstream| {
                let text = format!("{} {}", upstream.name, mode(upstream));
                is(store, upstream, which.get().as_deref()) && filter.with(|words| has_words(&text, words))
            };
            let found: Vec<&Upstream> = view.upstreams.values().filter(passes).collect();
            let keys: Vec<SortKey> = found.iter().map(|found| sort_key(store, column, found)).collect();
            places(&keys, descending).into_iter().map(|place| found[place].name.clone()).collect::<Vec<_>>()
        })
    });
    let routes = routes::wanted(store, filter);
    let how_many = text(move || {
        let all = count(all.with(Vec::len) as u64, "upstream");
        format!("{} of {all}", grouped(shown.with(Vec::len) as u64))
    });
    let table = move || {
        view! {
            <div class="table upstreams" role="table" aria-label="Upstreams">
                {ORDER.headings(true, false)} {each(shown, |name| name.clone(), move |name| row(store, name))}
            </div>
            {when(move || shown.with(Vec::is_empty), no_match)}
        }
        .into_any()
    };
    let upstreams = move || either(move || all.with(Vec::is_empty), none, table).into_any();
    let form = Memo::new(move |_| (address.parameter("new"), address.parameter("edit")));
    let open = move |what: &'static str| click(move || address.set_parameter("new", Some(what), true));
    view! {
        <div class="page">
            <div class="page-head">
                <h1>"Traffic"</h1>
                <span class="spacer"></span>
                <button type="button" data-testid="new-route" on:click=open("route")>"New route"</button>
                <button type="button" data-testid="new-upstream" on:click=open("upstream")>"New upstream"</button>
            </div>
            {tally(store)}
            {live(move || {
                let (new, edited) = form.get();
                forms::open(store, new.as_deref(), edited)
            })}
            {filters(segments("upstream", &IS), "Name, mode, host or path", how_many)}
            <section class="card" aria-label="Upstreams">
                {either(move || store.loaded.get(), upstreams, || skeleton(5))}
            </section>
            {card("", "routes-title", "Routes", routes::count_of(store, routes), routes::routes(store, routes))}
        </div>
    }
    .into_any()
}

/// The current load of all proxies.
fn tally(store: Store) -> AnyView {
    let load = load_of(TrafficScope::All);
    let metric = |id: &'static str,
                  label: &'static str,
                  note: AnyView,
                  value: fn(Load) -> Option<Quantity>,
                  least_top: f64,
                  line: fn(Load) -> Option<f64>| {
        let values = move || store.traffic.with(|heard| heard.line(&TrafficScope::All, line));
        view! {
            <div class="metric">
                <div class="metric-label">{label}</div>
                <div
                    class=text(move || {
                        let percent = load.get().failure_percent().filter(|percent| id == "failures" && *percent > 0.0);
                        let tone = percent.map(|percent| failure_tone(percent).class());
                        tone.map_or("metric-value".to_owned(), |tone| format!("metric-value failing {tone}"))
                    })
                    data-testid=format!("traffic-{id}")
                >
                    {live(move || quantity(value(load.get())))}
                </div>
                <div class="metric-note">{note}</div>
                {spark_line(format!("{label}, over two minutes"), least_top, values)}
            </div>
        }
        .into_any()
    };
    let proxies = text(move || proxies(store));
    let drawn_since = view! { {proxies} ", " {since(store)} }.into_any();
    let total = Memo::new(move |_| {
        let each = store.with_view(|view| view.upstreams.values().map(availability).collect::<Vec<_>>());
        each.into_iter().fold(Availability::default(), |sum, one| Availability {
            available: sum.available + one.available,
            of: sum.of + one.of,
            standby: sum.standby + one.standby,
        })
    });
    let endpoints = text(move || {
        let Availability { available, of, .. } = total.get();
        format!("{} of {}", grouped(available as u64), grouped(of as u64))
    });
    let standby = text(move || match total.get().standby {
        0 => "available".to_owned(),
        many => format!("available, {} standby", grouped(many as u64)),
    });
    view! {
        <section class="card hero tally" aria-label="Traffic of all proxies">
            {metric("rate", "Requests", drawn_since, |load| Some(rate(load.requests_per_s)), 1.0, |load| Some(load.requests_per_s))}
            {metric("failures", "Failing", "500 and above, or no answer".into_any(), failures, 10.0, Load::failure_percent)}
            {metric("p99", "Latency p99", "of the slowest upstream".into_any(), |load| load.p99_us.map(micros), 1_000.0, |load| {
                load.p99_us.map(|us| us as f64)
            })}
            {metric("flight", "In flight", "requests in flight".into_any(), |load| Some(in_flight(load)), 10.0, |load| {
                Some(load.in_flight as f64)
            })}
            <div class="metric">
                <div class="metric-label">"Endpoints"</div>
                <div class="metric-value" data-testid="traffic-endpoints">{endpoints}</div>
                <div class="metric-note">{standby}</div>
            </div>
        </section>
    }
    .into_any()
}

/// The proxies that the figures are from: a node that is down reports nothing, and its clients get nothing.
fn proxies(store: Store) -> String {
    let ids = store.node_ids.get();
    let silent: Vec<u64> = ids
        .iter()
        .filter(|id| store.node(**id).is_some_and(|node| node.report.with(Option::is_none)))
        .map(|id| id.0)
        .collect();
    match silent.as_slice() {
        [] => "all proxies".to_owned(),
        [one] => format!("{} of {} proxies; node {one} does not report", ids.len() - 1, ids.len()),
        many => {
            let nodes = crate::format::listed(many);
            format!("{} of {} proxies; nodes {nodes} do not report", ids.len() - many.len(), ids.len())
        }
    }
}

fn in_flight(load: Load) -> Quantity {
    Quantity { number: grouped(load.in_flight), unit: "" }
}

fn load_now(store: Store, upstream: &Upstream) -> Load {
    store.traffic.with(|heard| heard.load(&TrafficScope::Upstream(upstream.name.clone())))
}

fn is(store: Store, upstream: &Upstream, what: Option<&str>) -> bool {
    match what {
        Some("busy") => load_now(store, upstream).requests_per_s > 0.0,
        Some("idle") => load_now(store, upstream).requests_per_s == 0.0,
        Some("troubled") => {
            let load = load_now(store, upstream);
            let tone = store.with_view(|view| tone(view, upstream, load));
            tone != Tone::Good || load.failures_per_s > 0.0
        }
        Some("active_standby") => upstream.primary.is_some(),
        _ => true,
    }
}

fn sort_key(store: Store, column: usize, upstream: &Upstream) -> SortKey {
    match COLUMNS[column].name {
        "name" => (upstream.name.clone(), 0),
        "mode" => (mode(upstream), 0),
        "taking" => (String::new(), availability(upstream).available as u64),
        column => (String::new(), load_key(column, load_now(store, upstream))),
    }
}

fn row(store: Store, name: String) -> AnyView {
    let what = TrafficScope::Upstream(name.clone());
    let load = load_of(what.clone());
    let upstream = {
        let name = name.clone();
        Memo::new(move |_| store.with_view(|view| view.upstreams.get(&name).cloned()))
    };
    let how = text(move || {
        upstream.with(|upstream| match upstream {
            Some(upstream) => match &upstream.primary {
                Some(primary) => format!("primary {}", primary.endpoint.as_deref().unwrap_or("none")),
                None => mode(upstream),
            },
            None => String::new(),
        })
    });
    let state = live(move || {
        upstream.with(|upstream| {
            let upstream = upstream.as_ref()?;
            let seen = availability(upstream);
            let failing =
                failures(load.get()).map(|failing| format!("; {} % of requests fail", failing.number));
            let title = format!("{}{}", seen.in_words(), failing.unwrap_or_default());
            let tone = store.with_view(|view| tone(view, upstream, load.get()));
            Some(view! { <span title=title>{labelled(tone, &seen.short())}</span> }.into_any())
        })
    });
    let href = format!("/traffic/upstreams/{name}");
    view! {
        <div class="row" role="row" data-testid="upstream-row" data-name=name.clone()>
            <span role="cell" class="cell-name"><a href=href>{name_text(&name)}</a></span>
            <span role="cell" class="cell-mode clip" title=how data-testid=format!("mode-{name}")>{how}</span>
            <span role="cell" class="cell-taking number" data-testid=format!("taking-{name}")>{state}</span>
            <span role="cell" class="cell-rate number">{rate_cell(load, what)}</span>
            {load_cells(load)}
        </div>
    }
    .into_any()
}

fn no_match() -> AnyView {
    empty("No upstream passes the filters", view! { <p>"Remove a filter to see the others."</p> }.into_any())
}

fn none() -> AnyView {
    let why = "An upstream is a service, its endpoints are the addresses that it is served at, and a route says which \
               requests go to it. Every node's proxy listens for them. Begin with a process that registers itself:";
    let example =
        "ringmaster register web --addr 127.0.0.1:8000 -- python3 -m http.server --bind 127.0.0.1 8000";
    let before = "curl -X PUT …/v1/upstreams/web -H 'content-type: application/json' -d '{}'";
    let contents = view! { <p>{why}</p> <code>{before}</code> <code>{example}</code> };
    empty("There is no upstream yet", contents.into_any())
}
