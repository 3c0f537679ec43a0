//! The timeline: every event, newest first, live at its head; or the stretch around one revision.
//!
//! Filters and the revision are in the page's address. Filters apply to what is loaded, and the page
//! says how much that is.
//!
//! Test ids: `event-row`, and those of [`crate::components::filters`] and
//! [`crate::components::running_list`].

use crate::{
    address::use_address,
    components::{
        feed::{RowDetail, feed},
        filters::{filters, segments, wanted_words},
        live::{class_if, click, live, text},
        running_list::RunningList,
        text::empty,
    },
    format::{count, grouped},
    store::use_store,
    timeline::{self, Entry, Kind, passes},
};
use leptos::prelude::*;
use std::sync::Arc;

pub fn events_page() -> AnyView {
    let store = use_store();
    let address = use_address();
    let around = Memo::new(move |_| address.parameter("revision").and_then(|at| at.parse().ok()));
    let list = RunningList::start(store, around, |api, before, limit| {
        Box::pin(async move {
            let page = api.events(before, limit).await?;
            Ok((page.items.iter().flat_map(timeline::entries).collect(), page.next))
        })
    });
    Effect::new(move |_| {
        let Some(newest) = list.head() else { return };
        let newer = store.entries.with(|live| {
            let newer = live.iter().take_while(|entry| entry.revision > newest);
            newer.cloned().collect::<Vec<Entry>>().into_iter().rev().collect()
        });
        untrack(|| list.take(newer));
    });
    let kind = Memo::new(move |_| address.parameter("kind").as_deref().and_then(Kind::parse));
    let filter = Memo::new(|_| wanted_words());
    let all = Memo::new(move |_| list.shown());
    let shown = Memo::new(move |_| {
        let (kind, filter) = (kind.get(), filter.get());
        all.with(|all| all.iter().filter(|entry| passes(entry, kind, &filter)).cloned().collect::<Vec<_>>())
    });
    let how_many = text(move || {
        format!(
            "{} of {} loaded",
            grouped(shown.with(Vec::len) as u64),
            count(all.with(Vec::len) as u64, "line")
        )
    });
    let nothing = || {
        let why = "Filters apply to the loaded events. Load older ones, or remove a filter.";
        empty("No event passes the filters", view! { <p>{why}</p> }.into_any())
    };
    // A list knows which revision to mark, so a change of it makes a new list.
    let marked = move || live(move || feed(shown, RowDetail::Full { marked: around.get() })).into_any();
    let at = live(move || {
        around.get().map(|at| {
            view! {
                <span class="pill">{format!("around revision {}", grouped(at))}</span>
                <button type="button" class="small" on:click=click(move || address.set_parameter("revision", None, false))>
                    "Back to now"
                </button>
            }
        })
    });
    let kinds = segments("kind", &Kind::ALL.map(Kind::as_str));
    view! {
        <div class="page">
            <div class="page-head">
                <h1>"Events"</h1>
                {at}
                <span class="spacer"></span>
                {list.hold_button()}
            </div>
            {filters(kinds, "Words, a node, a revision", how_many)}
            <section class="card" aria-label="Events" aria-busy=text(move || list.loading.get().to_string())>
                {list.body(class_if(move || shown.with(Vec::is_empty)), Arc::new(marked), Arc::new(nothing))}
            </section>
        </div>
    }
    .into_any()
}
