//! The composition: one store, one stream, one address, and the page that it names.

use crate::{
    address::{Address, Page, use_address, with_parameter},
    api::Api,
    components::{
        chaos::ChaosAction,
        drawer::plan_drawer,
        live::live,
        palette::{Palette, palette_dialog},
        plan_panel::PlanPanel,
        running_list::Scrolled,
        shell::shell,
        shortcuts,
        theme::ThemeSwitch,
    },
    pages::{
        audit::audit_page, consensus::consensus_page, events::events_page, locks::locks_page,
        missing::missing, node::node_page, nodes::nodes_page, operation::operation_page,
        operations::operations_page, overview::overview, settings::settings_page, traffic::traffic_page,
        upstream::upstream_page,
    },
    store::Store,
    stream,
};
use leptos::prelude::*;

pub fn app() -> impl IntoView {
    let peers = stream::known_peers();
    let store = Store::new(Api::new(), peers.current().clone());
    provide_context(store);
    stream::start(store, peers);
    let address = Address::follow();
    provide_context(address);
    provide_context(PlanPanel::new());
    let palette = Palette::new();
    provide_context(palette);
    shortcuts::listen(palette);
    provide_context(ThemeSwitch::new());
    provide_context(ChaosAction::new());
    provide_context(Scrolled(RwSignal::new(false)));
    view! { {shell(page)} {plan_drawer()} {palette_dialog()} }
}

/// The page that the address names. It stays while only the query changes.
fn page() -> AnyView {
    let address = use_address();
    let page = Memo::new(move |_| address.path.with(|path| Page::of(path)));
    Effect::new(move |is_open: Option<bool>| {
        match page.get() {
            // As the API names it: the plan opens over the overview.
            Page::Plan(id) => address.go(&with_parameter("/", "", "plan", Some(&id.to_string())), true),
            _ => crate::browser::scroll_to_top("main"),
        }
        // The keyboard and a screen reader continue on the new page.
        if is_open == Some(true) {
            crate::browser::focus("#main");
        }
        true
    });
    live(move || {
        let page = page.get();
        untrack(|| match page {
            Page::Overview | Page::Plan(_) => overview(),
            Page::Nodes => nodes_page(),
            Page::Node(id) => node_page(id),
            Page::Consensus => consensus_page(),
            Page::Locks => locks_page(),
            Page::Traffic => traffic_page(),
            Page::Upstream(name) => upstream_page(name),
            Page::Operations => operations_page(),
            Page::Operation(id) => operation_page(id),
            Page::Events => events_page(),
            Page::Audit => audit_page(),
            Page::Settings => settings_page(),
            Page::Missing => missing(),
        })
    })
    .into_any()
}
