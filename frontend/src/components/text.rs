//! Pieces of text with a meaning: sentences with links in them, times, revisions, metrics with their
//! unit, text to copy, errors.

use crate::{
    api::ApiError,
    browser,
    components::{icons::sign, live::click},
    format::{self, Quantity},
    linkify::{Part, parts},
    store::use_store,
    tone::Tone,
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{Timestamp, id::Revision};

/// A sentence in which nodes, operations, plans and entries of the audit are links.
pub fn linkify(sentence: &str) -> AnyView {
    let part = |part| {
        let (text, href) = match part {
            Part::Text(text) => return text.into_any(),
            Part::Node { text, id } => (text, format!("/nodes/{id}")),
            Part::Operation { text, id } => (text, format!("/operations/{id}")),
            Part::Plan { text, id } => (text, format!("?plan={id}")),
            Part::AuditEntry { text, id } => (text, format!("/audit?entry={id}")),
        };
        view! { <a class="named" href=href>{text}</a> }.into_any()
    };
    parts(sentence).into_iter().map(part).collect_view().into_any()
}

/// A number with its unit small beside it.
pub fn quantity(quantity: Option<Quantity>) -> AnyView {
    match quantity {
        Some(Quantity { number, unit }) => view! { {number}" "<small>{unit}</small> }.into_any(),
        None => view! { <span class="none">{format::NONE}</span> }.into_any(),
    }
}

pub fn quiet(text: String) -> AnyView {
    view! { <span class="quiet">{text}</span> }.into_any()
}

pub fn code(text: &str) -> AnyView {
    view! { <code>{text.to_owned()}</code> }.into_any()
}

/// A time of day, with the full date on hover.
pub fn moment(at: Timestamp) -> AnyView {
    let offset = browser::offset_minutes(at);
    view! {
        <time
            datetime=format::machine_readable(at)
            title=format!("{} local time, {}", format::date_and_time(at, offset), format::machine_readable(at))
        >
            {format::moment(at, use_store().now.get_untracked(), offset)}
        </time>
    }
    .into_any()
}

/// A revision, leading to the timeline there.
pub fn revision(revision: Revision) -> AnyView {
    view! {
        <a class="revision" href=format!("/events?revision={revision}") title="Open the timeline at this revision">
            {format::grouped(revision.0)}
        </a>
    }
    .into_any()
}

/// Text with a button that copies it.
pub fn copyable(text: Signal<String>, label: &'static str) -> AnyView {
    let said = RwSignal::new("Copy".to_owned());
    let id = label.to_ascii_lowercase();
    let shown = format!("[data-testid={id}]");
    let copy = move || {
        let shown = shown.clone();
        spawn_local(async move {
            let copied = browser::copy(&text.get_untracked(), &shown).await;
            said.set(if copied { "Copied" } else { "Press Ctrl C" }.to_owned());
            gloo_timers::future::TimeoutFuture::new(2_000).await;
            said.set("Copy".to_owned());
        });
    };
    view! {
        <div class="copyable">
            <code tabindex="0" data-testid=id>{text}</code>
            <button type="button" class="small" aria-label=format!("Copy {label}") on:click=click(copy)>
                {said}
            </button>
        </div>
    }
    .into_any()
}

/// A refusal, with its code, so that it can be looked up and reported.
pub fn refusal(error: &ApiError) -> AnyView {
    let (known_as, request) = match error {
        ApiError::Refused(problem) => (Some(problem.code.clone()), problem.request_id.clone()),
        _ => (None, None),
    };
    let known_as = known_as.map(|known_as| {
        let request = request.map(|id| view! { ", request " {code(&id)} }.into_any());
        view! { <p class="quiet">"code " {code(&known_as)} {request}</p> }.into_any()
    });
    view! {
        <div class="callout bad" role="alert" data-testid="refusal">
            {sign(Tone::Bad)}
            <div>
                <strong>{error.title()}</strong>
                <p>{linkify(&format::capitalised(&error.to_string()))}</p>
                {known_as}
            </div>
        </div>
    }
    .into_any()
}

pub fn callout(tone: Tone, contents: AnyView) -> AnyView {
    view! { <div class=format!("callout {}", tone.class())>{sign(tone)} <div>{contents}</div></div> }
        .into_any()
}

/// A card with a heading, and beside it where there is more.
pub fn card(
    class: &'static str,
    id: &'static str,
    title: &'static str,
    more: AnyView,
    body: AnyView,
) -> AnyView {
    view! {
        <section class=format!("card {class}") aria-labelledby=id>
            <h2 id=id>{title} {more}</h2>
            {body}
        </section>
    }
    .into_any()
}

/// The empty state of a page: its purpose, and how the first item is made.
pub fn empty(title: &'static str, contents: AnyView) -> AnyView {
    view! {
        <div class="empty">
            <strong>{title}</strong>
            {contents}
        </div>
    }
    .into_any()
}

/// A line of a list of facts.
pub fn line(label: &'static str, value: impl IntoView + 'static) -> AnyView {
    line_of(label, value.into_any())
}

fn line_of(label: &'static str, value: AnyView) -> AnyView {
    view! { <div><dt>{label}</dt><dd>{value}</dd></div> }.into_any()
}

/// Grey lines where rows will be.
pub fn skeleton(rows: usize) -> AnyView {
    let lines = (0..rows).map(|_| view! { <span></span> }.into_any()).collect_view();
    view! { <div class="skeleton" aria-hidden="true">{lines}</div> }.into_any()
}
