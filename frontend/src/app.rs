//! The composition: one store, one stream, one router.

use crate::{
    api::Api,
    components::{
        desk::Desk,
        drawer::PlanDrawer,
        palette::Palette,
        shell::{Shell, provide_theme},
    },
    pages::{
        events::EventsPage, missing::Missing, node::NodePage, nodes::NodesPage, operation::OperationPage,
        operations::OperationsPage, overview::Overview, plan::PlanPage,
    },
    store::Store,
    stream,
};
use leptos::prelude::*;
use leptos_router::{
    components::{Route, Router, Routes},
    path,
};

#[component]
pub fn App() -> impl IntoView {
    let peers = stream::known_peers();
    let store = Store::new(Api::new(), peers.current().clone());
    provide_context(store);
    stream::start(store, peers);
    view! {
        <Router>
            <Inside />
        </Router>
    }
}

/// What needs the router around it.
#[component]
fn Inside() -> impl IntoView {
    provide_context(Desk::new());
    provide_context(Palette::new());
    provide_theme();
    view! {
        <Shell>
            <Routes fallback=Missing>
                <Route path=path!("/") view=Overview />
                <Route path=path!("/nodes") view=NodesPage />
                <Route path=path!("/nodes/:id") view=NodePage />
                <Route path=path!("/operations") view=OperationsPage />
                <Route path=path!("/operations/:id") view=OperationPage />
                <Route path=path!("/plans/:id") view=PlanPage />
                <Route path=path!("/events") view=EventsPage />
            </Routes>
        </Shell>
        <PlanDrawer />
        <crate::components::palette::PaletteDialog />
    }
}
