//! The health of the endpoints by node, and its history.
//!
//! A row for each endpoint, a column for each node that checks it, and the cluster's verdict, which is that of the
//! majority. Where they disagree, the cell says what the odd one found.
//!
//! Test ids: `observers`, `seen-<endpoint>-<node>`, `health-record`.

use super::{Shown, endpoints::since};
use crate::{
    api::ApiError,
    components::{
        icons::{badge, labelled, sign},
        live::{each, live, text},
        text::{moment, quiet, refusal, skeleton},
    },
    format::{age_ms, duration},
    store::Store,
    traffic::{seen_by, verdict_tone},
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{
    Timestamp,
    id::NodeId,
    traffic::{health::Verdict, upstream::Endpoint},
};
use serde_json::Value;

pub fn matrix(store: Store, upstream: Shown) -> AnyView {
    let nodes = store.node_ids;
    let ids = Memo::new(move |_| {
        upstream.with(|upstream| {
            let endpoints = upstream.iter().flat_map(|upstream| &upstream.config.endpoints);
            endpoints.map(|endpoint| endpoint.id.clone()).collect::<Vec<_>>()
        })
    });
    let row = move |id: String| {
        let endpoint = {
            let id = id.clone();
            Memo::new(move |_| upstream.with(|upstream| upstream.as_ref()?.endpoint(&id).cloned()))
        };
        let verdict = Memo::new(move |_| {
            endpoint
                .with(|endpoint| endpoint.as_ref().map(|endpoint| endpoint.health.verdict))
                .unwrap_or_default()
        });
        let named = id.clone();
        view! {
            <tr>
                <th scope="row" class="clip" title=id.clone()>{id.clone()}</th>
                {each(nodes, |id| *id, move |node| cell(store, &named, node, endpoint))}
                <td class=text(move || verdict_tone(verdict.get()).class().to_owned())>
                    <span class="cell">{live(move || labelled(verdict_tone(verdict.get()), verdict.get().as_str()))}</span>
                </td>
            </tr>
        }
        .into_any()
    };
    let head = |id: NodeId| {
        view! { <th scope="col">{badge(id)} <span class="visually-hidden">{format!("node {id}")}</span></th> }
            .into_any()
    };
    view! {
        <div class="matrix-scroll">
            <table class="matrix observers" data-testid="observers">
                <caption class="visually-hidden">"Health checks by node"</caption>
                <thead>
                    <tr>
                        <td class="corner">"seen by"</td>
                        {each(nodes, |id| *id, head)}
                        <th scope="col">"verdict"</th>
                    </tr>
                </thead>
                <tbody>{each(ids, |id| id.clone(), row)}</tbody>
            </table>
        </div>
        <p class="quiet">
            "The verdict is that of the majority of nodes with an opinion. A node sends nothing to an endpoint that fails its own checks, even if the verdict is healthy. Dashed: the last report of a node before it stopped reporting."
        </p>
    }
    .into_any()
}

fn cell(store: Store, id: &str, node: NodeId, endpoint: Memo<Option<Endpoint>>) -> AnyView {
    // The opinion of a silent node is not shown as a current one.
    let silent = Memo::new(move |_| silent_ms(store, node).is_some());
    let seen = Memo::new(move |_| {
        endpoint
            .with(|endpoint| endpoint.as_ref().map(|endpoint| seen_by(endpoint, node)).unwrap_or_default())
    });
    let title = text(move || {
        endpoint
            .with(|endpoint| {
                let opinion =
                    endpoint.as_ref()?.health.opinions.iter().find(|opinion| opinion.observer == node)?;
                let (verdict, detail) = (opinion.verdict.as_str(), &opinion.detail);
                Some(match silent_ms(store, node) {
                    None => format!("Node {node} sees it {verdict}: {detail}"),
                    Some(ms) => {
                        let silence = duration(ms);
                        format!("Silent for {silence}. Before that, node {node} saw it {verdict}: {detail}")
                    }
                })
            })
            .unwrap_or_else(|| format!("Node {node} has not found out"))
    });
    let class = text(move || {
        let shade = if seen.get() == Verdict::Unhealthy { "bad" } else { "" };
        if silent.get() { format!("{shade} remembered") } else { shade.to_owned() }
    });
    view! {
        <td class=class title=title data-testid=format!("seen-{id}-{node}") data-verdict=text(move || seen.get().as_str().to_owned())>
            <span class="cell">
                {live(move || sign(verdict_tone(seen.get())))}
                <span class="visually-hidden">{text(move || seen.get().as_str().to_owned())}</span>
            </span>
        </td>
    }
    .into_any()
}

/// How long a node has been silent; none while it reports, and before the first sample.
fn silent_ms(store: Store, node: NodeId) -> Option<u64> {
    let signals = store.node(node).filter(|node| node.report.with(Option::is_none))?;
    store.sample.with(|sample| {
        let aged = sample.as_ref()?.nodes.iter().find(|aged| aged.report.node == node);
        // Of who has been silent for long, no report is kept.
        let since = || age_ms(signals.facts.with(|node| node.status_since), store.now.get());
        Some(aged.map_or_else(since, |aged| aged.age_ms))
    })
}

/// The history of an endpoint's health, the latest first; fetched again whenever an opinion changes.
pub fn past(store: Store, upstream_name: String, id: String, upstream: Shown) -> AnyView {
    let known = RwSignal::new(None::<Result<Value, ApiError>>);
    let path = format!("/v1/upstreams/{upstream_name}/endpoints/{id}?consistency=stale");
    let health =
        Memo::new(move |_| upstream.with(|upstream| Some(upstream.as_ref()?.endpoint(&id)?.health.clone())));
    Effect::new(move |_| {
        health.get();
        let path = path.clone();
        spawn_local(async move { known.set(Some(store.api.value(&path).await)) });
    });
    let list = live(move || match known.get() {
        None => skeleton(3),
        Some(Err(error)) => refusal(&error),
        Some(Ok(detail)) => {
            let records = detail["health_history"].as_array().into_iter().flatten().rev();
            let records: Vec<AnyView> = records.filter_map(record).collect();
            if records.is_empty() {
                return quiet("No check has found anything yet.".to_owned());
            }
            view! { <ol class="lock-past health-past">{records}</ol> }.into_any()
        }
    });
    view! { <div class="past" role="cell">{list}</div> }.into_any()
}

fn record(record: &Value) -> Option<AnyView> {
    let at: Timestamp = record["at"].as_str()?.parse().ok()?;
    let verdict = match record["verdict"].as_str()? {
        "healthy" => Verdict::Healthy,
        "unhealthy" => Verdict::Unhealthy,
        _ => Verdict::Unknown,
    };
    let who = match record["observer"].as_u64() {
        Some(node) => view! { {badge(NodeId(node))} " node " {node.to_string()} " sees it" }.into_any(),
        None => view! { <b>"The verdict is"</b> }.into_any(),
    };
    let detail = record["detail"].as_str().unwrap_or_default().to_owned();
    Some(
        view! {
            <li data-testid="health-record">
                {moment(at)}
                <span>{who} " " {labelled(verdict_tone(verdict), verdict.as_str())} " " <span class="quiet">{detail}</span></span>
                <span class="quiet">{since(at)}</span>
            </li>
        }
        .into_any(),
    )
}
