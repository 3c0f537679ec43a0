//! The timeline: every event, newest first, live at its head; or the stretch around one revision.
//!
//! Filters and the revision are in the page's address. Filters apply to what is loaded, and the page
//! says how much that is.
//!
//! Test ids: `event-row`, `events-kind-<kind>`, `events-words`, `load-older`, `load-newer`.

use crate::{
    api::{ApiError, EVENTS_PER_PAGE},
    components::{
        desk::use_desk,
        feed::{EventRow, key},
        text::{Empty, refusal, skeleton},
    },
    format::{capitalised, count, grouped},
    store::use_store,
    timeline::{self, Entry, Kind, passes},
};
use leptos::{prelude::*, task::spawn_local};
use leptos_router::hooks::use_query_map;
use ringmaster_common::{event::EventBatch, id::Revision, page::Page};

/// How many revisions before the one asked for are shown for context.
const CONTEXT: u64 = 25;

/// The stretch of the timeline that was fetched, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
struct Fetched {
    entries: Vec<Entry>,
    /// The cursor towards older events, or newer ones where a revision is shown.
    next: Option<String>,
    asked: bool,
}

#[component]
pub fn EventsPage() -> impl IntoView {
    let store = use_store();
    let desk = use_desk();
    let query = use_query_map();
    let parameter = move |key: &'static str| Memo::new(move |_| query.with(|query| query.get(key)));
    let (kind, words, revision) = (parameter("kind"), parameter("words"), parameter("revision"));
    let kind = Memo::new(move |_| kind.get().as_deref().and_then(Kind::parse));
    let words = Memo::new(move |_| words.get().unwrap_or_default());
    let revision = Memo::new(move |_| revision.get().and_then(|revision| revision.parse::<u64>().ok()));

    let fetched = RwSignal::new(Fetched::default());
    let loading = RwSignal::new(false);
    let failed = RwSignal::new(None::<ApiError>);

    let load = move || {
        let at = revision.get_untracked();
        let cursor = fetched.with_untracked(|fetched| fetched.next.clone());
        loading.set(true);
        failed.set(None);
        spawn_local(async move {
            let answer = match at {
                Some(at) => store.api.events_after(Revision(at.saturating_sub(CONTEXT + 1)), cursor).await,
                None => store.api.latest_events(cursor).await,
            };
            if revision.try_get_untracked() != Some(at) {
                return;
            }
            match answer {
                Ok(page) => fetched.update(|fetched| extend(fetched, page, at.is_some())),
                Err(error) => failed.set(Some(error)),
            }
            loading.set(false);
        });
    };
    Effect::new(move |_| {
        revision.track();
        if store.loaded.get() {
            fetched.set(Fetched::default());
            load();
        }
    });

    // At the head the stream adds what is new; around a revision the stretch stands still.
    let all = Memo::new(move |_| {
        let mut entries = fetched.with(|fetched| fetched.entries.clone());
        if revision.get().is_none() {
            let newest = entries.first().map_or(0, |entry| entry.revision);
            let mut live: Vec<Entry> = store
                .entries
                .with(|live| live.iter().take_while(|entry| entry.revision > newest).cloned().collect());
            live.append(&mut entries);
            entries = live;
        }
        entries
    });
    let shown = Memo::new(move |_| {
        let (kind, words) = (kind.get(), words.get());
        all.with(|all| all.iter().filter(|entry| passes(entry, kind, &words)).cloned().collect::<Vec<_>>())
    });
    Effect::new(move |_| {
        let loaded = fetched.with(|fetched| fetched.asked);
        if loaded && revision.get().is_some() {
            request_animation_frame(|| crate::browser::scroll_into_view(".event.marked"));
        }
    });

    let more = move || fetched.with(|fetched| fetched.next.is_some());
    let load_button = move |newer: bool| {
        let (id, label) =
            if newer { ("load-newer", "Load newer events") } else { ("load-older", "Load older events") };
        view! {
            <Show when=move || more() && revision.get().is_some() == newer>
                <button type="button" class="load" data-testid=id disabled=move || loading.get() on:click=move |_| load()>
                    {label}
                </button>
            </Show>
        }
    };
    view! {
        <div class="page">
            <div class="page-head">
                <h1>"Events"</h1>
                {move || {
                    revision
                        .get()
                        .map(|at| {
                            view! {
                                <span class="pill">"around revision " {grouped(at)}</span>
                                <button type="button" class="small" on:click=move |_| desk.set_parameter("revision", None, false)>
                                    "Back to now"
                                </button>
                            }
                        })
                }}
            </div>
            <div class="filters" role="search">
                <div class="segments" role="group" aria-label="Kind">
                    {kind_button(None, kind)} {Kind::ALL.map(|each| kind_button(Some(each), kind)).collect_view()}
                </div>
                <input
                    type="search"
                    placeholder="Words, a node, a revision"
                    aria-label="Filter by words"
                    data-testid="events-words"
                    prop:value=words
                    on:input=move |event| {
                        let words = event_target_value(&event);
                        desk.set_parameter("words", (!words.is_empty()).then_some(words.as_str()), true);
                    }
                />
                <span class="quiet">
                    {move || {
                        format!("{} of {} loaded", grouped(shown.with(Vec::len) as u64), count(all.with(Vec::len) as u64, "event"))
                    }}
                </span>
            </div>
            <section class="card" aria-label="Events" aria-busy=move || loading.get().to_string()>
                {load_button(true)} {move || failed.get().map(|error| refusal(&error))}
                <Show when=move || fetched.with(|fetched| fetched.asked) || !all.with(Vec::is_empty) fallback=|| skeleton(8)>
                    <Show
                        when=move || !shown.with(Vec::is_empty)
                        fallback=move || {
                            view! {
                                <Empty title="No event passes the filters">
                                    <p>{format!("Filters look at what is loaded, {EVENTS_PER_PAGE} revisions at a time.")}</p>
                                </Empty>
                            }
                        }
                    >
                        <ul class="feed">
                            <For each=move || shown.get() key=key let(entry)>
                                {
                                    let marked = revision.get_untracked() == Some(entry.revision);
                                    view! { <EventRow entry full=true marked /> }
                                }
                            </For>
                        </ul>
                    </Show>
                </Show>
                {load_button(false)}
            </section>
        </div>
    }
}

/// Adds a page: older events behind, newer ones, which come in ascending order, in front.
fn extend(fetched: &mut Fetched, page: Page<EventBatch>, ascending: bool) {
    fetched.asked = true;
    fetched.next = page.next;
    if ascending {
        let mut newer: Vec<Entry> = page.items.iter().rev().flat_map(timeline::entries).collect();
        newer.append(&mut fetched.entries);
        fetched.entries = newer;
    } else {
        fetched.entries.extend(page.items.iter().flat_map(timeline::entries));
    }
}

fn kind_button(kind: Option<Kind>, chosen: Memo<Option<Kind>>) -> impl IntoView {
    let desk = use_desk();
    let name = kind.map_or("all", Kind::as_str);
    view! {
        <button
            type="button"
            aria-pressed=move || (chosen.get() == kind).to_string()
            data-testid=format!("events-kind-{name}")
            on:click=move |_| desk.set_parameter("kind", kind.map(Kind::as_str), true)
        >
            {capitalised(name)}
        </button>
    }
}
