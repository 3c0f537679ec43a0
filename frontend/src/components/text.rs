//! Pieces of text with a meaning: sentences with links in them, times, revisions, figures with their
//! unit, text to copy, errors.

use crate::{
    api::ApiError,
    browser,
    components::marks::sign,
    format::{self, Quantity},
    prose::{Part, parts},
    situation::Tone,
    store::use_store,
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{Timestamp, id::Revision};

/// A sentence in which nodes, operations and plans are links.
pub fn prose(sentence: &str) -> impl IntoView + use<> {
    parts(sentence)
        .into_iter()
        .map(|part| match part {
            Part::Text(text) => text.into_any(),
            Part::Node { text, id } => {
                view! { <a class="named" href=format!("/nodes/{id}")>{text}</a> }.into_any()
            }
            Part::Operation { text, id } => {
                view! { <a class="named" href=format!("/operations/{id}")>{text}</a> }.into_any()
            }
            Part::Plan { text, id } => {
                view! { <a class="named" href=format!("?plan={id}")>{text}</a> }.into_any()
            }
        })
        .collect_view()
}

/// A number with its unit small beside it.
pub fn quantity(quantity: Option<Quantity>) -> AnyView {
    match quantity {
        Some(Quantity { number, unit }) => view! { {number}" "<small>{unit}</small> }.into_any(),
        None => view! { <span class="none">{format::NONE}</span> }.into_any(),
    }
}

/// A time of day, with the full date on hover.
pub fn moment(at: Timestamp) -> impl IntoView {
    let store = use_store();
    let offset = browser::offset_minutes(at);
    view! {
        <time datetime=at.to_string() title=format::date_and_time(at, offset)>
            {format::moment(at, store.now.get_untracked(), offset)}
        </time>
    }
}

/// A revision, leading to the timeline there.
pub fn revision(revision: Revision) -> impl IntoView {
    view! {
        <a class="revision" href=format!("/events?revision={revision}") title="Open the timeline at this revision">
            {format::grouped(revision.0)}
        </a>
    }
}

/// Text with a button that copies it.
#[component]
pub fn Copyable(#[prop(into)] text: Signal<String>, label: &'static str) -> impl IntoView {
    let shown = NodeRef::<leptos::html::Code>::new();
    let said = RwSignal::new("Copy");
    let copy = move |_| {
        spawn_local(async move {
            let element = shown.get_untracked();
            let copied = browser::copy(&text.get_untracked(), element.as_deref().map(AsRef::as_ref)).await;
            said.try_set(if copied { "Copied" } else { "Press Ctrl C" });
            gloo_timers::future::TimeoutFuture::new(2_000).await;
            said.try_set("Copy");
        });
    };
    view! {
        <div class="copyable">
            <code node_ref=shown>{text}</code>
            <button type="button" class="small" aria-label=format!("Copy {label}") on:click=copy>
                {said}
            </button>
        </div>
    }
}

/// A refusal, with its code, so that it can be looked up and reported.
pub fn refusal(error: &ApiError) -> impl IntoView + use<> {
    let code = match error {
        ApiError::Refused(problem) => Some(problem.code.clone()),
        _ => None,
    };
    let request = match error {
        ApiError::Refused(problem) => problem.request_id.clone(),
        _ => None,
    };
    view! {
        <div class="callout bad" role="alert" data-testid="refusal">
            {sign(Tone::Bad)}
            <div>
                <strong>{error.title()}</strong>
                <p>{prose(&format::capitalised(&error.to_string()))}</p>
                {code
                    .map(|code| {
                        view! {
                            <p class="quiet">
                                "code " <code>{code}</code>
                                {request.map(|id| view! { ", request " <code>{id}</code> })}
                            </p>
                        }
                    })}
            </div>
        </div>
    }
}

/// What a page shows instead of an empty box: what it is for, and how the first one is made.
#[component]
pub fn Empty(title: &'static str, children: Children) -> impl IntoView {
    view! {
        <div class="empty">
            <strong>{title}</strong>
            {children()}
        </div>
    }
}

/// Grey lines where rows will be.
pub fn skeleton(rows: usize) -> impl IntoView {
    view! {
        <div class="skeleton" aria-hidden="true">
            {(0..rows).map(|_| view! { <span></span> }).collect_view()}
        </div>
    }
}
