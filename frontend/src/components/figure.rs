//! One figure with its last minute.

use crate::{
    components::{
        live::{live, words},
        text::quantity,
    },
    figures::{Figures, spark_path},
    format::Quantity,
    store::use_store,
};
use leptos::prelude::*;

const WIDTH: f64 = 160.0;
const HEIGHT: f64 = 30.0;
/// Where zero is.
const BASE: f64 = HEIGHT - 1.5;

/// What a card shows.
pub struct Figure {
    pub label: &'static str,
    /// A stable id for tests.
    pub id: &'static str,
    pub value: fn(&Figures) -> Option<Quantity>,
    /// What the line shows.
    pub line: fn(&Figures) -> Option<f64>,
    /// Says more about the value.
    pub note: fn(&Figures) -> String,
}

/// A figure card: label, value, note, and the line of the last minute.
pub fn figure(Figure { label, id, value, line, note }: Figure) -> AnyView {
    let store = use_store();
    let latest = move || store.sample.with(|sample| sample.as_ref().map(Figures::of));
    view! {
        <div class="figure" data-testid=id>
            <div class="figure-label">{label}</div>
            <div class="figure-value">
                {live(move || quantity(latest().as_ref().and_then(value)))}
            </div>
            <div class="figure-note">
                {words(move || latest().as_ref().map(note).unwrap_or_default())}
            </div>
            <svg
                class="spark"
                viewBox=format!("0 0 {WIDTH} {HEIGHT}")
                preserveAspectRatio="none"
                role="img"
                aria-label=format!("{label} in the last minute")
            >
                <path class="spark-base" d=format!("M0 {BASE}H{WIDTH}") vector-effect="non-scaling-stroke" />
                <path
                    d=words(move || store.history.with(|history| spark_path(&history.of(line), WIDTH, HEIGHT)))
                    vector-effect="non-scaling-stroke"
                />
            </svg>
        </div>
    }
    .into_any()
}
