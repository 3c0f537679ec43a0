//! Why requests went where they went: some of the last decisions of all proxies, each with the endpoints that could
//! have been chosen, what the policy compared, and why one of them won.
//!
//! Each node keeps a few of its own. They are asked for again while requests come in, unless the reader has opened
//! one or holds the list.
//!
//! Test ids: `decision` (with `data-chosen`), `candidate`, `decisions-hold`.

use crate::{
    components::{
        live::{click, each, effect, live, memo, when, words},
        marks::badge,
        text::{moment, quantity, quiet, skeleton},
    },
    format::{capitalised, micros},
    store::Store,
    traffic::What,
    var::Var,
};
use gloo_timers::future::TimeoutFuture;
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{Timestamp, id::NodeId};
use serde_json::Value;
use std::sync::Arc;

/// How often nodes are asked, at the most.
const ASK_EVERY_MS: u32 = 2_000;
/// How many are shown.
const SHOWN: usize = 12;

/// One decision, and what tells it from others.
#[derive(Clone, PartialEq)]
struct Known {
    at: i64,
    node: u64,
    told: Arc<Value>,
}

pub fn decisions(store: Store, name: &str) -> AnyView {
    let all = Var::new(None::<Vec<Known>>);
    let (resting, held) = (Var::new(false), Var::new(false));
    let load = {
        let what = What::Upstream(name.to_owned());
        memo(move || store.traffic.with(|heard| heard.load(&what).requests_per_s > 0.0))
    };
    let name = name.to_owned();
    let up = memo(move || {
        let nodes = store.node_ids.get().into_iter().filter_map(|id| store.node(id));
        let up = nodes.filter(|node| node.is_up());
        up.map(|node| node.facts.with(|node| node.public_url.clone())).collect::<Vec<_>>()
    });
    effect(move || {
        let asked = all.with_untracked(Option::is_some);
        if resting.get() || held.get() || (asked && !load.get()) {
            return;
        }
        let urls = up.get();
        if urls.is_empty() {
            return;
        }
        resting.set(true);
        let name = name.clone();
        spawn_local(async move {
            let (mut found, mut answered) = (Vec::new(), false);
            for url in urls {
                // A node that is gone meanwhile has nothing to say.
                if let Ok(told) = store.api.decisions(url, &name).await {
                    answered = true;
                    found.extend(told["items"].as_array().into_iter().flatten().filter_map(known));
                }
            }
            let mut latest: Vec<Known> = Vec::new();
            for one in found {
                let place = latest.partition_point(|other| other.at > one.at);
                latest.insert(place, one);
                latest.truncate(SHOWN);
            }
            if answered && !held.try_with_untracked(|held| *held).unwrap_or(true) {
                all.set(Some(latest));
            }
            TimeoutFuture::new(ASK_EVERY_MS).await;
            resting.set(false);
        });
    });
    let list = memo(move || all.with(|all| all.clone().unwrap_or_default()));
    let nothing = move || match all.with(Option::is_some) {
        true => quiet(
            "No proxy has sent a request of late. Send one, and it is here with its reasons.".to_owned(),
        ),
        false => skeleton(4),
    };
    let hold = move || {
        view! {
            <button
                type="button"
                class="small"
                data-testid="decisions-hold"
                aria-pressed=words(move || held.get().to_string())
                on:click=click(move || held.update(|held| *held = !*held))
            >
                {words(move || if held.get() { "Held: go on" } else { "Hold" }.to_owned())}
            </button>
        }
        .into_any()
    };
    view! {
        <div class="decisions">
            {each(list, |known| (known.at.cast_unsigned(), known.node), move |known| decision(&known, held))}
        </div>
        {live(move || list.with(Vec::is_empty).then(nothing))}
        {when(move || !list.with(Vec::is_empty), hold)}
    }
    .into_any()
}

fn known(told: &Value) -> Option<Known> {
    let at: Timestamp = told["at"].as_str()?.parse().ok()?;
    Some(Known { at: at.as_millisecond(), node: told["node"].as_u64()?, told: Arc::new(told.clone()) })
}

fn text(told: &Value, name: &str) -> String {
    told[name].as_str().unwrap_or_default().to_owned()
}

fn decision(known: &Known, held: Var<bool>) -> AnyView {
    let told = Arc::clone(&known.told);
    let status = told["status"].as_u64().unwrap_or_default();
    let chosen = told["chosen"].as_str().unwrap_or("nobody").to_owned();
    let is_failing = status >= 500 || status == 0;
    let class = if is_failing { "number bad failing" } else { "number" };
    let at = Timestamp::from_millisecond(known.at).unwrap_or_default();
    let retries = told["retries"].as_u64().filter(|retries| *retries > 0);
    let retries = retries
        .map(|retries| view! { <span class="pill">{format!("sent again {retries}×")}</span> }.into_any());
    let candidates: Vec<AnyView> = told["considered"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| candidate(one, &chosen, is_failing))
        .collect();
    // Who opens one reads it: then nothing moves.
    let press = move || held.set(true);
    view! {
        <details data-testid="decision" data-chosen=chosen.clone()>
            <summary on:click=click(press)>
                {moment(at)} {badge(NodeId(known.node))}
                <code class="clip">{text(&told, "request")}</code>
                <span class="edge" aria-hidden="true">"→"</span> <b class="clip">{chosen.clone()}</b>
                <span class=class>{status.to_string()}</span>
                <span class="number">{quantity(told["took_us"].as_u64().map(micros))}</span>
            </summary>
            <p>{capitalised(&text(&told, "why"))} {retries}</p>
            <ul class="facts">{candidates}</ul>
            <p class="quiet">"route " {text(&told, "route")}</p>
        </details>
    }
    .into_any()
}

fn candidate(told: &Value, chosen: &str, is_failing: bool) -> AnyView {
    let name = text(told, "endpoint");
    let won = name == chosen;
    let why_ineligible = told["why_ineligible"].as_str().map(|why| format!("left out: {why}"));
    let says = why_ineligible.unwrap_or_else(|| text(told, "weighed"));
    view! {
        <li data-testid="candidate" class=if won && !is_failing { "won" } else { "" }>
            <b>{name}</b> " " {won.then_some(if is_failing { "✗ " } else { "✓ " })} <span class="quiet">{says}</span>
        </li>
    }
    .into_any()
}
