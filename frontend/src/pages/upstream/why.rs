//! Why requests went where they went: some of the last decisions of all proxies, each with the endpoints that could
//! have been chosen, what the policy compared, and why one of them won.
//!
//! Each node keeps a few of its own. They are asked for again while requests come in, unless the reader has opened
//! one or holds the list.
//!
//! Test ids: `decision` (with `data-chosen`), `candidate`, `decisions-hold`.

use crate::{
    components::{
        icons::badge,
        live::{click, each, live, text, when},
        text::{moment, quantity, quiet, skeleton},
    },
    format::{capitalised, micros},
    store::Store,
    traffic::TrafficScope,
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

/// One decision, with its key.
#[derive(Clone, PartialEq)]
struct Known {
    at: i64,
    node: u64,
    decision: Arc<Value>,
}

pub fn decisions(store: Store, name: &str) -> AnyView {
    let all = RwSignal::new(None::<Vec<Known>>);
    let (resting, held) = (RwSignal::new(false), RwSignal::new(false));
    let load = {
        let what = TrafficScope::Upstream(name.to_owned());
        Memo::new(move |_| store.traffic.with(|heard| heard.load(&what).requests_per_s > 0.0))
    };
    let name = name.to_owned();
    let up = Memo::new(move |_| {
        let nodes = store.node_ids.get().into_iter().filter_map(|id| store.node(id));
        let up = nodes.filter(|node| node.is_up());
        up.map(|node| node.facts.with(|node| node.public_url.clone())).collect::<Vec<_>>()
    });
    Effect::new(move |_| {
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
                if let Ok(decision) = store.api.decisions(url, &name).await {
                    answered = true;
                    found.extend(decision["items"].as_array().into_iter().flatten().filter_map(known));
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
    let list = Memo::new(move |_| all.with(|all| all.clone().unwrap_or_default()));
    let nothing = move || match all.with(Option::is_some) {
        true => quiet(
            "No proxy has sent a request recently. Send one to see it here with its reasons.".to_owned(),
        ),
        false => skeleton(4),
    };
    let hold = move || {
        view! {
            <button
                type="button"
                class="small"
                data-testid="decisions-hold"
                aria-pressed=text(move || held.get().to_string())
                on:click=click(move || held.update(|held| *held = !*held))
            >
                {text(move || if held.get() { "Paused · Resume" } else { "Pause" }.to_owned())}
            </button>
        }
        .into_any()
    };
    view! {
        <div class="decisions">
            {each(list, |known| (known.at.cast_unsigned(), known.node), move |known| decision_row(&known, held))}
        </div>
        {live(move || list.with(Vec::is_empty).then(nothing))}
        {when(move || !list.with(Vec::is_empty), hold)}
    }
    .into_any()
}

fn known(decision: &Value) -> Option<Known> {
    let at: Timestamp = decision["at"].as_str()?.parse().ok()?;
    Some(Known {
        at: at.as_millisecond(),
        node: decision["node"].as_u64()?,
        decision: Arc::new(decision.clone()),
    })
}

fn word(decision: &Value, name: &str) -> String {
    decision[name].as_str().unwrap_or_default().to_owned()
}

fn decision_row(known: &Known, held: RwSignal<bool>) -> AnyView {
    let decision = Arc::clone(&known.decision);
    let status = decision["status"].as_u64().unwrap_or_default();
    let chosen = decision["chosen"].as_str().unwrap_or("none (503)").to_owned();
    let is_failing = status >= 500 || status == 0;
    let class = if is_failing { "number bad failing" } else { "number" };
    let at = Timestamp::from_millisecond(known.at).unwrap_or_default();
    let retries = decision["retries"].as_u64().filter(|retries| *retries > 0);
    let retries =
        retries.map(|retries| view! { <span class="pill">{format!("retried {retries}×")}</span> }.into_any());
    let candidates: Vec<AnyView> = decision["considered"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| candidate(one, &chosen, is_failing))
        .collect();
    // An open decision holds the list, so that it does not move while it is read.
    let press = move || held.set(true);
    view! {
        <details data-testid="decision" data-chosen=chosen.clone()>
            <summary on:click=click(press)>
                {moment(at)} {badge(NodeId(known.node))}
                <code class="clip">{word(&decision, "request")}</code>
                <span class="edge" aria-hidden="true">"→"</span> <b class="clip">{chosen.clone()}</b>
                <span class=class>{status.to_string()}</span>
                <span class="number">{quantity(decision["took_us"].as_u64().map(micros))}</span>
            </summary>
            <p>{capitalised(&word(&decision, "why"))} {retries}</p>
            <ul class="facts">{candidates}</ul>
            <p class="quiet">"route " {word(&decision, "route")}</p>
        </details>
    }
    .into_any()
}

fn candidate(candidate: &Value, chosen: &str, is_failing: bool) -> AnyView {
    let name = word(candidate, "endpoint");
    let won = name == chosen;
    let why_ineligible = candidate["why_ineligible"].as_str().map(|why| format!("not eligible: {why}"));
    let says = why_ineligible.unwrap_or_else(|| word(candidate, "weighed"));
    view! {
        <li data-testid="candidate" class=if won && !is_failing { "won" } else { "" }>
            <b>{name}</b> " " {won.then_some(if is_failing { "✗ " } else { "✓ " })} <span class="quiet">{says}</span>
        </li>
    }
    .into_any()
}
