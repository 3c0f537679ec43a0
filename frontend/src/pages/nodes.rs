//! All nodes, who sees whom, and in a demo the means to break them.

use crate::{
    components::{chaos::ChaosPanel, matrix::Matrix, node_table::NodeTable, text::skeleton},
    store::use_store,
};
use leptos::prelude::*;

#[component]
pub fn NodesPage() -> impl IntoView {
    let store = use_store();
    view! {
        <div class="page">
            <h1>"Nodes"</h1>
            <section class="card wide" aria-label="Nodes">
                <NodeTable sortable=true />
            </section>
            <div class="columns">
                <section class="card" aria-labelledby="matrix-title">
                    <h3 id="matrix-title">"Who sees whom"</h3>
                    <Show when=move || store.loaded.get() fallback=|| skeleton(3)>
                        <Matrix />
                    </Show>
                </section>
                <ChaosPanel />
            </div>
        </div>
    }
}
