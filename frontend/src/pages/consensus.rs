//! Consensus: who leads and since when, the arithmetic of the quorum in words, how far each log has
//! come, the voters, and every election in the history.
//!
//! Who leads and how far each node is, is measured; who votes and who was elected, is replicated. A
//! choice of voters that is being thought about is in the page's address (`?voters=1,2,4`).
//!
//! Test ids: `quorum`, `log-row-<id>`, `log-lag-<id>`, `log-committed-<id>`, `voter-<id>`, `plan-voters`,
//! `election-row`, `look-back`, and those of [`crate::components::member_controls`].

use crate::{
    address::use_address,
    api::{ApiError, PER_PAGE},
    browser,
    components::{
        icons::{live_status, node_link, role_chip, sign},
        live::{class_if, click, each, either, live, text, typed, when},
        member_controls::member_controls,
        metric::{LEAST_LAG_SHOWN, commit_metric, fsyncs_metric, lag_metric, leader_metric, spark},
        plan_panel::use_plan_panel,
        sorting::{Column, Order, SortKey, column, number, places},
        text::{card, linkify, moment, quantity, quiet, refusal, revision, skeleton},
    },
    format::{self, age_ms, duration, grouped, rate},
    metrics::ClusterMetrics,
    quorum::{self, Quorum},
    store::{NodeSignals, Store, use_store},
    timeline::LeadershipTerm,
    tone::Tone,
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{
    action::Action,
    id::{NodeId, Revision},
    telemetry::NodeReport,
};
use std::collections::BTreeSet;

/// How many elections are shown at first.
const ELECTIONS: usize = 12;
/// How much of the history is searched for more at a time, in pages.
const LOOK_BACK: u32 = 10 * PER_PAGE;

pub fn consensus_page() -> AnyView {
    let store = use_store();
    let nothing = || ().into_any();
    let loaded = move || store.loaded.get();
    let votes = quiet("select other voters to see the effect".to_owned());
    let logs = quiet("log indexes, as each node reports them".to_owned());
    view! {
        <div class="page multi">
            <h1>"Consensus"</h1>
            {hero(store)}
            {card("", "logs-title", "Logs", logs, either(loaded, move || logs_table(store), || skeleton(3)).into_any())}
            <div class="pair">
                {card("", "votes-title", "Voters and learners", votes, either(loaded, move || members(store), || skeleton(4)).into_any())}
                {card("", "elections-title", "Elections", nothing(), either(loaded, move || elections(store), || skeleton(4)).into_any())}
            </div>
        </div>
    }
    .into_any()
}

fn quorum_now(store: Store) -> Quorum {
    store.sample.with(|sample| store.with_view(|view| quorum::of(view, sample.as_ref())))
}

fn hero(store: Store) -> AnyView {
    let tone = Memo::new(move |_| match store.is_disconnected() {
        true => Tone::Unknown,
        false => quorum_now(store).tone(),
    });
    let sentence = Memo::new(move |_| {
        if !store.loaded.get() {
            return String::new();
        }
        if store.is_disconnected() {
            return "The page is disconnected: the quorum is unknown.".to_owned();
        }
        let since = store.no_quorum_since.get().map(|at| {
            let now = store.now.get();
            format::moment(at, now, browser::offset_minutes(now))
        });
        quorum_now(store).headline(since)
    });
    let detail = Memo::new(move |_| {
        if store.loaded.get() {
            let quorum = quorum_now(store);
            let known = if store.is_disconnected() { "Last known: " } else { "" };
            format!("{known}{} {}", quorum.details(), quorum.learning())
        } else {
            "Waiting for the first view of the cluster.".to_owned()
        }
    });
    view! {
        <section class="card hero" aria-label="Quorum and metrics">
            <div class=text(move || format!("statement {}", tone.get().class()))>
                <div class="sentence">
                    {live(move || sign(tone.get()))}
                    <p data-testid="quorum">{live(move || linkify(&sentence.get()))}</p>
                </div>
                <p class="detail">{live(move || linkify(&detail.get()))}</p>
            </div>
            {leader_metric(store)} {commit_metric()} {fsyncs_metric()} {lag_metric()}
        </section>
    }
    .into_any()
}

const LOG_COLUMNS: [Column; 8] = [
    column("node", "Node"),
    column("role", "Role"),
    number("last", "Last entry", "The last entry that is in the node's log"),
    number("committed", "Committed", "The last entry that a majority has, as far as the node knows"),
    number("applied", "Applied", "The last entry that is part of the node's state"),
    number("snapshot", "Snapshot", "The last entry that its latest snapshot holds"),
    number("lag", "Lag", "Entries of the leader's log that it lacks, in the last minute and now"),
    number("fsyncs", "Fsyncs", "How often it waits for its disk, in the last minute and now"),
];
const LOG_ORDER: Order = Order { columns: &LOG_COLUMNS, latest_first: false, of: "" };

fn log_key(store: Store, column: usize, id: NodeId) -> SortKey {
    let Some(node) = store.node(id) else { return SortKey::default() };
    let report = |read: fn(&NodeReport) -> u64| {
        node.report.with(|aged| aged.as_ref().map_or(0, |aged| read(&aged.report)))
    };
    let number = match LOG_COLUMNS[column].name {
        "role" => report(|report| report.role as u64),
        "last" => report(|report| report.last_log_index),
        "committed" => report(|report| report.committed_index),
        "applied" => report(|report| report.applied_index),
        "snapshot" => report(|report| report.snapshot_index),
        "lag" => node.lag.get().map_or(0, |lag| lag + 1),
        "fsyncs" => fsyncs_per_s(store, id).map_or(0, |rate| (rate * 10.0) as u64 + 1),
        _ => id.0,
    };
    (String::new(), number)
}

fn fsyncs_per_s(store: Store, id: NodeId) -> Option<f64> {
    store.history.with(|history| history.latest()?.node(id)?.fsyncs_per_s)
}

fn logs_table(store: Store) -> AnyView {
    let address = use_address();
    let ids = Memo::new(move |_| {
        let ids = store.node_ids.get();
        let (column, descending) = LOG_ORDER.of(address);
        let keys: Vec<SortKey> = ids.iter().map(|id| log_key(store, column, *id)).collect();
        places(&keys, descending).into_iter().map(|place| ids[place]).collect()
    });
    view! {
        <div class="table logs" role="table" aria-label="Logs">
            {LOG_ORDER.headings(true, false)} {each(ids, |id| *id, move |id| log_row(store, id))}
        </div>
    }
    .into_any()
}

fn log_row(store: Store, id: NodeId) -> AnyView {
    let Some(node) = store.node(id) else { return ().into_any() };
    let index = |name: &'static str, read: fn(&NodeReport) -> u64| {
        let text = text(move || {
            let index = node.report.with(|aged| aged.as_ref().map(|aged| read(&aged.report)));
            index.map_or_else(|| format::NONE.to_owned(), grouped)
        });
        view! {
            <span role="cell" class=format!("cell-{name} number") data-testid=format!("log-{name}-{id}")>{text}</span>
        }
        .into_any()
    };
    let lag = text(move || match node.lag.get() {
        Some(lag) => grouped(lag),
        None if store.leader() == Some(id) => "leads".to_owned(),
        None => format::NONE.to_owned(),
    });
    let lag_line = move |metrics: &ClusterMetrics| Some(metrics.node(id)?.lag? as f64);
    let fsyncs_line = move |metrics: &ClusterMetrics| metrics.node(id)?.fsyncs_per_s;
    view! {
        <div class="row" role="row" data-testid=format!("log-row-{id}")>
            <span role="cell" class="cell-node">{node_link(id, node)}</span>
            <span role="cell" class="cell-role">{live(move || role_chip(node.role.get()))}</span>
            {index("last", |report| report.last_log_index)}
            {index("committed", |report| report.committed_index)}
            {index("applied", |report| report.applied_index)}
            {index("snapshot", |report| report.snapshot_index)}
            <span role="cell" class="cell-lag number charted">
                {spark(format!("Lag of node {id} in the last minute"), LEAST_LAG_SHOWN, lag_line)}
                <b data-testid=format!("log-lag-{id}")>{lag}</b>
            </span>
            <span role="cell" class="cell-fsyncs number charted">
                {spark(format!("Fsyncs of node {id} in the last minute"), 1.0, fsyncs_line)}
                <b>{live(move || quantity(fsyncs_per_s(store, id).map(rate)))}</b>
            </span>
        </div>
    }
    .into_any()
}

/// The voters that the address names, in the order of their ids.
fn wanted_voters(store: Store, text: &str) -> Vec<NodeId> {
    let wanted: Vec<NodeId> = text.split(',').filter_map(|id| id.parse().ok()).collect();
    store.with_view(|view| view.nodes.keys().copied().filter(|id| wanted.contains(id)).collect())
}

/// The voters, with a what-if for other voters.
fn members(store: Store) -> AnyView {
    let address = use_address();
    let panel = use_plan_panel();
    let voters = Memo::new(move |_| quorum_now(store).voters);
    let draft = Memo::new(move |_| match address.parameter("voters") {
        Some(text) => wanted_voters(store, &text),
        None => voters.get(),
    });
    let row = move |id: NodeId| {
        let Some(node) = store.node(id) else { return ().into_any() };
        member_row(id, node, draft, voters)
    };
    let differs = Memo::new(move |_| draft.get() != voters.get());
    let buttons = move || {
        let plan = move || {
            let mut voters = BTreeSet::new();
            voters.extend(draft.get_untracked());
            panel.propose(Action::ChangeVoters { voters });
        };
        view! {
            <div class="callout note draft">
                <div>
                    <p>
                        {text(move || format!("If {} voted: ", draft.with(|draft| quorum::nodes(draft))))}
                        {live(move || draft.with(|draft| linkify(&quorum::what_if(draft))))}
                    </p>
                    <div class="buttons">
                        <button
                            type="button"
                            data-testid="plan-voters"
                            disabled=class_if(move || draft.with(Vec::is_empty) || !store.is_live())
                            on:click=click(plan)
                        >
                            "See the plan"
                        </button>
                        <button type="button" on:click=click(move || address.set_parameter("voters", None, true))>
                            "Cancel"
                        </button>
                    </div>
                </div>
            </div>
        }
        .into_any()
    };
    view! {
        <ul class="members">{each(Signal::from(store.node_ids), |id| *id, row)}</ul>
        {when(move || differs.get(), buttons)}
        <p class="quiet">"Each button opens a plan that shows the consequences. Nothing changes before you apply it."</p>
    }
    .into_any()
}

fn member_row(id: NodeId, node: NodeSignals, draft: Memo<Vec<NodeId>>, voters: Memo<Vec<NodeId>>) -> AnyView {
    let address = use_address();
    let toggle = move |_: String| {
        let mut chosen = use_store().node_ids.get_untracked();
        chosen.retain(|other| draft.with_untracked(|draft| draft.contains(other)) != (*other == id));
        let is_as_now = voters.with_untracked(|voters| *voters == chosen);
        let text = chosen.iter().map(NodeId::to_string).collect::<Vec<_>>().join(",");
        address.set_parameter("voters", (!is_as_now).then_some(text.as_str()), true);
    };
    let part = text(move || if node.facts.with(|node| node.voter) { "voter" } else { "learner" }.to_owned());
    view! {
        <li>
            <label class="vote">
                <input
                    type="checkbox"
                    data-testid=format!("voter-{id}")
                    aria-label=format!("Node {id} votes")
                    prop:checked={class_if(move || draft.with(|draft| draft.contains(&id)))}
                    on:change=typed(toggle)
                />
                <span>{part}</span>
            </label>
            {node_link(id, node)} <span class="member-status">{live_status(node)}</span>
            {member_controls(id, node)}
        </li>
    }
    .into_any()
}

/// The leaders by term, as far back as the history goes.
fn elections(store: Store) -> AnyView {
    let all = RwSignal::new(false);
    let failed = RwSignal::new(None::<ApiError>);
    let busy = RwSignal::new(false);
    let known = Memo::new(move |_| {
        let leadership_terms = store.leadership_terms.get();
        match store.elected.get() {
            // The latest one is in the view, however long ago it was.
            Some(last) if leadership_terms.is_empty() => vec![LeadershipTerm {
                term: last.term,
                leader: last.leader,
                at: last.at,
                revision: last.revision.0,
                by: None,
            }],
            _ => leadership_terms,
        }
    });
    let shown = Memo::new(move |_| {
        let mut leadership_terms = known.get();
        leadership_terms.truncate(if all.get() { usize::MAX } else { ELECTIONS });
        leadership_terms
    });
    let look_back = move || {
        all.set(true);
        let before = store.leadership_terms_since.get_untracked().map(|since| since.to_string());
        busy.set(true);
        failed.set(None);
        spawn_local(async move {
            match store.api.events(before, LOOK_BACK).await {
                Ok(page) => store.learn_leadership_terms(&page),
                Err(error) => failed.set(Some(error)),
            }
            busy.set(false);
        });
    };
    let more = move || store.leadership_terms_since.get().is_some_and(|since| since > 0);
    let hidden = move || !all.get() && known.with(Vec::len) > ELECTIONS;
    let extent = text(move || match store.leadership_terms_since.get() {
        Some(0) => "These are all elections that the history holds.".to_owned(),
        Some(since) => format!("The history was searched back to revision {}.", grouped(since)),
        None => String::new(),
    });
    let row = move |term: LeadershipTerm| election_row(store, known, &term);
    view! {
        <div class="table elections" role="table" aria-label="Elections">
            <div class="row head" role="row">
                <span role="columnheader" class="number">"Term"</span>
                <span role="columnheader">"Leader"</span>
                <span role="columnheader">"How"</span>
                <span role="columnheader" class="number">"Led for"</span>
                <span role="columnheader" class="cell-when">"Since"</span>
                <span role="columnheader" class="number">"Revision"</span>
            </div>
            {each(shown, |term| (term.term, term.revision), row)}
        </div>
        {live(move || failed.get().map(|error| refusal(&error)))}
        <p class="quiet">
            {extent} " "
            {when(move || more() || hidden(), move || view! {
                <button type="button" class="small" data-testid="look-back" disabled={busy} on:click=click(look_back)>
                    "Look further back"
                </button>
            }.into_any())}
        </p>
    }
    .into_any()
}

fn election_row(store: Store, known: Memo<Vec<LeadershipTerm>>, won: &LeadershipTerm) -> AnyView {
    let (at, term) = (won.at, won.term);
    let led = text(move || {
        // The next term ended it.
        let next = known.with(|known| known.iter().rev().find(|next| next.term > term).map(|next| next.at));
        duration(age_ms(at, next.unwrap_or_else(|| store.now.get())))
    });
    let how = match won.by {
        Some(operation) => format!("by operation {operation}"),
        None => "elected".to_owned(),
    };
    view! {
        <div class="row" role="row" data-testid="election-row">
            <span role="cell" class="number">{grouped(term)}</span>
            <span role="cell">{linkify(&format!("node {}", won.leader))}</span>
            <span role="cell" class="clip" title=how.clone()>{linkify(&how)}</span>
            <span role="cell" class="number">{led}</span>
            <span role="cell" class="cell-when">{moment(at)}</span>
            <span role="cell" class="number">{revision(Revision(won.revision))}</span>
        </div>
    }
    .into_any()
}
