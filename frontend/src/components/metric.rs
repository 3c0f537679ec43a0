//! Metric cards: a value and its last minute.
//!
//! Test ids: `metric-requests`, `metric-locks`, `metric-writes`, `metric-p99`, `metric-lag`, `metric-fsyncs`, `metric-leader`.

use crate::{
    components::{
        icons::badge,
        live::{live, text},
        text::{moment, quantity, revision},
    },
    format::{self, Quantity, grouped, micros, rate},
    metrics::{ClusterMetrics, spark_path},
    store::{Store, use_store},
    traffic::TrafficScope,
    upstream_health,
};
use leptos::prelude::*;
use ringmaster_common::id::NodeId;

/// The box of the line; the view box below says the same.
const WIDTH: f64 = 160.0;
const HEIGHT: f64 = 30.0;
/// Where zero is, in that box.
const BASELINE: &str = "M0 28.5H160";

/// The content of a card.
pub struct Metric {
    pub label: &'static str,
    /// A stable id for tests.
    pub id: &'static str,
    pub value: fn(&ClusterMetrics) -> Option<Quantity>,
    /// The values of the line.
    pub line: fn(&ClusterMetrics) -> Option<f64>,
    /// The least that the top of the line stands for.
    pub least_top: f64,
    /// Says more about the value.
    pub note: fn(&ClusterMetrics) -> String,
}

/// A metric card: label, value, note, and the line of the last minute.
pub fn metric(Metric { label, id, value, line, least_top, note }: Metric) -> AnyView {
    let store = use_store();
    let latest = move || store.history.with(|history| history.latest().cloned());
    view! {
        <div class="metric" data-testid=id>
            <div class="metric-label">{label}</div>
            <div class="metric-value">
                {live(move || quantity(latest().as_ref().and_then(value)))}
            </div>
            <div class="metric-note">
                {text(move || latest().as_ref().map(note).unwrap_or_default())}
            </div>
            {spark(format!("{label} in the last minute"), least_top, line)}
        </div>
    }
    .into_any()
}

/// The line of the last minute.
pub fn spark(
    label: String,
    least_top: f64,
    line: impl Fn(&ClusterMetrics) -> Option<f64> + Send + Sync + 'static,
) -> AnyView {
    let store = use_store();
    spark_line(label, least_top, move || store.history.with(|history| history.of(&line)))
}

/// A line of values, the newest at the right.
pub fn spark_line(
    label: String,
    least_top: f64,
    values: impl Fn() -> Vec<Option<f64>> + Send + Sync + 'static,
) -> AnyView {
    let path = text(move || spark_path(&values(), least_top, WIDTH, HEIGHT));
    view! {
        <svg class="spark" viewBox="0 0 160 30" preserveAspectRatio="none" role="img" aria-label=label>
            <path class="spark-base" d=BASELINE vector-effect="non-scaling-stroke" />
            <path d=path vector-effect="non-scaling-stroke" />
        </svg>
    }
    .into_any()
}

pub fn writes_metric() -> AnyView {
    metric(Metric {
        label: "Writes",
        id: "metric-writes",
        value: |metrics| metrics.writes_per_s.map(rate),
        line: |metrics| metrics.writes_per_s,
        least_top: 0.0,
        note: |_| "by the leader".to_owned(),
    })
}

pub fn commit_metric() -> AnyView {
    metric(Metric {
        label: "Commit p99",
        id: "metric-p99",
        value: |metrics| metrics.commit_p99_us.map(micros),
        line: |metrics| metrics.commit_p99_us.map(|us| us as f64),
        least_top: 0.0,
        note: |metrics| match metrics.commit_p50_us.map(micros) {
            Some(Quantity { number, unit }) => format!("p50 {number} {unit}"),
            None => "no write in 10 s".to_owned(),
        },
    })
}

/// A lag of an entry or two is the normal course of things, and looks like it.
pub const LEAST_LAG_SHOWN: f64 = 10.0;

pub fn lag_metric() -> AnyView {
    metric(Metric {
        label: "Replication lag",
        id: "metric-lag",
        value: |metrics| {
            let unit = if metrics.lag == Some(1) { "entry" } else { "entries" };
            metrics.lag.map(|lag| Quantity { number: grouped(lag), unit })
        },
        line: |metrics| metrics.lag.map(|lag| lag as f64),
        least_top: LEAST_LAG_SHOWN,
        note: |_| "furthest behind".to_owned(),
    })
}

pub fn fsyncs_metric() -> AnyView {
    metric(Metric {
        label: "Fsyncs",
        id: "metric-fsyncs",
        value: |metrics| metrics.fsyncs_per_s.map(rate),
        line: |metrics| metrics.fsyncs_per_s,
        least_top: 0.0,
        note: |_| "of the leader's disk".to_owned(),
    })
}

/// The requests through all proxies, and how many of them fail.
pub fn requests_metric(store: Store) -> AnyView {
    let load = Memo::new(move |_| store.traffic.with(|heard| heard.load(&TrafficScope::All)));
    let values =
        move || store.traffic.with(|heard| heard.line(&TrafficScope::All, |load| Some(load.requests_per_s)));
    let failing = move || load.get().failure_percent().filter(|percent| *percent > 0.0);
    let note = text(move || {
        let failing = match failing() {
            Some(percent) if percent < 0.1 => "< 0.1 % failing".to_owned(),
            Some(percent) => format!("{percent:.1} % failing"),
            None => "none failing".to_owned(),
        };
        // A node that does not report may answer none of its clients.
        let ids = store.node_ids.get();
        let reports = |id: &&NodeId| store.node(**id).is_some_and(|node| node.report.with(Option::is_some));
        match ids.iter().filter(reports).count() {
            all if all == ids.len() || all == 0 => failing,
            some => format!("{failing}, {some} of {} proxies", ids.len()),
        }
    });
    let class = text(move || {
        let tone = failing().map_or("", |percent| upstream_health::failure_tone(percent).class());
        format!("metric-note {tone}")
    });
    view! {
        <div class="metric" data-testid="metric-requests">
            <div class="metric-label"><a class="plain" href="/traffic">"Requests"</a></div>
            <div class="metric-value">{live(move || quantity(Some(rate(load.get().requests_per_s))))}</div>
            <div class=class>{note}</div>
            {spark_line("Requests over two minutes".to_owned(), 1.0, values)}
        </div>
    }
    .into_any()
}

/// The locks that are held, and how many requests wait for one.
pub fn locks_metric(store: Store) -> AnyView {
    let held = text(move || grouped(store.lock_counts.with(|counts| counts.held)));
    let waiting =
        text(move || format!("{} waiting", grouped(store.lock_counts.with(|counts| counts.waiting))));
    view! {
        <div class="metric" data-testid="metric-locks">
            <div class="metric-label"><a class="plain" href="/locks">"Locks held"</a></div>
            <div class="metric-value">{held}</div>
            <div class="metric-note">{waiting}</div>
        </div>
    }
    .into_any()
}

/// The leader, its term, and the time of its election.
pub fn leader_metric(store: Store) -> AnyView {
    let leader = Memo::new(move |_| store.leadership());
    let contents = live(move || {
        let Some((node, term)) = leader.get() else {
            return view! {
                <div class="metric-value none">{format::NONE}</div>
                <div class="metric-note">{match (store.loaded.get(), store.is_disconnected()) {
                    (false, _) => "",
                    (true, true) => "unknown while disconnected",
                    (true, false) => "no leader",
                }}</div>
            }
            .into_any();
        };
        let elected = store.elected.get().filter(|elected| elected.leader == node && elected.term == term);
        let since = elected.map(|elected| {
            view! {
                <div class="metric-note">"since " {moment(elected.at)} ", revision " {revision(elected.revision)}</div>
            }
            .into_any()
        });
        view! {
            <div class="metric-value">
                <a class="plain" href=format!("/nodes/{node}")>{badge(node)} {format!(" node {node}")}</a>
            </div>
            <div class="metric-note">{format!("leads term {term}")}</div>
            {since}
        }
        .into_any()
    });
    view! { <div class="metric" data-testid="metric-leader"><div class="metric-label">"Leader"</div> {contents}</div> }
        .into_any()
}
