//! One lock in full: its holders, its queue, its wait-for graph, and its history.
//!
//! It is asked for again whenever a lock that the page follows has changed, so its countdown and its
//! queue are those of the cluster. Taking it away is a plan like everything else.
//!
//! Test ids: `lock-detail`, `lock-holder` and `lock-waiter` (with `data-owner`), `release-lock`,
//! `release-<token>`, `lock-wait` (with `data-deadlocked`), `deadlock`, `lock-record`, `lock-close`.

use super::{lease, part};
use crate::{
    address::use_address,
    api::ApiError,
    components::{
        icons::{node_link, sign},
        live::{class_if, click, live, text},
        plan_panel::use_plan_panel,
        text::{callout, card, line, moment, quiet, refusal, revision, skeleton},
    },
    format::{capitalised, duration, grouped},
    lock::{cycles_first, deadlock, kind, left_ms, meta},
    store::{Store, use_store},
    tone::Tone,
};
use gloo_timers::future::TimeoutFuture;
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{
    Timestamp,
    action::Action,
    id::Token,
    lock::{LockDetail, LockHolder, LockRecord, LockWaiter, Wait},
};

/// How often it is asked for, at the most.
const FETCH_EVERY_MS: u32 = 400;

/// The answer, and when it came.
type Known = RwSignal<Option<Result<(LockDetail, Timestamp), ApiError>>>;

pub fn detail(name: String) -> AnyView {
    let store = use_store();
    let known: Known = RwSignal::new(None);
    keep_current(store, name.clone(), known);
    // Without what only runs down, so that a countdown makes nothing anew.
    let shape = Memo::new(move |_| {
        known.with(|known| {
            known.as_ref().map(|answer| match answer {
                Ok((detail, _)) => {
                    let mut detail = detail.clone();
                    detail.lock.holders.iter_mut().for_each(|holder| holder.expires_in_ms = 0);
                    detail.lock.waiters.iter_mut().for_each(|waiter| waiter.gives_up_in_ms = 0);
                    detail.lock.delayed_for_ms = detail.lock.delayed_for_ms.map(|_| 0);
                    Ok(detail)
                }
                Err(error) => Err(error.clone()),
            })
        })
    });
    let title = name.clone();
    view! {
        <div class="lock-detail" data-testid="lock-detail">
            {live(move || match shape.get() {
                None => card("", "lock-title", "Lock", ().into_any(), skeleton(4)),
                Some(Ok(detail)) => untrack(|| laid_open(store, known, &detail)),
                Some(Err(error)) => gone(&title, &error),
            })}
        </div>
    }
    .into_any()
}

/// Asks again after each change of the locks that the page follows.
fn keep_current(store: Store, name: String, known: Known) {
    let changed = Memo::new(move |_| store.locks.with(|shown| shown.as_ref().map(|shown| shown.revision)));
    let resting = RwSignal::new(false);
    let asked = StoredValue::new(None);
    Effect::new(move |_| {
        let (now, resting_now) = (changed.get(), resting.get());
        if resting_now || asked.get_value() == Some(now) {
            return;
        }
        asked.set_value(Some(now));
        resting.set(true);
        let name = name.clone();
        spawn_local(async move {
            let answer = store.api.lock(&name).await;
            known.set(Some(answer.map(|detail| (detail, store.exact_now()))));
            TimeoutFuture::new(FETCH_EVERY_MS).await;
            resting.set(false);
        });
    });
}

fn close() -> AnyView {
    let address = use_address();
    view! {
        <button
            type="button"
            class="icon"
            aria-label="Close"
            data-testid="lock-close"
            on:click=click(move || address.set_parameter("name", None, false))
        >
            "✕"
        </button>
    }
    .into_any()
}

fn gone(name: &str, error: &ApiError) -> AnyView {
    view! {
        <section class="card">
            <div class="page-head"><h2 class="whole-name">{name.to_owned()}</h2> <span class="spacer"></span> {close()}</div>
            {refusal(error)}
        </section>
    }
    .into_any()
}

fn laid_open(store: Store, known: Known, detail: &LockDetail) -> AnyView {
    let panel = use_plan_panel();
    let lock = &detail.lock;
    let name = lock.name.clone();
    let release = {
        let name = name.clone();
        move || panel.propose(Action::ReleaseLock { name: name.clone(), token: None })
    };
    let holders: Vec<AnyView> = lock.holders.iter().map(|one| holder(store, known, &name, one)).collect();
    let waiters: Vec<AnyView> =
        lock.waiters.iter().enumerate().map(|(index, one)| waiter(store, known, index, one)).collect();
    let waits: Vec<AnyView> = cycles_first(&detail.waits).map(wait).collect();
    let history: Vec<AnyView> = detail.history.iter().rev().map(record).collect();
    let circle = deadlock(&detail.waits).map(|text| {
        view! { <div data-testid="deadlock">{callout(Tone::Bad, text.into_any())}</div> }.into_any()
    });
    let delay = lock.delayed_for_ms.map(|_| {
        let left = running_down(store, known, |detail| detail.lock.delayed_for_ms);
        line("Held back", text(move || left.get().map(duration).unwrap_or_default()))
    });
    let none = |text: &str| quiet(text.to_owned());
    let list = |class: &'static str, items: Vec<AnyView>, text: &str| {
        if items.is_empty() { none(text) } else { view! { <ol class=class>{items}</ol> }.into_any() }
    };
    let facts = view! {
        <dl>
            {line("Mode", capitalised(&kind(lock)))}
            {line("Fence", format!("no token below {} is valid", grouped(lock.fence.0)))}
            {line("Last change", revision(lock.version))}
            {delay}
        </dl>
    };
    view! {
        <div class="page-head">
            <h2 class="whole-name">{name}</h2>
            <span class="spacer"></span>
            <button
                type="button"
                data-testid="release-lock"
                title="Shows the plan of the release; changes nothing yet"
                disabled=class_if(move || !store.is_live())
                hidden=lock.holders.is_empty()
                on:click=click(release)
            >
                "Force-release…"
            </button>
            {close()}
        </div>
        {circle}
        <div class="pair">
            {part("holders-title", "Held by", holders.len(), "holder", view! { {list("lock-people", holders, "No holder.")} {facts} }.into_any())}
            {part("waiters-title", "Waiters", waiters.len(), "waiter", list("lock-people", waiters, "No waiters."))}
            {part("waits-title", "Wait-for graph", waits.len(), "wait", list("waits", waits, "No waits."))}
            {part("past-title", "History", history.len(), "record", list("lock-past", history, "Nothing is remembered."))}
        </div>
    }
    .into_any()
}

/// A time of the answer that runs down.
fn running_down(
    store: Store,
    known: Known,
    read: impl Fn(&LockDetail) -> Option<u64> + Send + Sync + 'static,
) -> Memo<Option<u64>> {
    Memo::new(move |_| {
        known.with(|known| match known {
            Some(Ok((detail, heard))) => Some(left_ms(read(detail)?, *heard, store.now.get())),
            _ => None,
        })
    })
}

fn meta_line(meta: String) -> Option<AnyView> {
    (!meta.is_empty()).then(|| view! { <p class="quiet">{meta}</p> }.into_any())
}

fn holder(store: Store, known: Known, name: &str, holder: &LockHolder) -> AnyView {
    let panel = use_plan_panel();
    let token = holder.token;
    let left = running_down(store, known, move |detail| {
        let holder = detail.lock.holders.iter().find(|holder| holder.token == token)?;
        Some(holder.expires_in_ms)
    });
    let action = Action::ReleaseLock { name: name.to_owned(), token: Some(token) };
    let depth = (holder.depth > 1).then(|| format!(", to be released {} times", holder.depth));
    view! {
        <li data-testid="lock-holder" data-owner=holder.owner.clone()>
            <div>
                <b class="whole-name">{holder.owner.clone()}</b>
                <p class="quiet">
                    "token " <code>{grouped(token.0)}</code> ", " {holder.mode.as_str()} ", since "
                    {moment(holder.since)} {depth}
                </p>
                {meta_line(meta(&holder.meta))}
            </div>
            {lease(Signal::stored(holder.ttl_ms.to_string()), move || left.get())}
            <button
                type="button"
                class="small"
                title="Shows the plan of the release; changes nothing yet"
                data-testid=format!("release-{token}")
                disabled=class_if(move || !store.is_live())
                on:click=click(move || panel.propose(action.clone()))
            >
                "Force-release…"
            </button>
        </li>
    }
    .into_any()
}

fn waiter(store: Store, known: Known, index: usize, waiter: &LockWaiter) -> AnyView {
    let left = running_down(store, known, move |detail| Some(detail.lock.waiters.get(index)?.gives_up_in_ms));
    let node = waiter.node.and_then(|id| Some(node_link(id, store.node(id)?)));
    let node = node.unwrap_or_else(|| quiet("its node is gone".to_owned()));
    view! {
        <li data-testid="lock-waiter" data-owner=waiter.owner.clone()>
            <span class="step-mark">{index + 1}</span>
            <div>
                <b class="whole-name">{waiter.owner.clone()}</b>
                <p class="quiet">
                    {waiter.mode.as_str()} ", since " {moment(waiter.since)} ", gives up in "
                    {text(move || left.get().map(duration).unwrap_or_default())}
                </p>
                {meta_line(meta(&waiter.meta))}
            </div>
            {node}
        </li>
    }
    .into_any()
}

/// An edge: who waits, for which lock, and who holds that.
fn wait(wait: &Wait) -> AnyView {
    let href = format!("/locks?name={}", crate::address::escaped(&wait.lock));
    let mark = wait.deadlocked.then(|| sign(Tone::Bad));
    view! {
        <li class=if wait.deadlocked { "bad" } else { "" } data-testid="lock-wait" data-deadlocked=wait.deadlocked.to_string()>
            {mark} <b>{wait.waiter.clone()}</b> <span class="edge" aria-hidden="true">"→"</span>
            <span class="visually-hidden">" waits for "</span> <a class="pill" href=href>{wait.lock.clone()}</a>
            <span class="edge" aria-hidden="true">"→"</span> <span class="visually-hidden">" held by "</span>
            <b>{wait.holder.clone()}</b>
        </li>
    }
    .into_any()
}

fn record(record: &LockRecord) -> AnyView {
    let token =
        record.token.map(|Token(token)| view! { ", token " <code>{grouped(token)}</code> }.into_any());
    view! {
        <li data-testid="lock-record">
            {moment(record.at)}
            <span>
                <b>{capitalised(&record.what.as_str().replace('_', " "))}</b> " " {record.owner.clone()} {token}
            </span>
            {revision(record.revision)}
        </li>
    }
    .into_any()
}
