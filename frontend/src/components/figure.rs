//! One figure with its last minute.
//!
//! Test ids: `figure-writes`, `figure-p99`, `figure-lag`, `figure-fsyncs`, `figure-leader`.

use crate::{
    components::{
        live::{live, memo, words},
        marks::badge,
        text::{moment, quantity, revision},
    },
    figures::{self, Figures, spark_path},
    format::{self, Quantity, grouped, micros, rate},
    store::{Store, use_store},
};
use leptos::prelude::*;

/// The box of the line; the view box below says the same.
const WIDTH: f64 = 160.0;
const HEIGHT: f64 = 30.0;
/// Where zero is, in that box.
const BASELINE: &str = "M0 28.5H160";

/// What a card shows.
pub struct Figure {
    pub label: &'static str,
    /// A stable id for tests.
    pub id: &'static str,
    pub value: fn(&Figures) -> Option<Quantity>,
    /// What the line shows.
    pub line: fn(&Figures) -> Option<f64>,
    /// The least that the top of the line stands for.
    pub least_top: f64,
    /// Says more about the value.
    pub note: fn(&Figures) -> String,
}

/// A figure card: label, value, note, and the line of the last minute.
pub fn figure(Figure { label, id, value, line, least_top, note }: Figure) -> AnyView {
    let store = use_store();
    let latest = move || store.history.with(|history| history.latest().cloned());
    view! {
        <div class="figure" data-testid=id>
            <div class="figure-label">{label}</div>
            <div class="figure-value">
                {live(move || quantity(latest().as_ref().and_then(value)))}
            </div>
            <div class="figure-note">
                {words(move || latest().as_ref().map(note).unwrap_or_default())}
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
    line: impl Fn(&Figures) -> Option<f64> + Send + Sync + 'static,
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
    let path = words(move || spark_path(&values(), least_top, WIDTH, HEIGHT));
    view! {
        <svg class="spark" viewBox="0 0 160 30" preserveAspectRatio="none" role="img" aria-label=label>
            <path class="spark-base" d=BASELINE vector-effect="non-scaling-stroke" />
            <path d=path vector-effect="non-scaling-stroke" />
        </svg>
    }
    .into_any()
}

pub fn writes_figure() -> AnyView {
    figure(Figure {
        label: "Writes",
        id: "figure-writes",
        value: |figures| figures.writes_per_s.map(rate),
        line: |figures| figures.writes_per_s,
        least_top: 0.0,
        note: |_| "by the leader".to_owned(),
    })
}

pub fn commit_figure() -> AnyView {
    figure(Figure {
        label: "Commit p99",
        id: "figure-p99",
        value: |figures| figures.commit_p99_us.map(micros),
        line: |figures| figures.commit_p99_us.map(|us| us as f64),
        least_top: 0.0,
        note: |figures| match figures.commit_p50_us.map(micros) {
            Some(Quantity { number, unit }) => format!("p50 {number} {unit}"),
            None => "no write in 10 s".to_owned(),
        },
    })
}

/// A lag of an entry or two is the normal course of things, and looks like it.
pub const LEAST_LAG_SHOWN: f64 = 10.0;

pub fn lag_figure() -> AnyView {
    figure(Figure {
        label: "Replication lag",
        id: "figure-lag",
        value: |figures| {
            let unit = if figures.lag == Some(1) { "entry" } else { "entries" };
            figures.lag.map(|lag| Quantity { number: grouped(lag), unit })
        },
        line: |figures| figures.lag.map(|lag| lag as f64),
        least_top: LEAST_LAG_SHOWN,
        note: |_| "furthest behind".to_owned(),
    })
}

pub fn fsyncs_figure() -> AnyView {
    figure(Figure {
        label: "Fsyncs",
        id: "figure-fsyncs",
        value: |figures| figures.fsyncs_per_s.map(rate),
        line: |figures| figures.fsyncs_per_s,
        least_top: 0.0,
        note: |_| "of the leader's disk".to_owned(),
    })
}

/// Who leads, which term, and since when.
pub fn leader_figure(store: Store) -> AnyView {
    let leader = memo(move || {
        store.sample.with(|sample| {
            figures::leader(sample.as_ref()?).map(|leader| (leader.report.node, leader.report.term))
        })
    });
    let contents = live(move || {
        let Some((node, term)) = leader.get() else {
            return view! {
                <div class="figure-value none">{format::NONE}</div>
                <div class="figure-note">{if store.loaded.get() { "nobody says that it leads" } else { "" }}</div>
            }
            .into_any();
        };
        let elected = store.elected.get().filter(|elected| elected.leader == node && elected.term == term);
        let since = elected.map(|elected| {
            view! {
                <div class="figure-note">"since " {moment(elected.at)} ", revision " {revision(elected.revision)}</div>
            }
            .into_any()
        });
        view! {
            <div class="figure-value">
                <a class="plain" href=format!("/nodes/{node}")>{badge(node)} {format!(" node {node}")}</a>
            </div>
            <div class="figure-note">{format!("leads term {term}")}</div>
            {since}
        }
        .into_any()
    });
    view! { <div class="figure" data-testid="figure-leader"><div class="figure-label">"Leader"</div> {contents}</div> }
        .into_any()
}
