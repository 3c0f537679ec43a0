//! One node: what the cluster agreed on about it, what it measures of itself, and what others say.

use crate::{
    browser,
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
    reachability::{Cell, cell},
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
                {live(move || role_chip(node.role.get()))}
                {live_status(node)}
                <span class="spacer"></span>
                {member_controls(id, node)}
            </div>
            <div class="columns">
                {card("", "agreed-title", "Agreed", agreed_heading(store), agreed(store, node))}
                {card("", "measured-title", "Measured", measured_heading(store, node), measured(node))}
                {card("", "opinions-title", "Reported by peers", nothing(), live(move || opinions(store, node)).into_any())}
                {card("", "matrix-title", "Reachability", nothing(), matrix())}
                {card("", "lately-title", "Recent events", its_events.into_any(), lately(store, id))}
                {chaos_panel(Some(id))}
            </div>
        </div>
    }
    .into_any()
}

/// Without a quorum nothing can be agreed on, so what was agreed is out of date.
fn agreed_heading(store: Store) -> AnyView {
    aside(move || match store.no_quorum_since.get() {
        Some(at) => {
            let now = store.now.get();
            format!("frozen since {}: no quorum", format::moment(at, now, browser::offset_minutes(now)))
        }
        None => "replicated facts".to_owned(),
    })
}

/// What is measured of a node that does not report, before what was once agreed about it.
fn silence(node: NodeSignals) -> String {
    if node.is_up() || node.report.with(Option::is_some) {
        return String::new();
    }
    match node.silence.get() {
        Some((ms, observer)) => {
            format!("Silent for {}, as node {observer} measures. Last agreed: ", duration(ms))
        }
        None => "Not reporting. Last agreed: ".to_owned(),
    }
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
        let silence = text(move || silence(node));
        view! {
            <b>{silence}</b>
            {linkify(&capitalised(&reason))}
            <span class="quiet">", since " {moment(since)} ", " {ago} ", revision " {revision(at)}</span>
        }
    });
    view! {
        <dl>
            {line("Status", status)}
            {line("Safe to stop", can_lose(node))}
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
            format!("its own report, {} old, received by node {}", duration(age), from.unwrap_or_default())
        }
        None => "not reporting".to_owned(),
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
    let leader = reported(|report| match report.leader {
        None => "no leader".to_owned(),
        Some(leader) if leader == report.node => "itself".to_owned(),
        Some(leader) => format!("node {leader}"),
    });
    view! {
        <dl>
            {line("Role", reported(|report| format!("{} in term {}", report.role.as_str(), report.term)))}
            {line("Follows", live(move || linkify(&leader.get())))}
            {line("Lag", lag)}
            {line("RTT", live(move || quantity(node.rtt_us.get().map(micros))))}
            {line("Link problems", live(move || linkify(&capitalised(&trouble.get()))))}
            {line("Last log index", reported(|report| grouped(report.last_log_index)))}
            {line("Committed", reported(|report| grouped(report.committed_index)))}
            {line("Applied", reported(|report| grouped(report.applied_index)))}
            {line("Snapshot", reported(|report| grouped(report.snapshot_index)))}
            {line("Uptime", reported(|report| duration(report.uptime_ms)))}
            {line("Memory", reported(|report| format!("{:.1} MiB", report.rss_bytes as f64 / 1_048_576.0)))}
            {line("Fsyncs", reported(|report| format!("{} since it started", grouped(report.fsyncs))))}
            {line("Dashboard connections", reported(|report| grouped(report.streams.into())))}
        </dl>
    }
    .into_any()
}

fn opinions(store: Store, node: NodeSignals) -> AnyView {
    let id = node.facts.with(|node| node.id);
    let opinion = |opinion: &Opinion| {
        // What is measured now is newer than what the log holds.
        let now = store.sample.with(|sample| {
            match store.with_view(|view| cell(view, sample.as_ref(), opinion.observer, id)) {
                Cell::Measured(link) => Some(link.sees),
                _ => None,
            }
        });
        let sees = now.unwrap_or(opinion.sees);
        let differs =
            (sees != opinion.sees).then(|| quiet(format!(" now; agreed: {}", opinion.sees.as_str())));
        // The opinion of a silent node is that of the time before it fell silent.
        let observer = store.node(opinion.observer);
        let is_silent = observer.is_none_or(|observer| observer.report.with(Option::is_none));
        let last = is_silent.then(|| quiet(", its last report before it fell silent".to_owned()));
        let tone = match sees {
            Liveness::Alive => Tone::Good,
            Liveness::Suspect => Tone::Warning,
            Liveness::Dead => Tone::Bad,
        };
        view! {
            <li class=if is_silent { "remembered" } else { "" }>
                {linkify(&format!("Node {} sees it ", opinion.observer))}
                {labelled(if is_silent { Tone::Unknown } else { tone }, sees.as_str())} {differs}
                <span class="quiet">" since " {moment(opinion.since)} {last}</span>
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
    let nothing = || quiet("No events loaded for this node.".to_owned());
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
