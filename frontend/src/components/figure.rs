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
                viewBox="0 0 160 30"
                preserveAspectRatio="none"
                role="img"
                aria-label=format!("{label} in the last minute")
            >
                <path class="spark-base" d=BASELINE vector-effect="non-scaling-stroke" />
                <path
                    d=words(move || store.history.with(|history| spark_path(&history.of(line), WIDTH, HEIGHT)))
                    vector-effect="non-scaling-stroke"
                />
            </svg>
        </div>
    }
    .into_any()
}
