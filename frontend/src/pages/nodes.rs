//! All nodes, their reachability, and in a demo the chaos actions.

use crate::{
    components::{
        chaos::chaos_panel,
        live::either,
        matrix::matrix,
        node_table::node_table,
        text::{card, skeleton},
    },
    store::use_store,
};
use leptos::prelude::*;

pub fn nodes_page() -> AnyView {
    let store = use_store();
    let sees = either(move || store.loaded.get(), matrix, || skeleton(3));
    view! {
        <div class="page multi">
            <h1>"Nodes"</h1>
            <section class="card" aria-label="Nodes">{node_table(true)}</section>
            <div class="columns">
                {card("", "matrix-title", "Reachability", ().into_any(), sees.into_any())}
                {chaos_panel(None)}
            </div>
        </div>
    }
    .into_any()
}
