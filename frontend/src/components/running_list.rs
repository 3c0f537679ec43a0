//! A running list: newest first, live at its head, with older lines on demand, and paused while the reader has
//! scrolled down.
//!
//! Repeated lines are rolled up. Lines that arrive while the reader has scrolled down or holds the list are counted
//! and not shown. Around one line that the address names, the list stands still altogether.
//! It holds [`MAX_LINES`] lines; older ones are dropped and can be loaded again.
//!
//! Test ids: `load-older`, `hold`, `held-count`.

use crate::{
    api::{Api, ApiError, ApiResult, LocalBoxFuture, PER_PAGE},
    components::{
        live::{class_if, click, either, live, text, when},
        text::{refusal, skeleton},
    },
    format::count,
    store::Store,
    timeline::{Entry, roll_up_newer, roll_up_older},
};
use leptos::{prelude::*, task::spawn_local};
use std::sync::Arc;

/// How many lines a list holds.
pub const MAX_LINES: usize = 2_000;
/// How many lines later than the one asked for are shown for context.
const CONTEXT: u64 = 25;

/// Whether the reader has scrolled down, as the frame around the page sees it.
#[derive(Clone, Copy, Debug)]
pub struct Scrolled(pub RwSignal<bool>);

/// Some lines, newest first, and the cursor of the next ones.
pub type Lines = (Vec<Entry>, Option<String>);
/// Fetches lines from before a cursor, as many as wanted.
pub type Fetch = fn(Api, Option<String>, u32) -> LocalBoxFuture<ApiResult<Lines>>;

/// A part of the list, made when it is needed.
pub type Part = Arc<dyn Fn() -> AnyView + Send + Sync>;

#[derive(Clone, Copy)]
pub struct RunningList {
    store: Store,
    fetch: Fetch,
    /// The line that the address names.
    pub around: Memo<Option<u64>>,
    lines: RwSignal<Vec<Entry>>,
    /// The rank of the newest line that was taken in.
    newest: StoredValue<u64>,
    /// How often the list has begun: an answer to an earlier beginning is not for it.
    beginning: StoredValue<u32>,
    /// Where older lines begin.
    next: RwSignal<Option<String>>,
    asked: RwSignal<bool>,
    pub loading: RwSignal<bool>,
    failed: RwSignal<Option<ApiError>>,
    /// The lines as they were when the list was held.
    held: RwSignal<Option<Vec<Entry>>>,
    /// Held by the reader, and not because of scrolling.
    by_hand: RwSignal<bool>,
}

impl RunningList {
    /// Starts with the newest lines, or with those around the one that the address names.
    pub fn start(store: Store, around: Memo<Option<u64>>, fetch: Fetch) -> Self {
        let list = RunningList {
            store,
            fetch,
            around,
            lines: RwSignal::new(Vec::new()),
            newest: StoredValue::new(0),
            beginning: StoredValue::new(0),
            next: RwSignal::new(None),
            asked: RwSignal::new(false),
            loading: RwSignal::new(false),
            failed: RwSignal::new(None),
            held: RwSignal::new(None),
            by_hand: RwSignal::new(false),
        };
        Effect::new(move |_| {
            around.get();
            store.restarts.track();
            if store.loaded.get() {
                untrack(|| list.restart());
            }
        });
        let scrolled = expect_context::<Scrolled>().0;
        Effect::new(move |_| {
            let hold = around.get().is_none() && (list.by_hand.get() || scrolled.get());
            let is_held = list.held.with_untracked(Option::is_some);
            match (hold, is_held) {
                (true, false) => list.held.set(Some(list.lines.get_untracked())),
                (false, true) => list.held.set(None),
                _ => {}
            }
        });
        Effect::new(move |_| {
            if list.asked.get() && around.get().is_some() {
                request_animation_frame(|| crate::browser::scroll_into_view(".marked"));
            }
        });
        list
    }

    fn restart(self) {
        self.beginning.update_value(|beginning| *beginning += 1);
        self.lines.set(Vec::new());
        self.held.set(None);
        self.asked.set(false);
        self.next.set(None);
        self.newest.set_value(0);
        self.load();
    }

    fn load(self) {
        let around = self.around.get_untracked();
        // Both lists go on before a number, which is what the address names a line by.
        let first = || around.map(|at| (at + CONTEXT + 1).to_string());
        let cursor = self.next.get_untracked().or_else(first);
        let beginning = self.beginning.get_value();
        self.loading.set(true);
        self.failed.set(None);
        spawn_local(async move {
            let answer = (self.fetch)(self.store.api, cursor, PER_PAGE).await;
            // The reader may have gone elsewhere in the meantime.
            if self.beginning.try_get_value() != Some(beginning) {
                return;
            }
            match answer {
                Ok((older, next)) => {
                    self.extend(older, around.is_none());
                    self.next.set(next);
                    self.asked.set(true);
                }
                Err(error) => self.failed.set(Some(error)),
            }
            self.loading.set(false);
        });
    }

    fn extend(self, older: Vec<Entry>, roll_up: bool) {
        let newest = older.iter().map(Entry::rank).max().unwrap_or(0);
        self.newest.update_value(|known| *known = newest.max(*known));
        let add = |lines: &mut Vec<Entry>| {
            for entry in &older {
                if roll_up { roll_up_older(lines, entry.clone()) } else { lines.push(entry.clone()) }
            }
        };
        self.lines.update(add);
        self.held.update(|held| held.iter_mut().for_each(add));
    }

    /// The rank of the newest line, once the first lines are there and unless the list stands still.
    pub fn head(self) -> Option<u64> {
        let live = self.asked.get() && self.around.get().is_none();
        live.then(|| self.newest.get_value())
    }

    /// Takes new lines in, the oldest first.
    pub fn take(self, newer: Vec<Entry>) {
        let Some(last) = newer.iter().map(Entry::rank).max() else { return };
        self.newest.set_value(last);
        self.lines.update(|lines| {
            newer.into_iter().for_each(|entry| roll_up_newer(lines, entry));
            if lines.len() > MAX_LINES {
                lines.truncate(MAX_LINES);
                self.next.set(lines.last().map(|line| line.rank().to_string()));
            }
        });
    }

    /// Begins anew, where too much is missing to be fetched.
    pub fn skip(self) {
        self.restart();
    }

    /// The lines to show.
    pub fn shown(self) -> Vec<Entry> {
        self.held.get().unwrap_or_else(|| self.lines.get())
    }

    /// How many lines came in since the list was held.
    fn unseen(self) -> Option<u64> {
        let known = self.held.with(|held| held.as_ref()?.iter().map(|line| line.since).max());
        let known = known?;
        Some(self.lines.with(|lines| lines.iter().filter(|line| line.since > known).count()) as u64)
    }

    /// The button that holds and resumes the list.
    pub fn hold_button(self) -> AnyView {
        let label = text(move || match (self.held.with(Option::is_some), self.unseen()) {
            (false, _) => "Pause".to_owned(),
            (true, Some(unseen @ 1..)) => format!("Paused · Show {}", count(unseen, "new line")),
            (true, _) => "Paused · Resume".to_owned(),
        });
        let press = move || {
            if self.held.with_untracked(Option::is_some) {
                self.by_hand.set(false);
                self.held.set(None);
                crate::browser::scroll_to_top("main");
            } else {
                self.by_hand.set(true);
            }
        };
        let button = move || {
            view! {
                <button
                    type="button"
                    class="small hold"
                    data-testid="hold"
                    aria-pressed=text(move || self.held.with(Option::is_some).to_string())
                    aria-keyshortcuts="h"
                    title="Pauses the list while you read; new entries are counted"
                    on:click=click(press)
                >
                    {label}
                </button>
            }
            .into_any()
        };
        when(move || self.around.get().is_none(), button).into_any()
    }

    /// The list itself, or what stands in its place, and the button for what is older.
    pub fn body(self, is_empty: Signal<bool>, list: Part, nothing: Part) -> AnyView {
        let known = move || {
            let (list, nothing) = (Arc::clone(&list), Arc::clone(&nothing));
            either(move || !is_empty.get(), move || list(), move || nothing()).into_any()
        };
        let is_known = move || self.asked.get() || !self.lines.with(Vec::is_empty);
        let waiting = move || when(move || self.failed.with(Option::is_none), || skeleton(8)).into_any();
        let older = move || {
            view! {
                <button
                    type="button"
                    class="load"
                    data-testid="load-older"
                    disabled=class_if(move || self.loading.get())
                    on:click=click(move || self.load())
                >
                    {text(move || match self.failed.with(Option::is_some) {
                        true => "Try again".to_owned(),
                        false => "Load older".to_owned(),
                    })}
                </button>
            }
            .into_any()
        };
        let offered = move || self.next.with(Option::is_some) || self.failed.with(Option::is_some);
        view! {
            {either(is_known, known, waiting)}
            {live(move || self.failed.get().map(|error| refusal(&error)))}
            {when(offered, older)}
        }
        .into_any()
    }
}
