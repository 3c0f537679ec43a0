//! The load of an upstream or an endpoint, as cells of a row that follow the stream.

use crate::{
    components::{
        live::{live, text},
        metric::spark_line,
        text::quantity,
    },
    format::{Quantity, grouped, micros, rate, time_of_day},
    store::{Store, use_store},
    traffic::{Load, TrafficHistory, TrafficScope},
    upstream_health::failure_tone,
};
use leptos::prelude::*;

/// Its load, over all nodes.
pub fn load_of(what: TrafficScope) -> Memo<Load> {
    let store = use_store();
    Memo::new(move |_| store.traffic.with(|heard| heard.load(&what)))
}

/// The rate, with its line.
pub fn rate_cell(load: Memo<Load>, what: TrafficScope) -> AnyView {
    let store = use_store();
    let line = move || store.traffic.with(|heard| heard.line(&what, |load| Some(load.requests_per_s)));
    view! {
        <span class="charted" title=since(store)>
            {spark_line("Requests per second, over two minutes".to_owned(), 1.0, line)}
            <b>{live(move || quantity(Some(rate(load.get().requests_per_s))))}</b>
        </span>
    }
    .into_any()
}

/// The start of the lines: nothing before the page was opened is stored.
pub fn since(store: Store) -> Signal<String> {
    let since = Memo::new(move |_| store.traffic.with(TrafficHistory::since));
    text(move || {
        since.get().map_or_else(String::new, |since| {
            format!("since {}", time_of_day(since, crate::browser::offset_minutes(since)))
        })
    })
}

/// The sort key of a row, where the column is one of these.
pub fn load_key(column: &str, load: Load) -> u64 {
    let thousandths = |value: f64| (value * 1_000.0) as u64;
    match column {
        "rate" => thousandths(load.requests_per_s),
        "failures" => thousandths(load.failure_percent().unwrap_or(0.0)),
        "p50" => load.p50_us.unwrap_or(0),
        "p99" => load.p99_us.unwrap_or(0),
        _ => load.in_flight,
    }
}

/// How many of a hundred fail.
pub fn failures(load: Load) -> Option<Quantity> {
    load.failure_percent().map(|percent| Quantity {
        number: if percent > 0.0 && percent < 0.1 { "< 0.1".to_owned() } else { format!("{percent:.1}") },
        unit: "%",
    })
}

/// The cells of failures, latencies and requests under way.
pub fn load_cells(load: Memo<Load>) -> AnyView {
    let cell = |name: &'static str, value: fn(Load) -> Option<Quantity>| {
        let class = move || {
            let failing = load.get().failure_percent().filter(|percent| name == "failures" && *percent > 0.0);
            let tone = failing.map_or("", |percent| failure_tone(percent).class());
            if tone.is_empty() {
                format!("cell-{name} number")
            } else {
                format!("cell-{name} number {tone} failing")
            }
        };
        view! {
            <span role="cell" class=text(class)>
                {live(move || quantity(value(load.get())))}
            </span>
        }
        .into_any()
    };
    view! {
        {cell("failures", failures)}
        {cell("p50", |load| load.p50_us.map(micros))}
        {cell("p99", |load| load.p99_us.map(micros))}
        {cell("flight", |load| Some(Quantity { number: grouped(load.in_flight), unit: "" }))}
    }
    .into_any()
}
