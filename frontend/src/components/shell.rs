//! What is around every page: the bar with the state in one sentence, the problems, the connection,
//! the rail, and the banner when what is shown is old.
//!
//! Test ids: `state-short`, `connection` (with `data-phase` and `data-node`), `problems`,
//! `problems-count`, `problem`, `palette-open`, `theme`, `nav-<page>`, `stale-banner`.

use crate::{
    browser::{self, Theme},
    components::{
        marks::{logo, sign},
        palette::Palette,
    },
    format::{self, grouped},
    situation::{About, Assessment, Connection, Problem},
    store::{LinkPhase, use_store},
};
use leptos::prelude::*;
use leptos_router::hooks::use_location;
use ringmaster_common::operation::OperationStatus;

/// The theme, as the reader chose it.
#[derive(Clone, Copy, Debug)]
pub struct ThemeSwitch(RwSignal<Theme>);

impl ThemeSwitch {
    pub fn next(self) {
        self.0.update(|theme| *theme = theme.next());
        self.0.get_untracked().apply();
    }
}

/// The state of the cluster in words, shared by the bar, the overview and the title.
pub type State = Memo<Assessment>;

#[component]
pub fn Shell(children: Children) -> impl IntoView {
    let store = use_store();
    let state: State = Memo::new(move |_| store.assess());
    provide_context(state);
    Effect::new(move |_| {
        let name = store.name.get();
        let name = if name.is_empty() { String::new() } else { format!("{name} · ") };
        browser::set_title(&format!("{} · {name}Ringmaster", state.with(|state| state.short.clone())));
    });
    let lost = Memo::new(move |_| {
        matches!(store.connection(), Connection::Lost { .. } | Connection::NeverAnswered { .. })
    });
    view! {
        <a class="skip" href="#main">"Skip to the page"</a>
        <TopBar state />
        <Rail />
        <main id="main" tabindex="-1" class:stale=lost>
            <Show when=move || lost.get()>
                <StaleBanner />
            </Show>
            {children()}
        </main>
    }
}

#[component]
fn TopBar(state: State) -> impl IntoView {
    let store = use_store();
    let palette = expect_context::<Palette>();
    let tone = Memo::new(move |_| state.with(|state| state.tone));
    let short = Memo::new(move |_| state.with(|state| state.short.clone()));
    let facts = move || {
        let leader = store.leader().zip(store.sample.with(|sample| {
            sample.as_ref().and_then(crate::figures::leader).map(|leader| leader.report.term)
        }));
        let leads =
            leader.map(|(leader, term)| format!("node {leader} leads term {term} · ")).unwrap_or_default();
        store.loaded.get().then(|| format!("{leads}revision {}", grouped(store.revision.get().0)))
    };
    view! {
        <header class="bar">
            <a class="logo" href="/" aria-label="Ringmaster, overview">{logo()}<span>"Ringmaster"</span></a>
            <div class="state">
                {move || sign(tone.get())} <strong data-testid="state-short">{short}</strong> <small>{facts}</small>
            </div>
            <Problems state />
            <ConnectionPill />
            <button type="button" class="pill" data-testid="palette-open" on:click=move |_| palette.open()>
                <span class="wide">"Go to… "</span> <kbd>"Ctrl K"</kbd>
            </button>
            <ThemeButton />
        </header>
    }
}

#[component]
fn ThemeButton() -> impl IntoView {
    let theme = expect_context::<ThemeSwitch>();
    let label =
        move || format!("Theme: {}. Switch to {}", theme.0.get().as_str(), theme.0.get().next().as_str());
    view! {
        <button type="button" class="pill icon" data-testid="theme" title=label aria-label=label on:click=move |_| theme.next()>
            {move || {
                let path = match theme.0.get() {
                    Theme::Light => "M8 4.500a3.5 3.5 0 1 1 0 7a3.5 3.5 0 0 1 0-7zM8 .5v1.500M8 14v1.500M.5 8h1.500M14 8h1.500M2.7 2.700l1.1 1.100M12.2 12.200l1.1 1.100M2.7 13.300l1.1-1.100M12.2 3.800l1.1-1.1",
                    Theme::Dark => "M13.5 9.700A6 6 0 0 1 6.3 2.500A6 6 0 1 0 13.5 9.700z",
                    Theme::System => "M1.5 2.500h13v8.500h-13zM5.5 14h5M8 11v3",
                };
                view! { <svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d=path /></svg> }
            }}
        </button>
    }
}

#[component]
fn ConnectionPill() -> impl IntoView {
    let store = use_store();
    let phase = move || store.link.with(|link| link.phase);
    let class = move || match phase() {
        LinkPhase::Live => "pill connection live",
        LinkPhase::Opening => "pill connection",
        LinkPhase::Lost => "pill connection lost",
    };
    let text = move || {
        store.link.with(|link| {
            let peer = link.peer.label();
            match (link.phase, link.node) {
                (LinkPhase::Live, _) => {
                    let latency =
                        store.latency_ms.get().map(|ms| format!(" · {ms:.0} ms")).unwrap_or_default();
                    format!("live from {peer}{latency}")
                }
                (LinkPhase::Opening, _) => format!("connecting to {peer}"),
                (LinkPhase::Lost, Some(node)) => format!("node {node} lost · trying {peer}"),
                (LinkPhase::Lost, None) => format!("no answer · trying {peer}"),
            }
        })
    };
    view! {
        <span
            class=class
            data-testid="connection"
            data-phase=move || match phase() {
                LinkPhase::Live => "live",
                LinkPhase::Opening => "opening",
                LinkPhase::Lost => "lost",
            }
            data-node=move || store.link.with(|link| link.node.map(|node| node.to_string()))
            title="The node that this page streams from, and how long it takes to answer"
        >
            <i class="dot" aria-hidden="true"></i>
            <span>{text}</span>
        </span>
    }
}

#[component]
fn Problems(state: State) -> impl IntoView {
    let problems = Memo::new(move |_| state.with(|state| state.problems.clone()));
    let worst = move || problems.with(|problems| problems.first().map(|problem| problem.tone));
    view! {
        <button
            type="button"
            class=move || format!("pill problems {}", worst().map_or("", crate::situation::Tone::class))
            popovertarget="problems"
            data-testid="problems"
        >
            {move || worst().map(sign)} <span class="wide">"Problems"</span>
            <b data-testid="problems-count">{move || problems.with(Vec::len)}</b>
        </button>
        <div id="problems" popover="auto" class="menu" role="region" aria-label="Problems">
            {move || {
                let found = problems.get();
                if found.is_empty() {
                    view! { <p class="quiet">"Nothing is wrong. What is not as it should be stands here, the gravest first."</p> }
                        .into_any()
                } else {
                    view! { <ul>{found.into_iter().map(problem).collect_view()}</ul> }.into_any()
                }
            }}
        </div>
    }
}

fn problem(problem: Problem) -> impl IntoView {
    let href = match problem.about {
        About::Node(id) => format!("/nodes/{id}"),
        About::Operation(id) => format!("/operations/{id}"),
        About::Consensus | About::Connection => "/nodes".to_owned(),
    };
    view! {
        <li>
            <a class="plain" href=href data-testid="problem">
                {sign(problem.tone)} <span>{problem.text}</span>
            </a>
        </li>
    }
}

/// How old what is shown is, and who is tried next.
#[component]
fn StaleBanner() -> impl IntoView {
    let store = use_store();
    let text = move || match store.connection() {
        Connection::Lost { since, next } => {
            let age = format::duration(format::age_ms(since, store.now.get()));
            format!("Disconnected. What you see is {age} old. Trying {next} next.")
        }
        Connection::NeverAnswered { next } => format!("No node has answered yet. Trying {next} next."),
        Connection::Opening { .. } | Connection::Live { .. } => String::new(),
    };
    view! {
        <div class="banner" role="alert" data-testid="stale-banner">
            {sign(crate::situation::Tone::Unknown)} <span>{text}</span>
        </div>
    }
}

#[component]
fn Rail() -> impl IntoView {
    let store = use_store();
    let path = use_location().pathname;
    let is_on = move |href: &str| {
        let path = path.get();
        if href == "/" { path == "/" } else { path.starts_with(href) }
    };
    let nodes = move || {
        let ids = store.node_ids.get();
        let up = ids
            .iter()
            .filter_map(|id| store.node(*id))
            .filter(|node| node.facts.with(|node| node.status == ringmaster_common::cluster::NodeStatus::Up))
            .count();
        if ids.is_empty() { String::new() } else { format!("{up}/{}", ids.len()) }
    };
    let running = move || {
        let under_way = store.operations.with(|operations| {
            operations
                .iter()
                .filter(|operation| {
                    matches!(operation.status, OperationStatus::Running | OperationStatus::AwaitingKeep)
                })
                .count()
        });
        if under_way == 0 { String::new() } else { format!("{under_way} now") }
    };
    let link = move |href: &'static str, id: &'static str, label: &'static str, glyph: &'static str| {
        view! {
            <a href=href data-testid=format!("nav-{id}") aria-current=move || is_on(href).then_some("page")>
                <svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d=glyph /></svg>
                <span>{label}</span>
                {match id {
                    "nodes" => view! { <b>{nodes}</b> }.into_any(),
                    "operations" => view! { <b>{running}</b> }.into_any(),
                    _ => ().into_any(),
                }}
            </a>
        }
    };
    view! {
        <nav class="rail" aria-label="Pages">
            {link("/", "overview", "Overview", "M2 2h5v6H2zM9 2h5v3.500H9zM9 7.500h5V14H9zM2 10h5v4H2z")}
            {link("/nodes", "nodes", "Nodes", "M8 1.500a2 2 0 1 1 0 4a2 2 0 0 1 0-4zM3.5 10.500a2 2 0 1 1 0 4a2 2 0 0 1 0-4zM12.5 10.500a2 2 0 1 1 0 4a2 2 0 0 1 0-4zM7 5.300L4.5 10.700M9 5.300L11.5 10.700M5.5 12.500h5")}
            {link("/operations", "operations", "Operations", "M2 4l1.5 1.500L6 3M8 4.300h6M2 10.500L3.5 12L6 9.500M8 10.800h6")}
            {link("/events", "events", "Events", "M3.5 1.500v13M3.5 4h9M3.5 8h6M3.5 12h8")}
        </nav>
    }
}

/// Makes the theme known to all that is inside.
pub fn provide_theme() {
    provide_context(ThemeSwitch(RwSignal::new(Theme::preferred())));
}
