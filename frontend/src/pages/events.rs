//! The timeline: every event, newest first, live at its head; or the stretch around one revision.
//!
//! Filters and the revision are in the page's address. Filters apply to what is loaded, and the page
//! says how much that is.
//!
//! Test ids: `event-row`, `events-kind-<kind>`, `events-words`, `load-older`.

use crate::{
    address::use_address,
    api::{ApiError, EVENTS_PER_PAGE},
    components::{
        feed::{Extent, feed},
        live::{effect, either, follow, live, memo, when, words},
        text::{empty, refusal, skeleton},
    },
    format::{capitalised, count, grouped},
    store::{Store, use_store},
    timeline::{self, Entry, Kind, passes},
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{event::EventBatch, page::Page};

/// How many later revisions than the one asked for are shown for context.
const CONTEXT: u64 = 25;

/// The stretch of the timeline that was fetched, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
struct Fetched {
    entries: Vec<Entry>,
    /// The cursor towards older ones.
    next: Option<String>,
    asked: bool,
}

impl Fetched {
    fn extend(&mut self, page: Page<EventBatch>) {
        self.asked = true;
        self.next = page.next;
        self.entries.extend(page.items.iter().flat_map(timeline::entries));
    }
}

/// What was fetched for the page, and how it went.
#[derive(Clone, Copy)]
struct Loader {
    store: Store,
    revision: Memo<Option<u64>>,
    fetched: RwSignal<Fetched>,
    loading: RwSignal<bool>,
    failed: RwSignal<Option<ApiError>>,
}

impl Loader {
    fn load(self) {
        let at = self.revision.get_untracked();
        let cursor = self.fetched.with_untracked(|fetched| fetched.next.clone());
        self.loading.set(true);
        self.failed.set(None);
        spawn_local(async move {
            // A cursor of this list is the revision that it stops before.
            let first = || at.map(|at| (at + CONTEXT + 1).to_string());
            let answer = self.store.api.events(cursor.or_else(first), EVENTS_PER_PAGE).await;
            // The reader may have gone elsewhere in the meantime.
            if self.revision.try_get_untracked() != Some(at) {
                return;
            }
            match answer {
                Ok(page) => self.fetched.update(|fetched| fetched.extend(page)),
                Err(error) => self.failed.set(Some(error)),
            }
            self.loading.set(false);
        });
    }

    /// All that is loaded. At the head the stream adds what is new; around a revision the stretch
    /// stands still.
    fn all(self) -> Vec<Entry> {
        let mut entries = self.fetched.with(|fetched| fetched.entries.clone());
        if self.revision.get().is_none() {
            let newest = entries.first().map_or(0, |entry| entry.revision);
            let mut live: Vec<Entry> = self
                .store
                .entries
                .with(|live| live.iter().take_while(|entry| entry.revision > newest).cloned().collect());
            live.append(&mut entries);
            entries = live;
        }
        entries
    }

    fn button(self) -> AnyView {
        let offered = move || self.fetched.with(|fetched| fetched.next.is_some());
        let button = move || {
            view! {
                <button
                    type="button"
                    class="load"
                    data-testid="load-older"
                    disabled={follow::<bool>(self.loading)}
                    on:click=move |_| self.load()
                >
                    "Load older events"
                </button>
            }
            .into_any()
        };
        when(offered, button).into_any()
    }
}

pub fn events_page() -> AnyView {
    let store = use_store();
    let address = use_address();
    let kind = memo(move || address.parameter("kind").as_deref().and_then(Kind::parse));
    let filter = memo(move || address.parameter("words").unwrap_or_default());
    let loader = Loader {
        store,
        revision: memo(move || address.parameter("revision").and_then(|at| at.parse().ok())),
        fetched: RwSignal::new(Fetched::default()),
        loading: RwSignal::new(false),
        failed: RwSignal::new(None),
    };
    effect(move || {
        loader.revision.track();
        if store.loaded.get() {
            loader.fetched.set(Fetched::default());
            loader.load();
        }
    });
    effect(move || {
        if loader.fetched.with(|fetched| fetched.asked) && loader.revision.get().is_some() {
            request_animation_frame(|| crate::browser::scroll_into_view(".event.marked"));
        }
    });
    let all = memo(move || loader.all());
    let shown = memo(move || {
        let (kind, filter) = (kind.get(), filter.get());
        all.with(|all| all.iter().filter(|entry| passes(entry, kind, &filter)).cloned().collect::<Vec<_>>())
    });
    let how_many = words(move || {
        format!(
            "{} of {} loaded",
            grouped(shown.with(Vec::len) as u64),
            count(all.with(Vec::len) as u64, "event")
        )
    });
    let nothing = || {
        let text = format!("Filters look at what is loaded, {EVENTS_PER_PAGE} revisions at a time.");
        empty("No event passes the filters", view! { <p>{text}</p> }.into_any())
    };
    // A list knows which revision to mark, so a change of it makes a new list.
    let marked =
        move || live(move || feed(follow(shown), Extent::Full { marked: loader.revision.get() })).into_any();
    let list = move || either(move || !shown.with(Vec::is_empty), marked, nothing).into_any();
    let list_known = move || loader.fetched.with(|fetched| fetched.asked) || !all.with(Vec::is_empty);
    let around = live(move || {
        loader.revision.get().map(|at| {
            view! {
                <span class="pill">{format!("around revision {}", grouped(at))}</span>
                <button type="button" class="small" on:click=move |_| address.set_parameter("revision", None, false)>
                    "Back to now"
                </button>
            }
        })
    });
    let mut kinds = vec![kind_button(None, kind)];
    kinds.extend(Kind::ALL.map(|each| kind_button(Some(each), kind)));
    view! {
        <div class="page">
            <div class="page-head">
                <h1>"Events"</h1>
                {around}
            </div>
            <div class="filters" role="search">
                <div class="segments" role="group" aria-label="Kind">
                    {kinds}
                </div>
                <input
                    type="search"
                    placeholder="Words, a node, a revision"
                    aria-label="Filter by words"
                    data-testid="events-words"
                    prop:value={follow::<String>(filter)}
                    on:input=move |event| {
                        let words = event_target_value(&event);
                        address.set_parameter("words", (!words.is_empty()).then_some(words.as_str()), true);
                    }
                />
                <span class="quiet">{how_many}</span>
            </div>
            <section
                class="card"
                aria-label="Events"
                aria-busy=words(move || loader.loading.get().to_string())
            >
                {live(move || loader.failed.get().map(|error| refusal(&error)))}
                {either(list_known, list, || skeleton(8))} {loader.button()}
            </section>
        </div>
    }
    .into_any()
}

fn kind_button(kind: Option<Kind>, chosen: Memo<Option<Kind>>) -> AnyView {
    let address = use_address();
    let name = kind.map_or("all", Kind::as_str);
    view! {
        <button
            type="button"
            aria-pressed=words(move || (chosen.get() == kind).to_string())
            data-testid=format!("events-kind-{name}")
            on:click=move |_| address.set_parameter("kind", kind.map(Kind::as_str), true)
        >
            {capitalised(name)}
        </button>
    }
    .into_any()
}
