//! The frame around every page: the bar with the state in one sentence, the problems, the connection,
//! the rail, and the banner while the page is disconnected.
//!
//! Test ids: `state-short`, `connection` (with `data-phase` and `data-node`), `problems`,
//! `problems-count`, `problem`, `palette-open`, `theme`, `nav-<page>`, `nav-more`, `more-<page>`, `more-search`, `stale-banner`.

use crate::{
    address::{Page, use_address},
    browser,
    cluster_summary::{About, ClusterSummary, Connection, Problem},
    components::{
        icons::{logo, sign},
        live::{click, live, optional, text, when},
        palette::Palette,
        running_list::Scrolled,
        text::quiet,
        theme::theme_button,
    },
    format::{self, Quantity, grouped, rate},
    store::{LinkPhase, Store, use_store},
    tone::Tone,
    traffic::TrafficScope,
};
use leptos::{ev, prelude::*};
use wasm_bindgen::JsCast;

/// From here on the reader has left the head of the page.
const SCROLLED_PX: i32 = 40;

/// The state of the cluster in words, shared by the bar, the overview and the title.
pub type State = Memo<ClusterSummary>;

pub fn shell(page: impl FnOnce() -> AnyView) -> AnyView {
    let (store, address) = (use_store(), use_address());
    let state: State = Memo::new(move |_| store.summarize());
    provide_context(state);
    Effect::new(move |_| {
        let short = state.with(|state| state.short.clone());
        let name = store.name.get();
        let name = if name.is_empty() { name } else { format!("{name} · ") };
        let page = address.path.with(|path| Page::of(path).title());
        browser::set_title(&format!("{short} · {page} · {name}Ringmaster"));
    });
    let lost = Memo::new(move |_| store.is_disconnected());
    let scrolled = expect_context::<Scrolled>().0;
    view! {
        <a class="skip" href="#main">"Skip to the page"</a>
        {top_bar(store, state)}
        {rail(store, state)}
        <main
            id="main"
            tabindex="-1"
            class=text(move || if lost.get() { "stale" } else { "" }.to_owned())
            on:scroll=move |event: ev::Event| {
                let main = event.target().and_then(|target| target.dyn_into::<web_sys::Element>().ok());
                crate::signal::set(scrolled, main.is_some_and(|main| main.scroll_top() > SCROLLED_PX));
            }
        >
            {when(move || lost.get(), move || stale_banner(store))}
            {page()}
        </main>
    }
    .into_any()
}

fn top_bar(store: Store, state: State) -> AnyView {
    let palette = expect_context::<Palette>();
    let facts = text(move || {
        if !store.loaded.get() {
            return String::new();
        }
        let revision = format!("revision {}", grouped(store.revision.get().0));
        if store.is_disconnected() {
            return format!("last known: {revision}");
        }
        match store.leadership() {
            Some((leader, term)) => format!("node {leader} leads term {term} · {revision}"),
            None => format!("no leader · {revision}"),
        }
    });
    view! {
        <header class="bar">
            <a class="logo" href="/" aria-label="Ringmaster, overview">{logo()} <span>"Ringmaster"</span></a>
            <div class="state">
                {live(move || sign(state.with(|state| state.tone)))}
                <strong role="status" data-testid="state-short">{text(move || state.with(|state| state.short.clone()))}</strong>
                <small>{facts}</small>
            </div>
            {problems(state)}
            {connection_pill(store)}
            <button type="button" class="pill" data-testid="palette-open" on:click=click(move || palette.open())>
                <span class="optional">"Go to… "</span> <kbd>"Ctrl K"</kbd>
            </button>
            {theme_button()}
        </header>
    }
    .into_any()
}

fn connection_pill(store: Store) -> AnyView {
    let phase = move || match store.link.with(|link| link.phase) {
        LinkPhase::Live => "live",
        LinkPhase::Opening => "opening",
        LinkPhase::Lost => "lost",
    };
    let label = text(move || {
        store.link.with(|link| {
            let peer = link.peer.label();
            match (link.phase, link.node) {
                (LinkPhase::Live, _) => match store.silent_ms() {
                    Some(ms) => format!("{peer} silent for {}", format::duration(ms)),
                    None => peer,
                },
                (LinkPhase::Opening, _) => format!("connecting to {peer}"),
                (LinkPhase::Lost, Some(node)) => format!("lost node {node} · connecting to {peer}"),
                (LinkPhase::Lost, None) => format!("no answer · connecting to {peer}"),
            }
        })
    });
    let latency = text(move || store.latency_ms.get().map(|ms| format!(" · {ms:.0} ms")).unwrap_or_default());
    let is_quick = move || phase() == "live" && store.silent_ms().is_none();
    view! {
        <span
            class=text(move || {
                let late = if store.silent_ms().is_some() { " late" } else { "" };
                format!("pill connection {}{late}", phase())
            })
            data-testid="connection"
            data-phase=text(move || phase().to_owned())
            data-node=optional(move || store.link.with(|link| link.node.map(|node| node.to_string())))
            title="The node that this page streams from, and how long it takes to answer"
        >
            <i class="dot" aria-hidden="true"></i>
            <span>
                {when(is_quick, || view! { <span class="roomy">"live from "</span> }.into_any())}
                {label} {when(is_quick, move || view! { <span class="roomy">{latency}</span> }.into_any())}
            </span>
        </span>
    }
    .into_any()
}

fn problems(state: State) -> AnyView {
    let found = Memo::new(move |_| state.with(|state| state.problems.clone()));
    let worst = Memo::new(move |_| found.with(|found| found.first().map(|problem| problem.tone)));
    let list = live(move || {
        let found = found.get();
        if found.is_empty() {
            quiet("No problems. Problems appear here, most severe first.".to_owned())
        } else {
            view! { <ul>{found.into_iter().map(problem).collect_view()}</ul> }.into_any()
        }
    });
    view! {
        <button
            type="button"
            class=text(move || format!("pill problems {}", worst.get().map_or("", Tone::class)))
            popovertarget="problems"
            data-testid="problems"
        >
            {live(move || worst.get().map(sign))} <span class="optional">"Problems"</span> " "
            <b data-testid="problems-count">{text(move || found.with(Vec::len).to_string())}</b>
        </button>
        <div id="problems" popover="auto" class="menu" role="region" aria-label="Problems">
            {list}
        </div>
    }
    .into_any()
}

fn problem(problem: Problem) -> AnyView {
    let href = match problem.about {
        About::Node(id) => format!("/nodes/{id}"),
        About::Operation(id) => format!("/operations/{id}"),
        About::Consensus => "/consensus".to_owned(),
        About::Traffic => "/traffic?upstream=troubled".to_owned(),
        About::Upstream(name) => format!("/traffic/upstreams/{name}"),
        About::Connection => "/nodes".to_owned(),
    };
    view! {
        <li>
            <a class="plain" href=href data-testid="problem">
                {sign(problem.tone)} <span>{problem.text}</span>
            </a>
        </li>
    }
    .into_any()
}

/// The age of the state that is shown, and the next node to try.
fn stale_banner(store: Store) -> AnyView {
    let message = text(move || match store.connection() {
        Connection::Lost { since, next } => {
            let age = format::duration(store.silent_ms().unwrap_or_default());
            let at = format::moment(since, since, browser::offset_minutes(since));
            format!("Disconnected for {age}: this is the state of {at}. Next attempt: {next}.")
        }
        Connection::NeverAnswered { next } => format!("No node has answered yet. Next attempt: {next}."),
        Connection::Opening { .. } | Connection::Live { .. } => String::new(),
    });
    view! {
        <div class="banner" role="alert" data-testid="stale-banner">
            {sign(Tone::Bad)} <span>{message}</span>
        </div>
    }
    .into_any()
}

fn rail(store: Store, state: State) -> AnyView {
    let palette = expect_context::<Palette>();
    let traffic = Memo::new(move |_| state.with(|state| traffic_trouble(&state.problems)));
    let nodes = text(move || {
        let ids = store.node_ids.get();
        if store.is_disconnected() {
            return String::new();
        }
        let nodes = ids.iter().filter_map(|id| store.node(*id));
        let up = nodes.filter(|node| node.is_up()).count();
        if ids.is_empty() { String::new() } else { format!("{up}/{}", ids.len()) }
    });
    let under_way = text(move || {
        let count = store
            .operations
            .with(|operations| operations.iter().filter(|operation| !operation.status.is_final()).count());
        if count == 0 { String::new() } else { format!("{count} now") }
    });
    let term = text(move || store.leadership().map(|(_, term)| format!("term {term}")).unwrap_or_default());
    let held = text(move || match store.lock_counts.with(|counts| counts.held) {
        _ if store.is_disconnected() => String::new(),
        0 => String::new(),
        held => grouped(held),
    });
    let requests = text(move || {
        if store.is_disconnected() {
            return String::new();
        }
        match (traffic.get(), rate(store.traffic.with(|heard| heard.load(&TrafficScope::All).requests_per_s)))
        {
            (Some((_, troubled)), _) => format!("{troubled} troubled"),
            (None, Quantity { number, .. }) if number == "0.0" => String::new(),
            (None, Quantity { number, unit }) => format!("{number}{unit}"),
        }
    });
    let heading = |text: &'static str| view! { <h2>{text}</h2> }.into_any();
    let rest = || {
        [&CONSENSUS, &OPERATIONS, &LOCKS, &AUDIT, &SETTINGS]
            .map(|place| place.link("more", Signal::stored(String::new())))
    };
    view! {
        <nav class="rail" aria-label="Pages">
            {OVERVIEW.count_less()}
            {heading("Cluster")}
            {NODES.link("nav", nodes)} {CONSENSUS.link("nav", term)} {OPERATIONS.link("nav", under_way)}
            {heading("Data plane")}
            {TRAFFIC.toned("nav", requests, text(move || {
                traffic.get().map_or("", |(tone, _)| tone.class()).to_owned()
            }))} {LOCKS.link("nav", held)}
            {heading("History")}
            {EVENTS.count_less()} {AUDIT.count_less()}
            {heading("Configuration")}
            {SETTINGS.count_less()} {api_docs("nav-docs")}
            <button type="button" class="more" popovertarget="more" data-testid="nav-more">
                <svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d="M3 8h.1M8 8h.1M13 8h.1" /></svg>
                <span>"More"</span>
            </button>
        </nav>
        <div id="more" popover="auto" class="menu more-menu" role="region" aria-label="More pages">
            <button
                type="button"
                popovertarget="more"
                data-testid="more-search"
                on:click=click(move || palette.open())
            >
                <svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d="M7 2.5a4.5 4.5 0 1 1 0 9a4.5 4.5 0 0 1 0-9zM10.5 10.5L14 14" /></svg>
                <span>"Search"</span>
            </button>
            {rest().into_iter().collect_view()} {api_docs("more-docs")}
        </div>
    }
    .into_any()
}

/// The worst tone of the problems of upstreams, and how many upstreams have one.
fn traffic_trouble(problems: &[Problem]) -> Option<(Tone, usize)> {
    let mut names: Vec<&str> = Vec::new();
    let mut worst = None;
    for problem in problems {
        let About::Upstream(name) = &problem.about else { continue };
        worst = worst.max(Some(problem.tone));
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    worst.map(|tone| (tone, names.len()))
}

/// A page in the rail.
struct Place {
    page: Page,
    href: &'static str,
    id: &'static str,
    label: &'static str,
    glyph: &'static str,
}

static OVERVIEW: Place = Place {
    page: Page::Overview,
    href: "/",
    id: "overview",
    label: "Overview",
    glyph: "M2 2h5v6H2zM9 2h5v3.5H9zM9 7.5h5V14H9zM2 10h5v4H2z",
};
static NODES: Place = Place {
    page: Page::Nodes,
    href: "/nodes",
    id: "nodes",
    label: "Nodes",
    glyph: "M8 1.5a2 2 0 1 1 0 4a2 2 0 0 1 0-4zM3.5 10.5a2 2 0 1 1 0 4a2 2 0 0 1 0-4zM12.5 10.5a2 2 0 1 1 0 4a2 2 0 0 1 0-4zM7 5.3L4.5 10.7M9 5.3L11.5 10.7M5.5 12.5h5",
};
static CONSENSUS: Place = Place {
    page: Page::Consensus,
    href: "/consensus",
    id: "consensus",
    label: "Consensus",
    glyph: "M2 3h3v3H2zM6.5 3h3v3h-3zM11 3h3v3h-3zM2 10h3v3H2zM6.5 10h3v3h-3zM3.5 6v4M8 6v4",
};
static TRAFFIC: Place = Place {
    page: Page::Traffic,
    href: "/traffic",
    id: "traffic",
    label: "Traffic",
    glyph: "M1.5 8h5M6.5 8l5-4.5M6.5 8l5 4.5M9.3 3.5h2.2v2.2M9.3 12.5h2.2v-2.2M13.5 8h1",
};
static LOCKS: Place = Place {
    page: Page::Locks,
    href: "/locks",
    id: "locks",
    label: "Locks",
    glyph: "M3 7h10v7H3zM5 7V5a3 3 0 0 1 6 0v2M8 9.8v1.6",
};
static OPERATIONS: Place = Place {
    page: Page::Operations,
    href: "/operations",
    id: "operations",
    label: "Operations",
    glyph: "M2 4l1.5 1.5L6 3M8 4.3h6M2 10.5L3.5 12L6 9.5M8 10.8h6",
};
static EVENTS: Place = Place {
    page: Page::Events,
    href: "/events",
    id: "events",
    label: "Events",
    glyph: "M3.5 1.5v13M3.5 4h9M3.5 8h6M3.5 12h8",
};
static AUDIT: Place = Place {
    page: Page::Audit,
    href: "/audit",
    id: "audit",
    label: "Audit",
    glyph: "M3 1.5h7l3 3v10H3zM5.5 6.5h5M5.5 9h5M5.5 11.5h3",
};
static SETTINGS: Place = Place {
    page: Page::Settings,
    href: "/settings",
    id: "settings",
    label: "Settings",
    glyph: "M2 4.5h6M11 4.5h3M9.5 3a1.5 1.5 0 1 1 0 3a1.5 1.5 0 0 1 0-3zM2 11.5h2M7 11.5h7M5.5 10a1.5 1.5 0 1 1 0 3a1.5 1.5 0 0 1 0-3z",
};

impl Place {
    fn count_less(&'static self) -> AnyView {
        self.link("nav", Signal::stored(String::new()))
    }

    fn link(&'static self, list: &'static str, count: Signal<String>) -> AnyView {
        self.toned(list, count, Signal::stored(String::new()))
    }

    /// With the tone of the worst problem that the page would show.
    fn toned(&'static self, list: &'static str, count: Signal<String>, tone: Signal<String>) -> AnyView {
        let address = use_address();
        let current = optional(move || {
            let section = match address.path.with(|path| Page::of(path)) {
                Page::Plan(_) => Page::Overview,
                Page::Node(_) => Page::Nodes,
                Page::Operation(_) => Page::Operations,
                Page::Upstream(_) => Page::Traffic,
                other => other,
            };
            (section == self.page).then(|| "page".to_owned())
        });
        view! {
            <a href=self.href class=tone data-testid=format!("{list}-{}", self.id) aria-current=current>
                <svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d=self.glyph /></svg>
                <span>{self.label}</span>
                <b>{count}</b>
            </a>
        }
        .into_any()
    }
}

/// The node serves the documentation of its API beside the dashboard.
fn api_docs(id: &'static str) -> AnyView {
    view! {
        <a href="/docs" rel="external" data-testid=id>
            <svg class="glyph" viewBox="0 0 16 16" aria-hidden="true">
                <path d="M5 4.5L1.5 8L5 11.5M11 4.5L14.5 8L11 11.5M9.3 3L6.7 13" />
            </svg>
            <span>"API docs"</span>
        </a>
    }
    .into_any()
}
