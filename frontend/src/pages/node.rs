//! One node: what the cluster agreed on about it, what it measures of itself, and what others say.

use crate::{
    components::{
        chaos::chaos_panel,
        feed::{RowDetail, feed},
        icons::{badge, labelled, live_status, role_chip},
        live::{either, live, text, when},
        matrix::matrix,
        member_controls::member_controls,
        node_table::{aside, can_lose},
        text::{card, empty, line, linkify, moment, quantity, quiet, revision, skeleton},
    },
    format::{self, capitalised, count, duration, grouped, micros},
    store::{NodeSignals, Store, use_store},
    tone::Tone,
};
use leptos::prelude::*;
use ringmaster_common::{
    cluster::{Liveness, Node, Opinion},
    id::NodeId,
    telemetry::{NodeReport, troubles},
};

/// How many events about the node are shown.
const EVENTS: usize = 12;

pub fn node_page(id: NodeId) -> AnyView {
    let store = use_store();
    let is_member = move || store.node_ids.with(|ids| ids.contains(&id));
    either(is_member, move || known(store, id), move || unknown(store)).into_any()
}

/// Not a member, or nothing is known yet.
fn unknown(store: Store) -> AnyView {
    let missing = || {
        let members = view! { <p><a href="/nodes">"See the members"</a></p> };
        empty("This cluster has no such member", members.into_any())
    };
    view! { <div class="page">{either(move || store.loaded.get(), missing, || skeleton(6))}</div> }.into_any()
}

fn known(store: Store, id: NodeId) -> AnyView {
    let Some(node) = store.node(id) else { return ().into_any() };
    let facts = node.facts;
    let its_events = view! { <a href=format!("/events?words=node%20{id}")>"all its events"</a> };
    let nothing = || ().into_any();
    view! {
        <div class="page">
            <div class="page-head">
                <h1>
                    {badge(id)}
                    <span class="whole-name">{text(move || facts.with(|node| node.name.clone()))}</span>
                </h1>
                {live(move || role_chip(node.role()))}
                {live_status(node)}
                <span class="spacer"></span>
                {member_controls(id, node)}
            </div>
            <div class="columns">
                {card("", "agreed-title", "Agreed", quiet("replicated facts".to_owned()), agreed(store, node))}
                {card("", "measured-title", "Measured", measured_heading(store, node), measured(node))}
                {card("", "opinions-title", "Opinions of the other nodes", nothing(), live(move || opinions(node)).into_any())}
                {card("", "matrix-title", "Reachability", nothing(), matrix())}
                {card("", "lately-title", "Lately", its_events.into_any(), lately(store, id))}
                {chaos_panel(Some(id))}
            </div>
        </div>
    }
    .into_any()
}

/// The replicated facts.
fn agreed(store: Store, node: NodeSignals) -> AnyView {
    let facts = node.facts;
    let fact = move |read: fn(&Node) -> String| text(move || facts.with(read));
    let url = fact(|node| node.public_url.clone());
    let status = live(move || {
        let (reason, since, at) =
            facts.with(|node| (node.status_reason.clone(), node.status_since, node.status_revision));
        let ago = text(move || format::ago(since, store.now.get()));
        view! {
            {linkify(&capitalised(&reason))}
            <span class="quiet">", since " {moment(since)} ", " {ago} ", revision " {revision(at)}</span>
        }
    });
    view! {
        <dl>
            {line("Status", status)}
            {line("Can I lose it?", can_lose(node))}
            {line("Votes", fact(|node| if node.voter { "yes" } else { "no, it is a learner" }.to_owned()))}
            {line("Zone", fact(|node| node.zone.clone()))}
            {line("Weight", fact(|node| node.weight.to_string()))}
            {line("API", view! { <code>{fact(|node| node.api_addr.clone())}</code> })}
            {line("Peers", view! { <code>{fact(|node| node.peer_addr.clone())}</code> })}
            {line("Dashboard", view! { <a href=url rel="external">{url}</a> })}
        </dl>
    }
    .into_any()
}

fn measured_heading(store: Store, node: NodeSignals) -> AnyView {
    aside(move || match node.report.with(|aged| aged.as_ref().map(|aged| aged.age_ms)) {
        Some(age) => {
            let from = store.sample.with(|sample| sample.as_ref().map(|sample| sample.from.to_string()));
            format!("its own report, {} old, by way of node {}", duration(age), from.unwrap_or_default())
        }
        None => "it reports nothing at the moment".to_owned(),
    })
}

/// The node's own report, twice a second.
fn measured(node: NodeSignals) -> AnyView {
    let report = node.report;
    let reported = move |read: fn(&NodeReport) -> String| {
        text(move || {
            report
                .with(|aged| aged.as_ref().map_or_else(|| format::NONE.to_owned(), |aged| read(&aged.report)))
        })
    };
    let trouble = reported(|report| match troubles(&report.links)[..] {
        [] => "none".to_owned(),
        ref many => many.join("; "),
    });
    let lag = text(move || node.lag.get().map_or_else(|| format::NONE.to_owned(), |lag| count(lag, "entry")));
    let leader =
        reported(|report| report.leader.map_or_else(|| "none".to_owned(), |leader| format!("node {leader}")));
    view! {
        <dl>
            {line("Role", reported(|report| format!("{} in term {}", report.role.as_str(), report.term)))}
            {line("Leader, as it knows", live(move || linkify(&leader.get())))}
            {line("Lag", lag)}
            {line("RTT", live(move || quantity(node.rtt_us.get().map(micros))))}
            {line("Link faults", live(move || linkify(&capitalised(&trouble.get()))))}
            {line("Last log index", reported(|report| grouped(report.last_log_index)))}
            {line("Committed", reported(|report| grouped(report.committed_index)))}
            {line("Applied", reported(|report| grouped(report.applied_index)))}
            {line("Snapshot", reported(|report| grouped(report.snapshot_index)))}
            {line("Uptime", reported(|report| duration(report.uptime_ms)))}
            {line("Memory", reported(|report| format!("{:.1} MiB", report.rss_bytes as f64 / 1_048_576.0)))}
            {line("Fsyncs", reported(|report| format!("{} since it started", grouped(report.fsyncs))))}
            {line("Streams to", reported(|report| count(report.streams.into(), "browser")))}
        </dl>
    }
    .into_any()
}

fn opinions(node: NodeSignals) -> AnyView {
    let opinion = |opinion: &Opinion| {
        let tone = match opinion.sees {
            Liveness::Alive => Tone::Good,
            Liveness::Suspect => Tone::Warning,
            Liveness::Dead => Tone::Bad,
        };
        view! {
            <li>
                {linkify(&format!("Node {} sees it ", opinion.observer))} {labelled(tone, opinion.sees.as_str())}
                <span class="quiet">" since " {moment(opinion.since)}</span>
            </li>
        }
        .into_any()
    };
    node.facts.with(|node| {
        if node.opinions.is_empty() {
            return quiet("No opinions yet: an opinion is recorded when it changes.".to_owned());
        }
        let opinions: Vec<AnyView> = node.opinions.iter().map(opinion).collect();
        view! { <ul class="facts">{opinions}</ul> }.into_any()
    })
}

fn lately(store: Store, id: NodeId) -> AnyView {
    let name = format!("node {id}");
    let entries = Memo::new(move |_| {
        store.headlines.with(|headlines| {
            let about = headlines.iter().filter(|entry| names(&entry.sentence, &name));
            about.take(EVENTS).cloned().collect::<Vec<_>>()
        })
    });
    let nothing = || quiet("No recent events.".to_owned());
    view! { {feed(entries, RowDetail::Short)} {when(move || entries.with(Vec::is_empty), nothing)} }
        .into_any()
}

/// Whether a sentence names a node: `node 1` is not in `node 12`.
fn names(sentence: &str, name: &str) -> bool {
    sentence
        .to_ascii_lowercase()
        .match_indices(name)
        .any(|(start, _)| !sentence[start + name.len()..].starts_with(|letter: char| letter.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn one_is_not_twelve() {
        assert!(names("Node 1 leads term 4", "node 1"));
        assert!(!names("Node 12 leads term 4", "node 1"));
        assert!(names("Node 12 sees node 1 dead", "node 1"));
    }
}
