//! The routes, and which of them give way to others.
//!
//! Test ids: `route-row` (with `data-name`), `edit-route-<name>`.

use crate::{
    address::use_address,
    components::{
        live::{click, each, either, live, memo, text_key, words},
        marks::{name_text, sign},
        sorting::{Column, Order, column},
        text::{empty, quiet},
    },
    format::{count, listed},
    situation::Tone,
    store::Store,
    traffic::gives_way,
};
use leptos::prelude::*;
use ringmaster_common::traffic::route::Route;

const COLUMNS: [Column; 5] = [
    column("route", "Route"),
    column("listener", "Listener"),
    column("match", "Host and path"),
    column("leads", "Leads to"),
    column("gives", "Gives way to"),
];
const ORDER: Order = Order { columns: &COLUMNS, latest_first: false };

pub fn count_of(store: Store) -> AnyView {
    let number = words(move || count(store.with_view(|view| view.routes.values().len()) as u64, "route"));
    live(move || quiet(number.get())).into_any()
}

pub fn routes(store: Store) -> AnyView {
    let names = memo(move || store.with_view(|view| view.routes.keys().cloned().collect::<Vec<String>>()));
    let table = move || {
        view! {
            <div class="table routes" role="table" aria-label="Routes">
                {ORDER.headings(false, true)} {each(names, |name| text_key(name), move |name| row(store, name))}
            </div>
        }
        .into_any()
    };
    either(move || names.with(Vec::is_empty), none, table).into_any()
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
        memo(move || {
            store.with_view(|view| {
                let route = view.routes.get(&name)?;
                let wins = |other: &&Route| gives_way(&route.spec, &other.spec);
                let winners: Vec<String> =
                    view.routes.values().filter(wins).map(|other| other.name.clone()).collect();
                Some((route.clone(), winners))
            })
        })
    };
    let says = move |read: fn(&Route) -> String| {
        words(move || found.with(|found| found.as_ref().map(|(route, _)| read(route)).unwrap_or_default()))
    };
    let listener = says(|route| route.spec.listener.clone().unwrap_or_else(|| "every node's".to_owned()));
    let matched = says(|route| {
        let host = route.spec.host.as_deref().unwrap_or("any host");
        format!("{host} {}", route.spec.path_prefix)
    });
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
