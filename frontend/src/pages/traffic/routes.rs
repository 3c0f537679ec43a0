//! The routes, and which of them give way to others.
//!
//! Test ids: `route-row` (with `data-name`), `edit-route-<name>`, `route-count`.

use crate::{
    address::use_address,
    components::{
        filters::has_words,
        icons::{name_text, sign},
        live::{click, each, either, live, text, when},
        sorting::{Column, Order, SortKey, column, places},
        text::{empty, quiet},
    },
    format::{count, grouped, listed},
    store::Store,
    tone::Tone,
    traffic::gives_way,
};
use leptos::prelude::*;
use ringmaster_common::{traffic::route::Route, view::ClusterView};

const COLUMNS: [Column; 5] = [
    column("route", "Route"),
    column("listener", "Listener"),
    column("match", "Host and path"),
    column("leads", "Upstream"),
    column("gives", "Overridden by"),
];
const ORDER: Order = Order { columns: &COLUMNS, latest_first: false, of: "route-" };

/// The names of the routes that have the words, in order.
pub fn wanted(store: Store, filter: Memo<String>) -> Memo<Vec<String>> {
    let address = use_address();
    Memo::new(move |_| {
        let (column, descending) = ORDER.of(address);
        store.with_view(|view| {
            let passes = |route: &&Route| {
                let (name, leads) = (&route.name, &route.spec.upstream);
                let text = format!("{name} {} {} {leads}", listener(route), matched(route));
                filter.with(|words| has_words(&text, words))
            };
            let found: Vec<&Route> = view.routes.values().filter(passes).collect();
            let key = |route: &&Route| -> SortKey {
                match COLUMNS[column].name {
                    "listener" => (listener(route), 0),
                    "match" => (matched(route), 0),
                    "leads" => (route.spec.upstream.clone(), 0),
                    "gives" => (String::new(), winners(view, route).len() as u64),
                    _ => (route.name.clone(), 0),
                }
            };
            let keys: Vec<SortKey> = found.iter().map(key).collect();
            places(&keys, descending).into_iter().map(|place| found[place].name.clone()).collect()
        })
    })
}

pub fn count_of(store: Store, shown: Memo<Vec<String>>) -> AnyView {
    let number = text(move || {
        let all = count(store.with_view(|view| view.routes.values().len()) as u64, "route");
        format!("{} of {all}", grouped(shown.with(Vec::len) as u64))
    });
    view! { <span class="quiet" data-testid="route-count">{number}</span> }.into_any()
}

pub fn routes(store: Store, shown: Memo<Vec<String>>) -> AnyView {
    let no_match = || quiet("No route has these words.".to_owned());
    let table = move || {
        view! {
            <div class="table routes" role="table" aria-label="Routes">
                {ORDER.headings(true, true)} {each(shown, |name| name.clone(), move |name| row(store, name))}
            </div>
            {when(move || shown.with(Vec::is_empty), no_match)}
        }
        .into_any()
    };
    let is_empty = move || store.with_view(|view| view.routes.values().len() == 0);
    either(is_empty, none, table).into_any()
}

fn listener(route: &Route) -> String {
    route.spec.listener.clone().unwrap_or_else(|| "all proxies".to_owned())
}

/// Which requests it matches.
fn matched(route: &Route) -> String {
    format!("{} {}", route.spec.host.as_deref().unwrap_or("any host"), route.spec.path_prefix)
}

/// The names of those that take some of its requests.
fn winners(view: &ClusterView, route: &Route) -> Vec<String> {
    let wins = |other: &&Route| gives_way(&route.spec, &other.spec);
    view.routes.values().filter(wins).map(|other| other.name.clone()).collect()
}

fn none() -> AnyView {
    let why = "Without a route no request reaches an upstream. One that matches every path is a good start:";
    let example = "curl -X PUT …/v1/routes/web -H 'content-type: application/json' -d '{\"path_prefix\": \"/\", \"upstream\": \"web\"}'";
    empty("There is no route yet", view! { <p>{why}</p> <code>{example}</code> }.into_any())
}

fn row(store: Store, name: String) -> AnyView {
    let address = use_address();
    let found = {
        let name = name.clone();
        Memo::new(move |_| {
            store.with_view(|view| {
                let route = view.routes.get(&name)?;
                Some((route.clone(), winners(view, route)))
            })
        })
    };
    let says = move |read: fn(&Route) -> String| {
        text(move || found.with(|found| found.as_ref().map(|(route, _)| read(route)).unwrap_or_default()))
    };
    let (listener, matched) = (says(listener), says(matched));
    let leads = live(move || {
        let upstream = found.with(|found| Some(found.as_ref()?.0.spec.upstream.clone()))?;
        let href = format!("/traffic/upstreams/{upstream}");
        Some(view! { <a href=href>{upstream}</a> }.into_any())
    });
    let gives = live(move || {
        let winners = found.with(|found| found.as_ref().map(|(_, winners)| winners.clone()))?;
        let why = "More specific routes take some of the requests that this one matches, too";
        (!winners.is_empty()).then(|| {
            view! { <span class="labelled note" title=why>{sign(Tone::Note)} <span class="clip">{listed(&winners)}</span></span> }
                .into_any()
        })
    });
    let edit = {
        let name = name.clone();
        move || address.set_parameter("edit", Some(&name), true)
    };
    view! {
        <div class="row" role="row" data-testid="route-row" data-name=name.clone()>
            <span role="cell" class="cell-route">{name_text(&name)}</span>
            <span role="cell" class="cell-listener clip" title=listener>{listener}</span>
            <span role="cell" class="cell-match clip" title=matched><code>{matched}</code></span>
            <span role="cell" class="cell-leads clip">{leads}</span>
            <span role="cell" class="cell-gives">{gives}</span>
            <span role="cell" class="cell-action">
                <button
                    type="button"
                    class="small"
                    data-testid=format!("edit-route-{name}")
                    aria-label=format!("Edit route {name}")
                    on:click=click(edit)
                >
                    "Edit"
                </button>
            </span>
        </div>
    }
    .into_any()
}
