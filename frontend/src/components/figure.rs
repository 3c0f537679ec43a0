//! One figure with its last minute.

use crate::{
    components::text::quantity,
    figures::{Figures, spark_path},
    format::Quantity,
    store::use_store,
};
use leptos::prelude::*;

const WIDTH: f64 = 160.0;
const HEIGHT: f64 = 30.0;

/// A figure card: label, value, note, and the line of the last minute.
#[component]
pub fn Figure(
    label: &'static str,
    /// A stable id for tests.
    id: &'static str,
    value: fn(&Figures) -> Option<Quantity>,
    /// What the line shows.
    line: fn(&Figures) -> Option<f64>,
    /// Says more about the value.
    #[prop(into)]
    note: Signal<String>,
) -> impl IntoView {
    let store = use_store();
    let latest = Memo::new(move |_| {
        store.sample.with(|sample| sample.as_ref().map(Figures::of).and_then(|figures| value(&figures)))
    });
    let path = move || store.history.with(|history| spark_path(&history.of(line), WIDTH, HEIGHT));
    view! {
        <div class="figure" data-testid=id>
            <div class="figure-label">{label}</div>
            <div class="figure-value">{move || quantity(latest.get())}</div>
            <div class="figure-note">{note}</div>
            <svg
                class="spark"
                viewBox=format!("0 0 {WIDTH} {HEIGHT}")
                preserveAspectRatio="none"
                role="img"
                aria-label=format!("{label} in the last minute")
            >
                <path d=path vector-effect="non-scaling-stroke" />
            </svg>
        </div>
    }
}
