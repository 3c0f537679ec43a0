//! Lists of events. Every list uses this row, so that an event reads the same everywhere.
//!
//! Test id: `event-row`, with `data-revision`.

use crate::{
    components::{
        live::{Key, each},
        marks::sign,
        text::{moment, prose, revision},
    },
    format::grouped,
    timeline::Entry,
};
use leptos::prelude::*;
use ringmaster_common::id::Revision;

/// How much a list says of each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What happened.
    Short,
    /// And who asked for it. `marked` is the revision that the reader asked for.
    Full { marked: Option<u64> },
}

pub fn feed(entries: Signal<Vec<Entry>>, extent: Extent) -> AnyView {
    view! { <ul class="feed">{each(entries, key, move |entry| event_row(entry, extent))}</ul> }.into_any()
}

fn event_row(entry: Entry, extent: Extent) -> AnyView {
    let (full, marked) = match extent {
        Extent::Short => (false, false),
        Extent::Full { marked } => (true, marked == Some(entry.revision)),
    };
    let class = match (full, marked) {
        (_, true) => "event full marked",
        (true, false) => "event full",
        (false, false) => "event",
    };
    let rolled_up = (entry.count > 1).then(|| {
        view! { <span class="pill">{format!("latest of {}", grouped(entry.count.into()))}</span> }.into_any()
    });
    let actor = full.then(|| {
        view! { <span class="actor clip" title=entry.actor.clone()>{entry.actor.clone()}</span> }.into_any()
    });
    view! {
        <li
            class=class
            data-testid="event-row"
            data-revision=entry.revision.to_string()
            aria-current=marked.then_some("true")
        >
            {moment(entry.at)} {sign(entry.tone)}
            <span class="sentence" title=entry.sentence.clone()>{rolled_up} {prose(&entry.sentence)}</span>
            {actor} {revision(Revision(entry.revision))}
        </li>
    }
    .into_any()
}

fn key(entry: &Entry) -> Key {
    (entry.revision, entry.position as u64)
}
