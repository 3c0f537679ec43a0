//! Lists of events. Every list uses this row, so that an event reads the same everywhere.
//!
//! A line that others are rolled up into changes in place: what is under the pointer or has the focus
//! stays where it is.
//!
//! Test id: `event-row`, with `data-revision`.

use crate::{
    components::{
        icons::sign,
        live::{each, live, text},
        text::{linkify, moment, revision},
    },
    format::grouped,
    timeline::Entry,
};
use leptos::prelude::*;
use ringmaster_common::id::Revision;

/// The columns of each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowDetail {
    /// The event alone.
    Short,
    /// With the actor. `marked` is the revision that the address names.
    Full { marked: Option<u64> },
}

pub fn feed(entries: Memo<Vec<Entry>>, extent: RowDetail) -> AnyView {
    let list = each_line(entries, Box::new(move |line| event_row(line, extent)));
    view! { <ul class="feed">{list}</ul> }.into_any()
}

/// A row for each line. The row of a line that may grow follows it.
pub fn each_line(lines: Memo<Vec<Entry>>, row: Box<dyn Fn(Memo<Entry>) -> AnyView + Send + Sync>) -> AnyView {
    each(lines, key, move |line: Entry| {
        if line.rolls_up_as.is_none() {
            return row(Memo::new(move |_| line.clone()));
        }
        let wanted = key(&line);
        let current =
            Memo::new(move |_| lines.with(|lines| lines.iter().find(|line| key(line) == wanted).cloned()));
        // A row outlives its line by a moment.
        row(Memo::new(move |_| current.get().unwrap_or_else(|| line.clone())))
    })
}

fn key(line: &Entry) -> (u64, usize) {
    (line.since, line.position)
}

fn event_row(line: Memo<Entry>, extent: RowDetail) -> AnyView {
    let first = line.get_untracked();
    let (full, marked) = match extent {
        RowDetail::Short => (false, false),
        RowDetail::Full { marked } => (true, marked == Some(first.revision)),
    };
    let class = match (full, marked) {
        (_, true) => "event full marked",
        (true, false) => "event full",
        (false, false) => "event",
    };
    let actor = full.then(|| {
        view! { <span class="actor clip" title=first.actor.clone()>{first.actor.clone()}</span> }.into_any()
    });
    view! {
        <li
            class=class
            data-testid="event-row"
            data-revision=text(move || line.with(|line| line.revision.to_string()))
            aria-current=marked.then_some("true")
        >
            {live(move || moment(line.with(|line| line.at)))} {sign(first.tone)}
            <span class="sentence" title=text(move || line.with(|line| line.sentence.clone()))>
                {if full { roll_up(line) } else { roll_up_short(line) }} " "
                {live(move || line.with(|line| linkify(&line.sentence)))}
            </span>
            {actor} {live(move || revision(Revision(line.with(|line| line.revision))))}
        </li>
    }
    .into_any()
}

/// The same where there is little room.
fn roll_up_short(line: Memo<Entry>) -> AnyView {
    let rolled_up = move || {
        let count = text(move || format!("×{}", line.with(|line| grouped(line.count.into()))));
        let title =
            text(move || format!("{} changes, last shown", line.with(|line| grouped(line.count.into()))));
        view! { <span class="pill" title=title>{count}</span> }.into_any()
    };
    crate::components::live::when(move || line.with(|line| line.count > 1), rolled_up).into_any()
}

/// How many events a line stands for, leading to the first of them.
pub fn roll_up(line: Memo<Entry>) -> AnyView {
    let since = line.with_untracked(|line| line.since);
    let rolled_up = move || {
        let count =
            text(move || format!("{} changes, last shown", line.with(|line| grouped(line.count.into()))));
        view! {
            <a
                class="pill"
                href=format!("/events?revision={since}")
                title="Rolled up into one line. Open the timeline at the first of them"
            >
                {count}
            </a>
        }
        .into_any()
    };
    crate::components::live::when(move || line.with(|line| line.count > 1), rolled_up).into_any()
}
