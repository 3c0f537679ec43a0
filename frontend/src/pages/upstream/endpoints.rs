//! The endpoints of an upstream: what each is there for, how it is, what it does, and the plans that change that.
//!
//! Test ids: `endpoint-row` (with `data-id`), `part-<id>`, `<action>-<id>` for `ready`, `drain`, `maintenance` and
//! `primary`, `edit-<id>`.

use super::Shown;
use crate::{
    address::use_address,
    components::{
        icons::{labelled, name_text},
        live::{click, each, either, live, optional, text, when},
        load::{load_cells, load_key, load_of, rate_cell},
        plan_button::{Offer, plan_button},
        sorting::{Column, Order, SortKey, column, number, places},
        text::empty,
    },
    format::{age_ms, ago, duration},
    store::{Store, use_store},
    traffic::{TrafficScope, part, verdict_tone},
};
use leptos::prelude::*;
use ringmaster_common::{
    Timestamp,
    action::Action,
    traffic::upstream::{Endpoint, EndpointState, Upstream},
};

const COLUMNS: [Column; 9] = [
    column("endpoint", "Endpoint"),
    column("state", "State"),
    column("health", "Health"),
    number("weight", "Weight", "Its share relative to the other endpoints"),
    number("rate", "Requests", "Per second, through all nodes"),
    number("failures", "Failing", "Answers of 500 and above, and requests that got none"),
    number("p50", "p50", "The highest of the nodes', over ten seconds"),
    number("p99", "p99", "The highest of the nodes', over ten seconds"),
    number("flight", "In flight", "Requests in flight"),
];
const ORDER: Order = Order { columns: &COLUMNS, latest_first: false, of: "" };

pub fn endpoints(store: Store, name: &str, upstream: Shown) -> AnyView {
    let address = use_address();
    let of = name.to_owned();
    let ids = {
        let of = of.clone();
        Memo::new(move |_| {
            let (column, descending) = ORDER.of(address);
            let sorted = address.parameter("sort").is_some();
            upstream.with(|upstream| {
                let Some(upstream) = upstream else { return Vec::new() };
                let all = &upstream.config.endpoints;
                if !sorted {
                    return all.iter().map(|endpoint| endpoint.id.clone()).collect::<Vec<_>>();
                }
                let keys: Vec<SortKey> =
                    all.iter().map(|endpoint| sort_key(store, &of, upstream, endpoint, column)).collect();
                places(&keys, descending).into_iter().map(|place| all[place].id.clone()).collect()
            })
        })
    };
    let table = move || {
        let of = of.clone();
        view! {
            <div class="table endpoints" role="table" aria-label="Endpoints">
                {ORDER.headings(true, true)}
                {each(ids, |id| id.clone(), move |id| row(store, &of, id, upstream))}
            </div>
        }
        .into_any()
    };
    let command = format!(
        "ringmaster register {name} --addr 127.0.0.1:8000 -- python3 -m http.server --bind 127.0.0.1 8000"
    );
    let none = move || {
        let why = "An endpoint is an address that serves the upstream. Add one that is there already, or have a process \
                   register itself for as long as it runs:";
        empty("It has no endpoint yet", view! { <p>{why}</p> <code>{command.clone()}</code> }.into_any())
    };
    either(move || ids.with(Vec::is_empty), none, table).into_any()
}

fn sort_key(store: Store, of: &str, upstream: &Upstream, endpoint: &Endpoint, column: usize) -> SortKey {
    match COLUMNS[column].name {
        "endpoint" => (endpoint.id.clone(), 0),
        "state" => (part(upstream, endpoint).to_owned(), 0),
        "health" => (endpoint.health.verdict.as_str().to_owned(), 0),
        "weight" => (String::new(), endpoint.weight.into()),
        column => {
            let what = TrafficScope::Endpoint(of.to_owned(), endpoint.id.clone());
            (String::new(), load_key(column, store.traffic.with(|heard| heard.load(&what))))
        }
    }
}

fn row(store: Store, of: &str, id: String, upstream: Shown) -> AnyView {
    let address = use_address();
    let what = TrafficScope::Endpoint(of.to_owned(), id.clone());
    let load = load_of(what.clone());
    let endpoint = {
        let id = id.clone();
        Memo::new(move |_| upstream.with(|upstream| upstream.as_ref()?.endpoint(&id).cloned()))
    };
    let says = move |read: fn(&Endpoint) -> String| {
        text(move || endpoint.with(|endpoint| endpoint.as_ref().map(read).unwrap_or_default()))
    };
    let is_for = text(move || {
        upstream.with(|upstream| {
            let known = |upstream: &Upstream| Some(part(upstream, endpoint.get().as_ref()?).to_owned());
            upstream.as_ref().and_then(known).unwrap_or_default()
        })
    });
    let long = move |since: Timestamp| duration(age_ms(since, store.now.get_untracked()));
    let set_since = text(move || {
        let known = endpoint.with(|endpoint| {
            endpoint.as_ref().map(|endpoint| (endpoint.state.as_str(), endpoint.state_since))
        });
        known.map(|(state, since)| format!("{state} for {}", long(since))).unwrap_or_default()
    });
    let health = live(move || {
        let (verdict, since) = endpoint.with(|endpoint| {
            endpoint.as_ref().map(|endpoint| (endpoint.health.verdict, endpoint.health.since))
        })?;
        let word = verdict.as_str();
        let title = since.map_or_else(|| word.to_owned(), |since| format!("{word} for {}", long(since)));
        Some(view! { <span title=title>{labelled(verdict_tone(verdict), word)}</span> }.into_any())
    });
    let registered =
        says(
            |endpoint| {
                if endpoint.registered.is_some() { "registered itself".to_owned() } else { String::new() }
            },
        );
    let ejected = ejected(store, of, &id);
    let is_open = {
        let id = id.clone();
        Memo::new(move |_| address.parameter("endpoint").as_deref() == Some(&id))
    };
    let toggle = {
        let id = id.clone();
        move || address.set_parameter("endpoint", (!is_open.get_untracked()).then_some(&id), true)
    };
    let edit = {
        let id = id.clone();
        move || address.set_parameter("edit", Some(&id), true)
    };
    let offered = {
        let (of, id) = (of.to_owned(), id.clone());
        Memo::new(move |_| upstream.with(|upstream| offers(upstream.as_ref(), &of, &id)))
    };
    let buttons = {
        let id = id.clone();
        live(move || {
            offered.get().into_iter().map(|offer| plan_button("endpoint", &id, offer)).collect_view()
        })
    };
    let past = {
        let (of, id) = (of.to_owned(), id.clone());
        move || super::observers::past(store, of.clone(), id.clone(), upstream)
    };
    view! {
        <div
            class=text(move || if is_open.get() { "row marked" } else { "row" }.to_owned())
            role="row"
            data-testid="endpoint-row"
            data-id=id.clone()
        >
            <span role="cell" class="cell-endpoint">
                <button type="button" class="sort name-button" title="Results of its checks" aria-expanded=optional(move || Some(is_open.get().to_string())) on:click=click(toggle)>
                    {name_text(&id)}
                </button>
                <code class="clip">{says(|endpoint| endpoint.addr.clone())}</code>
            </span>
            <span role="cell" class="cell-state" data-testid=format!("part-{id}")><span title=set_since>{is_for}</span> <small>{registered}</small></span>
            <span role="cell" class="cell-health">{health} {ejected}</span>
            <span role="cell" class="cell-weight number">{says(|endpoint| endpoint.weight.to_string())}</span>
            <span role="cell" class="cell-rate number">{rate_cell(load, what)}</span>
            {load_cells(load)}
            <span role="cell" class="cell-action controls">
                {buttons}
                <button type="button" class="small" data-testid=format!("edit-{id}") aria-label=format!("Edit {id}") on:click=click(edit)>
                    "Edit"
                </button>
            </span>
            {when(move || is_open.get(), past)}
        </div>
    }
    .into_any()
}

/// Which nodes leave it out for a while, because it kept failing.
fn ejected(store: Store, of: &str, id: &str) -> AnyView {
    let (of, id) = (of.to_owned(), id.to_owned());
    let by = Memo::new(move |_| {
        store.traffic.with(|heard| {
            let here = heard.latest().iter().filter(|metrics| metrics.upstream == of);
            let out = here.filter(|metrics| {
                metrics.endpoints.iter().any(|known| known.endpoint == id && known.ejected_for_ms.is_some())
            });
            out.map(|metrics| metrics.node.0).collect::<Vec<u64>>()
        })
    });
    let shown = move || {
        let text = text(move || format!("ejected by {}", crate::format::listed(&by.get())));
        view! { <small title="It kept failing, so these nodes leave it out for a while">{text}</small> }
            .into_any()
    };
    when(move || !by.with(Vec::is_empty), shown).into_any()
}

/// The actions for an endpoint, in the order of the buttons.
fn offers(upstream: Option<&Upstream>, of: &str, id: &str) -> Vec<Offer> {
    let Some((upstream, endpoint)) = upstream.and_then(|upstream| Some((upstream, upstream.endpoint(id)?)))
    else {
        return Vec::new();
    };
    let set = |state| Action::SetEndpointState { upstream: of.to_owned(), endpoint: id.to_owned(), state };
    let mut offers = Vec::new();
    let stands_by = upstream.primary.as_ref().is_some_and(|primary| primary.endpoint.as_deref() != Some(id));
    if stands_by && endpoint.state == EndpointState::Ready {
        let action = Action::FailOverUpstream { upstream: of.to_owned(), to: Some(id.to_owned()) };
        offers.push(Offer::new("primary", "Make primary", action));
    }
    for (state, name, label) in [
        (EndpointState::Ready, "ready", "Ready"),
        (EndpointState::Drain, "drain", "Drain"),
        (EndpointState::Maintenance, "maintenance", "Maintenance"),
    ] {
        if state != endpoint.state {
            offers.push(Offer::new(name, label, set(state)));
        }
    }
    offers
}

/// How long ago, for lists of the past.
pub fn since(at: Timestamp) -> Signal<String> {
    let store = use_store();
    text(move || ago(at, store.now.get()))
}
