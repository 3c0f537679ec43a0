//! What is around every page: the bar with the state in one sentence, the problems, the connection,
//! the rail, and the banner when what is shown is old.
//!
//! Test ids: `state-short`, `connection` (with `data-phase` and `data-node`), `problems`,
//! `problems-count`, `problem`, `palette-open`, `theme`, `nav-<page>`, `stale-banner`.

use crate::{
    address::{Page, use_address},
    browser::{self, Theme},
    components::{
        live::{effect, live, maybe, memo, when, words},
        marks::{logo, sign},
        palette::Palette,
        text::quiet,
    },
    figures,
    format::{self, grouped},
    situation::{About, Assessment, Connection, Problem, Tone},
    store::{LinkPhase, Store, use_store},
};
use leptos::prelude::*;

/// The theme, as the reader chose it.
#[derive(Clone, Copy, Debug)]
pub struct ThemeSwitch(RwSignal<Theme>);

impl ThemeSwitch {
    pub fn new() -> Self {
        ThemeSwitch(RwSignal::new(Theme::preferred()))
    }

    pub fn next(self) {
        self.0.update(|theme| *theme = theme.next());
        self.0.get_untracked().apply();
    }
}

/// The state of the cluster in words, shared by the bar, the overview and the title.
pub type State = Memo<Assessment>;

pub fn shell(page: impl FnOnce() -> AnyView) -> AnyView {
    let store = use_store();
    let state: State = memo(move || store.assess());
    provide_context(state);
    effect(move || {
        let short = state.with(|state| state.short.clone());
        let name = store.name.get();
        let name = if name.is_empty() { name } else { format!("{name} · ") };
        browser::set_title(&format!("{short} · {name}Ringmaster"));
    });
    let lost = memo(move || {
        matches!(store.connection(), Connection::Lost { .. } | Connection::NeverAnswered { .. })
    });
    view! {
        <a class="skip" href="#main">"Skip to the page"</a>
        {top_bar(store, state)}
        {rail(store)}
        <main id="main" tabindex="-1" class=words(move || if lost.get() { "stale" } else { "" }.to_owned())>
            {when(move || lost.get(), move || stale_banner(store))}
            {page()}
        </main>
    }
    .into_any()
}

fn top_bar(store: Store, state: State) -> AnyView {
    let palette = expect_context::<Palette>();
    let facts = words(move || {
        let leader = store.sample.with(|sample| {
            sample.as_ref().and_then(figures::leader).map(|leader| (leader.report.node, leader.report.term))
        });
        let leads =
            leader.map(|(leader, term)| format!("node {leader} leads term {term} · ")).unwrap_or_default();
        if store.loaded.get() {
            format!("{leads}revision {}", grouped(store.revision.get().0))
        } else {
            leads
        }
    });
    view! {
        <header class="bar">
            <a class="logo" href="/" aria-label="Ringmaster, overview">{logo()} <span>"Ringmaster"</span></a>
            <div class="state">
                {live(move || sign(state.with(|state| state.tone)))}
                <strong data-testid="state-short">{words(move || state.with(|state| state.short.clone()))}</strong>
                <small>{facts}</small>
            </div>
            {problems(state)}
            {connection_pill(store)}
            <button type="button" class="pill" data-testid="palette-open" on:click=move |_| palette.open()>
                <span class="optional">"Go to… "</span> <kbd>"Ctrl K"</kbd>
            </button>
            {theme_button()}
        </header>
    }
    .into_any()
}

fn theme_button() -> AnyView {
    let theme = expect_context::<ThemeSwitch>();
    let label = words(move || {
        let theme = theme.0.get();
        format!("Theme: {}. Switch to {}", theme.as_str(), theme.next().as_str())
    });
    let path = words(move || {
        match theme.0.get() {
            Theme::Light => "M8 4.5a3.5 3.5 0 1 1 0 7a3.5 3.5 0 0 1 0-7zM8 .5v1.5M8 14v1.5M.5 8h1.5M14 8h1.5M2.7 2.7l1.1 1.1M12.2 12.2l1.1 1.1M2.7 13.3l1.1-1.1M12.2 3.8l1.1-1.1",
            Theme::Dark => "M13.5 9.7A6 6 0 0 1 6.3 2.5A6 6 0 1 0 13.5 9.7z",
            Theme::System => "M1.5 2.5h13v8.5h-13zM5.5 14h5M8 11v3",
        }
        .to_owned()
    });
    view! {
        <button type="button" class="pill icon" data-testid="theme" title=label aria-label=label on:click=move |_| theme.next()>
            <svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d=path /></svg>
        </button>
    }
    .into_any()
}

fn connection_pill(store: Store) -> AnyView {
    let phase = move || match store.link.with(|link| link.phase) {
        LinkPhase::Live => "live",
        LinkPhase::Opening => "opening",
        LinkPhase::Lost => "lost",
    };
    let text = words(move || {
        let latency = store.latency_ms.get().map(|ms| format!(" · {ms:.0} ms")).unwrap_or_default();
        store.link.with(|link| {
            let peer = link.peer.label();
            match (link.phase, link.node) {
                (LinkPhase::Live, _) => format!("{peer}{latency}"),
                (LinkPhase::Opening, _) => format!("connecting to {peer}"),
                (LinkPhase::Lost, Some(node)) => format!("node {node} lost · trying {peer}"),
                (LinkPhase::Lost, None) => format!("no answer · trying {peer}"),
            }
        })
    });
    view! {
        <span
            class=words(move || format!("pill connection {}", phase()))
            data-testid="connection"
            data-phase=words(move || phase().to_owned())
            data-node=maybe(move || store.link.with(|link| link.node.map(|node| node.to_string())))
            title="The node that this page streams from, and how long it takes to answer"
        >
            <i class="dot" aria-hidden="true"></i>
            <span>
                {when(move || phase() == "live", || view! { <span class="roomy">"live from "</span> }.into_any())}
                {text}
            </span>
        </span>
    }
    .into_any()
}

fn problems(state: State) -> AnyView {
    let found = memo(move || state.with(|state| state.problems.clone()));
    let worst = memo(move || found.with(|found| found.first().map(|problem| problem.tone)));
    let list = live(move || {
        let found = found.get();
        if found.is_empty() {
            quiet("Nothing is wrong. What is not as it should be stands here, the gravest first.".to_owned())
        } else {
            view! { <ul>{found.into_iter().map(problem).collect_view()}</ul> }.into_any()
        }
    });
    view! {
        <button
            type="button"
            class=words(move || format!("pill problems {}", worst.get().map_or("", Tone::class)))
            popovertarget="problems"
            aria-label=words(move || format!("Problems: {}", found.with(Vec::len)))
            data-testid="problems"
        >
            {live(move || worst.get().map(sign))} <span class="optional">"Problems"</span>
            <b data-testid="problems-count">{words(move || found.with(Vec::len).to_string())}</b>
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
        About::Consensus | About::Connection => "/nodes".to_owned(),
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

/// How old what is shown is, and who is tried next.
fn stale_banner(store: Store) -> AnyView {
    let text = words(move || match store.connection() {
        Connection::Lost { since, next } => {
            let age = format::duration(format::age_ms(since, store.now.get()));
            format!("Disconnected. What you see is {age} old. Trying {next} next.")
        }
        Connection::NeverAnswered { next } => format!("No node has answered yet. Trying {next} next."),
        Connection::Opening { .. } | Connection::Live { .. } => String::new(),
    });
    view! {
        <div class="banner" role="alert" data-testid="stale-banner">
            {sign(Tone::Bad)} <span>{text}</span>
        </div>
    }
    .into_any()
}

fn rail(store: Store) -> AnyView {
    let nodes = words(move || {
        let ids = store.node_ids.get();
        let nodes = ids.iter().filter_map(|id| store.node(*id));
        let up = nodes.filter(|node| node.is_up()).count();
        if ids.is_empty() { String::new() } else { format!("{up}/{}", ids.len()) }
    });
    let under_way = words(move || {
        let count = store
            .operations
            .with(|operations| operations.iter().filter(|operation| !operation.status.is_final()).count());
        if count == 0 { String::new() } else { format!("{count} now") }
    });
    let no_count = Signal::stored(String::new());
    view! {
        <nav class="rail" aria-label="Pages">
            {link("/", "overview", "Overview", "M2 2h5v6H2zM9 2h5v3.5H9zM9 7.5h5V14H9zM2 10h5v4H2z", no_count)}
            {link("/nodes", "nodes", "Nodes", "M8 1.5a2 2 0 1 1 0 4a2 2 0 0 1 0-4zM3.5 10.5a2 2 0 1 1 0 4a2 2 0 0 1 0-4zM12.5 10.5a2 2 0 1 1 0 4a2 2 0 0 1 0-4zM7 5.3L4.5 10.7M9 5.3L11.5 10.7M5.5 12.5h5", nodes)}
            {link("/operations", "operations", "Operations", "M2 4l1.5 1.5L6 3M8 4.3h6M2 10.5L3.5 12L6 9.5M8 10.8h6", under_way)}
            {link("/events", "events", "Events", "M3.5 1.5v13M3.5 4h9M3.5 8h6M3.5 12h8", no_count)}
        </nav>
    }
    .into_any()
}

fn link(
    href: &'static str,
    id: &'static str,
    label: &'static str,
    glyph: &'static str,
    count: Signal<String>,
) -> AnyView {
    let address = use_address();
    let current = maybe(move || {
        let page = address.path.with(|path| Page::of(path));
        let section = match page {
            Page::Overview | Page::Plan(_) => "overview",
            Page::Nodes | Page::Node(_) => "nodes",
            Page::Operations | Page::Operation(_) => "operations",
            Page::Events => "events",
            Page::Missing => "",
        };
        (section == id).then(|| "page".to_owned())
    });
    view! {
        <a href=href data-testid=format!("nav-{id}") aria-current=current>
            <svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d=glyph /></svg>
            <span>{label}</span>
            <b>{count}</b>
        </a>
    }
    .into_any()
}
