//! The audit: requests of operators and their outcomes, refusals included.
//!
//! Entries are not streamed, only their number is: as it grows, the page fetches what is new. One
//! entry can be linked to (`?entry=17`), and then says all that is known of it.
//!
//! Test ids: `audit-row` (with `data-number` and `data-outcome`), `audit-entry`, and those of
//! [`crate::components::filters`] and [`crate::components::running_list`].

use crate::{
    address::use_address,
    components::{
        feed::{each_line, roll_up},
        filters::{filters, has_words, segments, wanted_words},
        icons::{labelled, sign},
        live::{class_if, click, live, text},
        running_list::RunningList,
        text::{card, code, copyable, empty, line, linkify, moment, quiet, revision},
    },
    format::{capitalised, count, grouped},
    store::use_store,
    timeline::{Entry, audit_line},
    tone::Tone,
};
use gloo_timers::future::TimeoutFuture;
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{
    event::AuditEntry,
    id::{OperationId, Revision},
};
use std::sync::Arc;

/// New entries are fetched this often at the most.
const FETCH_EVERY_MS: u32 = 1_000;
/// How many are fetched at once. If there are more, the list begins anew.
const MAX_FETCHED: u64 = 200;

const OUTCOMES: [&str; 3] = ["done", "operations", "refused"];

fn outcome(entry: &AuditEntry) -> &'static str {
    match (&entry.refused, entry.operation) {
        (Some(_), _) => "refused",
        (None, Some(_)) => "operations",
        (None, None) => "done",
    }
}

pub fn audit_page() -> AnyView {
    let store = use_store();
    let address = use_address();
    let around = Memo::new(move |_| address.parameter("entry").and_then(|number| number.parse().ok()));
    let list = RunningList::start(store, around, |api, before, limit| {
        Box::pin(async move {
            let page = api.audit(before, limit).await?;
            Ok((page.items.into_iter().map(audit_line).collect(), page.next))
        })
    });
    follow_head(list);
    let wanted = Memo::new(move |_| address.parameter("outcome"));
    let filter = Memo::new(|_| wanted_words());
    let all = Memo::new(move |_| list.shown());
    let shown = Memo::new(move |_| {
        let (wanted, filter) = (wanted.get(), filter.get());
        let passes = |entry: &&Entry| {
            let audit = entry.audit.as_ref();
            wanted.as_deref().is_none_or(|wanted| audit.is_some_and(|audit| outcome(audit) == wanted))
                && has_words(&format!("{} {}", entry.sentence, entry.actor), &filter)
        };
        all.with(|all| all.iter().filter(passes).cloned().collect::<Vec<_>>())
    });
    let how_many = text(move || {
        let of_all = count(store.audit_count.get(), "entry");
        let loaded = all.with(|all| all.iter().map(|line| u64::from(line.count)).sum());
        format!(
            "{} shown; {} of {of_all} loaded",
            count(shown.with(Vec::len) as u64, "line"),
            grouped(loaded)
        )
    });
    let nothing = move || {
        if all.with_untracked(Vec::is_empty) {
            let why = "Each request that changes the cluster is recorded here with its actor and outcome: applied \
                       plans, aborted or kept operations, written settings and configuration.";
            return empty("No requests yet", view! { <p>{why}</p> }.into_any());
        }
        let why = "Filters apply to the loaded entries. Load older ones, or remove a filter.";
        empty("No entry passes the filters", view! { <p>{why}</p> }.into_any())
    };
    let rows = move || {
        live(move || {
            let marked = around.get();
            let rows = each_line(shown, Box::new(move |line| audit_row(line, marked)));
            view! { <ul class="feed audit">{rows}</ul> }
        })
        .into_any()
    };
    let entry = live(move || {
        let number = around.get()?;
        let found = all.with(|all| {
            all.iter().filter_map(|line| line.audit.clone()).find(|entry| entry.number == number)
        });
        Some(found.map_or_else(|| ().into_any(), |entry| details(&entry)))
    });
    let at = live(move || {
        around.get().map(|number| {
            view! {
                <span class="pill">{format!("around entry {}", grouped(number))}</span>
                <button type="button" class="small" on:click=click(move || address.set_parameter("entry", None, false))>
                    "Back to now"
                </button>
            }
        })
    });
    view! {
        <div class="page">
            <div class="page-head">
                <h1>"Audit"</h1>
                {at}
                <span class="spacer"></span>
                {list.hold_button()}
            </div>
            {entry}
            {filters(segments("outcome", &OUTCOMES), "Actor, action, code or request id", how_many)}
            <section class="card" aria-label="Audit" aria-busy=text(move || list.loading.get().to_string())>
                {list.body(class_if(move || shown.with(Vec::is_empty)), Arc::new(rows), Arc::new(nothing))}
            </section>
        </div>
    }
    .into_any()
}

/// Fetches what is new, while there is anything.
fn follow_head(list: RunningList) {
    let store = use_store();
    let fetching = RwSignal::new(false);
    Effect::new(move |_| {
        let (count, busy) = (store.audit_count.get(), fetching.get());
        let Some(newest) = list.head() else { return };
        if busy || count <= newest {
            return;
        }
        if count - newest > MAX_FETCHED {
            return untrack(|| list.skip());
        }
        fetching.set(true);
        spawn_local(async move {
            let missing = u32::try_from(count - newest).unwrap_or(1);
            // Where it fails, the next entry is a new occasion.
            if let Ok(page) = store.api.audit(None, missing).await {
                let newer = page.items.into_iter().rev().filter(|entry| entry.number > newest);
                list.take(newer.map(audit_line).collect());
            }
            TimeoutFuture::new(FETCH_EVERY_MS).await;
            fetching.set(false);
        });
    });
}

fn audit_row(line: Memo<Entry>, marked: Option<u64>) -> AnyView {
    let Some(first) = line.with_untracked(|line| line.audit.clone()) else { return ().into_any() };
    let marked = marked == Some(first.number);
    let number = text(move || line.with(|line| line.rank().to_string()));
    let href = text(move || format!("/audit?entry={}", number.get()));
    let (tone, what) = result(&first);
    let said = first.refused.as_ref().map(|refusal| refusal.detail.clone());
    view! {
        <li
            class=if marked { "event audit marked" } else { "event audit" }
            data-testid="audit-row"
            data-number=number
            data-outcome=outcome(&first)
            aria-current=marked.then_some("true")
        >
            {live(move || moment(line.with(|line| line.at)))} {sign(tone)}
            <span class="sentence" title=first.request.clone()>
                {roll_up(line)} <a class="plain" href=href>{capitalised(&first.request)}</a>
            </span>
            <span class="result clip" title=said.clone()>{what}</span>
            <span class="actor clip" title=first.actor.clone()>{first.actor.clone()}</span>
            {live(move || revision(Revision(line.with(|line| line.revision))))}
        </li>
    }
    .into_any()
}

/// The outcome.
fn result(entry: &AuditEntry) -> (Tone, AnyView) {
    let operation = |id: OperationId| linkify(&format!("operation {id}"));
    match (&entry.refused, entry.operation) {
        (Some(refusal), _) => (
            Tone::Warning,
            view! { <b>{refusal.code.as_str()}</b> ": " {linkify(&refusal.detail)} }.into_any(),
        ),
        (None, Some(id)) => (Tone::Good, operation(id)),
        (None, None) => (Tone::Good, quiet("done".to_owned())),
    }
}

/// All that is known of one entry.
fn details(entry: &AuditEntry) -> AnyView {
    let done = if entry.refused.is_some() { "refused" } else { "done" };
    let (tone, _) = result(entry);
    let why = entry.refused.as_ref().map(|refusal| {
        view! { {line("Code", code(refusal.code.as_str()))} {line("Why", linkify(&capitalised(&refusal.detail)))} }
    });
    let request_id = Signal::stored(entry.request_id.clone());
    let body = view! {
        <dl>
            {line("Request", linkify(&capitalised(&entry.request)))}
            {line("By", entry.actor.clone())}
            {line("Outcome", labelled(tone, done))}
            {why}
            {entry.operation.map(|id| line("Operation", linkify(&format!("operation {id}"))))}
            {line("When", moment(entry.at))}
            {line("Revision", revision(entry.revision))}
            {line("Request id", copyable(request_id, "Request"))}
        </dl>
    };
    let number = quiet(format!("entry {}", grouped(entry.number)));
    view! { <div data-testid="audit-entry">{card("", "entry-title", "Audit entry", number, body.into_any())}</div> }
        .into_any()
}
