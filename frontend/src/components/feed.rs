//! Lists of events. Every list uses this row, so that an event reads the same everywhere.
//!
//! Test id: `event-row`, with `data-revision`.

use crate::{
    components::{
        marks::sign,
        text::{moment, prose, revision},
    },
    timeline::Entry,
};
use leptos::prelude::*;
use ringmaster_common::id::Revision;

/// One event. `full` shows who asked for it too.
#[component]
pub fn EventRow(entry: Entry, #[prop(optional)] full: bool, #[prop(optional)] marked: bool) -> impl IntoView {
    let actor = full
        .then(|| view! { <span class="actor clip" title=entry.actor.clone()>{entry.actor.clone()}</span> });
    view! {
        <li
            class="event"
            class:full=full
            class:marked=marked
            data-testid="event-row"
            data-revision=entry.revision.to_string()
            aria-current=marked.then_some("true")
        >
            {moment(entry.at)} {sign(entry.tone)} <span class="sentence" title=entry.sentence.clone()>{prose(&entry.sentence)}</span>
            {actor} {revision(Revision(entry.revision))}
        </li>
    }
}

/// What tells one row from another.
pub fn key(entry: &Entry) -> (u64, usize) {
    (entry.revision, entry.position)
}
