//! One node: what the cluster agreed on about it, what it measures of itself, and what others say.

use crate::{
    components::{
        chaos::ChaosPanel,
        feed::{EventRow, key},
        marks::{badge, labelled, role_chip, status_tone},
        matrix::Matrix,
        node_table::{MakeLeader, can_lose},
        text::{Empty, moment, prose, quantity, revision, skeleton},
    },
    format::{self, capitalised, duration, grouped, micros},
    store::{NodeSignals, use_store},
};
use leptos::prelude::*;
use leptos_router::hooks::use_params_map;
use ringmaster_common::{cluster::Sees, id::NodeId, telemetry::NodeReport};

/// How many events about the node are shown.
const EVENTS: usize = 12;

#[component]
pub fn NodePage() -> impl IntoView {
    let store = use_store();
    let params = use_params_map();
    let id =
        Memo::new(move |_| params.with(|params| params.get("id").and_then(|id| id.parse::<NodeId>().ok())));
    let known = Memo::new(move |_| id.get().filter(|id| store.node_ids.with(|ids| ids.contains(id))));
    move || match known.get() {
        Some(id) => view! { <Known id /> }.into_any(),
        None if !store.loaded.get() => view! { <div class="page">{skeleton(6)}</div> }.into_any(),
        None => view! {
            <div class="page">
                <h1>"No such node"</h1>
                <Empty title="This cluster has no such member">
                    <p><a href="/nodes">"See the members"</a></p>
                </Empty>
            </div>
        }
        .into_any(),
    }
}

#[component]
fn Known(id: NodeId) -> impl IntoView {
    let store = use_store();
    let Some(node) = store.node(id) else { return ().into_any() };
    let facts = node.facts;
    view! {
        <div class="page">
            <div class="page-head">
                <h1>{badge(id)} <span class="whole-name">{move || facts.with(|node| node.name.clone())}</span></h1>
                {move || role_chip(node.role())}
                {move || {
                    let status = facts.with(|node| node.status);
                    labelled(status_tone(status), status.as_str())
                }}
                <span class="spacer"></span>
                <MakeLeader id node />
            </div>
            <div class="columns">
                <Agreed node />
                <Measured node />
                <section class="card" aria-labelledby="opinions-title">
                    <h3 id="opinions-title">"What others say of it"</h3>
                    {move || opinions(node)}
                </section>
                <section class="card" aria-labelledby="matrix-title">
                    <h3 id="matrix-title">"Who sees whom"</h3>
                    <Matrix />
                </section>
                <section class="card" aria-labelledby="node-events-title">
                    <h3 id="node-events-title">
                        "Lately" <a href=format!("/events?words=node%20{id}")>"all its events"</a>
                    </h3>
                    <Lately id />
                </section>
                <ChaosPanel only=id />
            </div>
        </div>
    }
    .into_any()
}

fn line(label: &'static str, value: impl IntoView + 'static) -> impl IntoView {
    view! { <div><dt>{label}</dt><dd>{value}</dd></div> }
}

/// What is replicated.
#[component]
fn Agreed(node: NodeSignals) -> impl IntoView {
    let store = use_store();
    let facts = node.facts;
    let text = move |read: fn(&ringmaster_common::cluster::Node) -> String| move || facts.with(read);
    let url = move || facts.with(|node| node.public_url.clone());
    view! {
        <section class="card" aria-labelledby="agreed-title">
            <h3 id="agreed-title">"Agreed" <span class="quiet">"replicated facts"</span></h3>
            <dl>
                {line(
                    "Status",
                    move || {
                        let (reason, since, at) = facts
                            .with(|node| (node.status_reason.clone(), node.status_since, node.status_revision));
                        let ago = format::ago(since, store.now.get());
                        view! {
                            {prose(&capitalised(&reason))}
                            <span class="quiet">" since " {moment(since)} ", " {ago} ", revision " {revision(at)}</span>
                        }
                    },
                )}
                {line("Can I lose it?", can_lose(node))}
                {line("Votes", text(|node| if node.voter { "yes" } else { "no, it is a learner" }.to_owned()))}
                {line("Zone", text(|node| node.zone.clone()))}
                {line("Weight", text(|node| node.weight.to_string()))}
                {line("API", view! { <code>{text(|node| node.api_addr.clone())}</code> })}
                {line("Peers", view! { <code>{text(|node| node.peer_addr.clone())}</code> })}
                {line("Dashboard", view! { <a href=url rel="external">{url}</a> })}
            </dl>
        </section>
    }
}

/// What it says of itself, twice a second.
#[component]
fn Measured(node: NodeSignals) -> impl IntoView {
    let store = use_store();
    let report = node.report;
    let text = move |read: fn(&NodeReport) -> String| {
        move || {
            report
                .with(|aged| aged.as_ref().map_or_else(|| format::NONE.to_owned(), |aged| read(&aged.report)))
        }
    };
    let heading = move || match report.with(|aged| aged.as_ref().map(|aged| aged.age_ms)) {
        Some(age) => {
            let from = store.sample.with(|sample| sample.as_ref().map(|sample| sample.from.to_string()));
            format!("its own report, {} old, by way of node {}", duration(age), from.unwrap_or_default())
        }
        None => "it reports nothing at the moment".to_owned(),
    };
    view! {
        <section class="card" aria-labelledby="measured-title">
            <h3 id="measured-title">"Measured" <span class="quiet">{heading}</span></h3>
            <dl>
                {line("Role, term", text(|report| format!("{}, term {}", report.role.as_str(), report.term)))}
                {line(
                    "Takes for leader",
                    move || {
                        report
                            .with(|aged| aged.as_ref().map(|aged| aged.report.leader))
                            .map(|leader| {
                                prose(&leader.map_or("nobody".to_owned(), |leader| format!("node {leader}"))).into_any()
                            })
                    },
                )}
                {line(
                    "Lag",
                    move || node.lag.get().map_or_else(|| format::NONE.to_owned(), |lag| format::count(lag, "entry")),
                )}
                {line("RTT", move || quantity(node.rtt_us.get().map(micros)))}
                {line("Last log index", text(|report| grouped(report.last_log_index)))}
                {line("Committed", text(|report| grouped(report.committed_index)))}
                {line("Applied", text(|report| grouped(report.applied_index)))}
                {line("Snapshot", text(|report| grouped(report.snapshot_index)))}
                {line("Runs for", text(|report| duration(report.uptime_ms)))}
                {line("Memory", text(|report| format!("{:.1} MiB", report.rss_bytes as f64 / 1_048_576.0)))}
                {line("Streams to", text(|report| format::count(report.streams.into(), "browser")))}
            </dl>
        </section>
    }
}

fn opinions(node: NodeSignals) -> impl IntoView {
    node.facts.with(|node| {
        if node.opinions.is_empty() {
            return view! {
                <p class="quiet">"Nobody has anything to say: an opinion is recorded when somebody stops hearing it."</p>
            }
            .into_any();
        }
        let rows = node.opinions.iter().map(|opinion| {
            let tone = match opinion.sees {
                Sees::Alive => crate::situation::Tone::Good,
                Sees::Suspect => crate::situation::Tone::Warning,
                Sees::Dead => crate::situation::Tone::Bad,
            };
            view! {
                <li>
                    {prose(&format!("Node {} sees it", opinion.observer))} " " {labelled(tone, opinion.sees.as_str())}
                    <span class="quiet">" since " {moment(opinion.since)}</span>
                </li>
            }
        });
        view! { <ul class="facts">{rows.collect_view()}</ul> }.into_any()
    })
}

#[component]
fn Lately(id: NodeId) -> impl IntoView {
    let store = use_store();
    let name = format!("node {id}");
    let entries = Memo::new(move |_| {
        store.entries.with(|entries| {
            entries
                .iter()
                .filter(|entry| entry.is_headline && names(&entry.sentence, &name))
                .take(EVENTS)
                .cloned()
                .collect::<Vec<_>>()
        })
    });
    view! {
        <ul class="feed">
            <For each=move || entries.get() key=key let(entry)>
                <EventRow entry />
            </For>
        </ul>
        <Show when=move || entries.with(Vec::is_empty)>
            <p class="quiet">"Nothing of late."</p>
        </Show>
    }
}

/// Whether a sentence names a node: `node 1` is not in `node 12`.
fn names(sentence: &str, name: &str) -> bool {
    sentence
        .to_lowercase()
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
