//! Locks: holders, remaining lease times and waiters.
//!
//! There may be a hundred thousand, so the page follows one page of the list and nothing else: the node
//! streams the locks that are in sight, and of all others their number. Which page that is, stands in the
//! address, as does the lock that is laid open (`?name=jobs/nightly`).
//!
//! Test ids: `locks-held`, `locks-waiting`, `lock-row` (with `data-name`), `locks-next`, `locks-first`, and
//! those of [`detail`] and of [`crate::components::filters`].

mod detail;

use crate::{
    address::{escaped, use_address},
    components::{
        filters::{filters, segments, wanted_words},
        icons::{name_text, sign},
        live::{class_if, click, each, either, live, text, when},
        sorting::{Column, Order, column, number},
        text::{callout, card, empty, skeleton},
    },
    format::{count, duration, grouped},
    lock::{self, LockFilter, left_ms},
    store::{Store, use_store},
    tone::Tone,
};
use leptos::prelude::*;
use ringmaster_common::lock::{Lock, LockCounts};

const COLUMNS: [Column; 6] = [
    column("name", "Lock"),
    column("kind", "Mode"),
    column("holder", "Held by"),
    number("token", "Token", "The fencing token of the grant; later grants have higher ones"),
    number("lease", "Lease", "Remaining time unless it is renewed"),
    column("queue", "Waiters"),
];
const ORDER: Order = Order { columns: &COLUMNS, latest_first: false, of: "" };

pub fn locks_page() -> AnyView {
    let store = use_store();
    let address = use_address();
    let prefix = Memo::new(|_| wanted_words());
    let contended = Memo::new(move |_| address.parameter("lock").as_deref() == Some("contended"));
    let after = Memo::new(move |_| address.parameter("after"));
    Effect::new(move |_| {
        let wanted = LockFilter { prefix: prefix.get(), after: after.get(), contended: contended.get() };
        store.locks_wanted.set(Some(wanted));
    });
    // Another list begins at its own start.
    let filtered = StoredValue::new(None);
    Effect::new(move |_| {
        let by = Some((prefix.get(), contended.get()));
        if filtered.with_value(|before| before.is_some() && *before != by) {
            address.set_parameter("after", None, true);
        }
        filtered.set_value(by);
    });
    on_cleanup(move || store.locks_wanted.set(None));
    let names = Memo::new(move |_| {
        store.locks.with(|shown| {
            let items = shown.iter().flat_map(|shown| &shown.items);
            items.map(|lock| lock.name.clone()).collect::<Vec<_>>()
        })
    });
    let next = Memo::new(move |_| store.locks.with(|shown| shown.as_ref()?.next.clone()));
    let how_many = text(move || {
        let held = store.lock_counts.with(|counts| counts.held);
        format!("{} shown of {} held", grouped(names.with(Vec::len) as u64), grouped(held))
    });
    let table = move || {
        view! {
            <div class="table locks" role="table" aria-label="Locks">
                {ORDER.headings(false, false)}
                {each(names, |name| name.clone(), move |name| row(store, name))}
            </div>
            {when(move || names.with(Vec::is_empty), move || nothing(store))}
        }
        .into_any()
    };
    let turn = move || {
        view! {
            <button
                type="button"
                class="small"
                data-testid="locks-first"
                disabled=class_if(move || after.with(Option::is_none))
                on:click=click(move || address.set_parameter("after", None, false))
            >
                "First page"
            </button>
            <button
                type="button"
                class="small"
                data-testid="locks-next"
                disabled=class_if(move || next.with(Option::is_none))
                on:click=click(move || address.set_parameter("after", next.get_untracked().as_deref(), false))
            >
                {format!("Next {}", lock::PER_PAGE)}
            </button>
        }
        .into_any()
    };
    let chosen = Memo::new(move |_| address.parameter("name"));
    view! {
        <div class="page">
            <h1>"Locks"</h1>
            {counts(store)}
            {when(move || store.no_quorum_since.with(Option::is_some), without_quorum)}
            {live(move || chosen.get().map(detail::detail))}
            {filters(segments("lock", &["contended"]), "Names that begin with", how_many)}
            <section class="card" aria-label="Locks">
                {either(move || store.locks.with(Option::is_some), table, || skeleton(6))}
                <div class="buttons turn">{turn()}</div>
            </section>
        </div>
    }
    .into_any()
}

/// A lease ends by an entry of the log, and there are none.
fn without_quorum() -> AnyView {
    let text = "No quorum: no lock is granted, renewed or released, and a lease that has run out stays listed until a \
                leader is elected.";
    callout(Tone::Warning, text.into_any())
}

/// How many there are of everything.
fn counts(store: Store) -> AnyView {
    let metric = |id: &'static str, label: &'static str, note: &'static str, read: fn(&LockCounts) -> u64| {
        view! {
            <div class="metric">
                <div class="metric-label">{label}</div>
                <div class="metric-value" data-testid=id>{text(move || grouped(store.lock_counts.with(read)))}</div>
                <div class="metric-note">{note}</div>
            </div>
        }
        .into_any()
    };
    view! {
        <section class="card hero tally" aria-label="How many there are">
            {metric("locks-held", "Held", "locks in use", |counts| counts.held)}
            {metric("locks-waiting", "Waiting", "in all queues", |counts| counts.waiting)}
            {metric("locks-granted", "Granted", "since the cluster began", |counts| counts.granted)}
            {metric("locks-expired", "Expired", "without a release", |counts| counts.expired)}
            {metric("locks-forced", "Force-released", "by operators", |counts| counts.forced)}
        </section>
    }
    .into_any()
}

fn nothing(store: Store) -> AnyView {
    if untrack(|| store.lock_counts.with(|counts| counts.held + counts.waiting)) > 0 {
        let why = "Other locks are in use. Clear the filter, or go to the first page.";
        return empty("No lock matches", view! { <p>{why}</p> }.into_any());
    }
    let why = "A lock lets one process at a time do its work. Its holder has a lease, which expires unless it is \
               renewed, and a fencing token, which a resource can check.";
    let example = "ringmaster lock jobs/nightly --ttl 30s -- ./nightly.sh";
    empty("No locks are held", view! { <p>{why}</p> <code>{example}</code> }.into_any())
}

fn row(store: Store, name: String) -> AnyView {
    let address = use_address();
    let lock = {
        let name = name.clone();
        Memo::new(move |_| {
            store.locks.with(|shown| shown.as_ref()?.items.iter().find(|lock| lock.name == name).cloned())
        })
    };
    let says = move |read: fn(&Lock) -> String| {
        text(move || lock.with(|lock| lock.as_ref().map(read).unwrap_or_default()))
    };
    let token = says(|lock| lock.holders.first().map(|holder| grouped(holder.token.0)).unwrap_or_default());
    let ttl = says(|lock| lock.holders.first().map(|holder| holder.ttl_ms.to_string()).unwrap_or_default());
    let left = move || {
        let then = lock.with(|lock| Some(lock.as_ref()?.holders.first()?.expires_in_ms))?;
        Some(left_ms(then, store.locks.with(|shown| Some(shown.as_ref()?.heard))?, store.now.get()))
    };
    let is_open = {
        let name = name.clone();
        Memo::new(move |_| address.parameter("name").as_deref() == Some(&name))
    };
    let (holder, queue) = (says(lock::holders), says(lock::waiters));
    let deadlocked = move || lock.with(|lock| lock.as_ref().is_some_and(|lock| lock.deadlocked));
    let mark = || {
        let why = "Deadlock: the owners waiting for this lock wait for each other";
        view! { <span class="labelled bad" title=why>{sign(Tone::Bad)} <span>"deadlock"</span></span> }
            .into_any()
    };
    let href = format!("/locks?name={}", escaped(&name));
    let open = {
        let name = name.clone();
        move || {
            address.set_parameter("name", Some(&name), false);
            crate::browser::scroll_to_top("main");
        }
    };
    view! {
        <div
            class=text(move || if is_open.get() { "row marked" } else { "row" }.to_owned())
            role="row"
            data-testid="lock-row"
            data-name=name.clone()
        >
            <span role="cell" class="cell-name">
                <a href=href on:click=move |event: leptos::ev::MouseEvent| {
                    if event.button() == 0 && !(event.ctrl_key() || event.meta_key() || event.shift_key()) {
                        event.prevent_default();
                        open();
                    }
                }>{name_text(&name)}</a>
            </span>
            <span role="cell" class="cell-kind clip">{says(lock::kind)}</span>
            <span role="cell" class="cell-holder clip" title=holder>{holder}</span>
            <span role="cell" class="cell-token number">{token}</span>
            <span role="cell" class="cell-lease">{lease(ttl, left)}</span>
            <span role="cell" class="cell-queue">
                {when(deadlocked, mark)} <span class="clip" title=queue>{queue}</span>
            </span>
        </div>
    }
    .into_any()
}

/// The remaining time of a lease, as a bar with its number.
fn lease(ttl_ms: Signal<String>, left: impl Fn() -> Option<u64> + Send + Sync + 'static) -> AnyView {
    let left = Memo::new(move |_| left());
    let number = text(move || left.get().map(duration).unwrap_or_default());
    let value = text(move || left.get().unwrap_or(0).to_string());
    let class = text(move || if left.get().is_some() { "lease" } else { "lease none" }.to_owned());
    view! {
        <span class=class>
            <progress max=ttl_ms value=value aria-label="Remaining time of the lease"></progress>
            <span class="number">{number}</span>
        </span>
    }
    .into_any()
}

fn counted(number: usize, noun: &str) -> AnyView {
    crate::components::text::quiet(count(number as u64, noun))
}

/// A card of the lock that is laid open.
fn part(id: &'static str, title: &'static str, number: usize, noun: &str, body: AnyView) -> AnyView {
    card("", id, title, counted(number, noun), body)
}
