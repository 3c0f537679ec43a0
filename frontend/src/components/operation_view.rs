//! An operation as it runs: its steps, how it stands, and what can be done about it.
//!
//! Test ids: `operation-status` (with `data-status`), `operation-outcome`, `step-<name>` (with
//! `data-status`), `keep`, `revert`, `abort`, `undo`.

use crate::{
    components::{
        desk::use_desk,
        marks::{labelled, sign},
        text::{moment, prose},
    },
    format,
    operation::{StepLine, is_abortable, is_undoable, outcome, status_tone, status_word, took_ms},
    store::use_store,
};
use leptos::prelude::*;
use ringmaster_common::operation::{Operation, OperationStatus, StepStatus};

/// The steps, planned or under way.
#[component]
pub fn Steps(#[prop(into)] lines: Signal<Vec<StepLine>>) -> impl IntoView {
    view! {
        <ol class="steps">
            {move || lines.get().into_iter().enumerate().map(|(index, line)| step(index, line)).collect_view()}
        </ol>
    }
}

fn step(index: usize, line: StepLine) -> impl IntoView {
    let status = line.status.as_str();
    let mark = match line.status {
        StepStatus::Succeeded => "✓".to_owned(),
        StepStatus::Failed => "✕".to_owned(),
        StepStatus::Skipped => "–".to_owned(),
        StepStatus::Pending | StepStatus::Running => (index + 1).to_string(),
    };
    view! {
        <li class=format!("step {status}") data-testid=format!("step-{}", line.name) data-status=status>
            <span class="step-mark" aria-hidden="true">{mark}</span>
            <span class="step-title">
                {line.title} <span class="visually-hidden">{format!(": {status}")}</span>
                {line.detail.map(|detail| view! { <span class="step-detail">{detail}</span> })}
            </span>
            <span class="step-time">{line.time}</span>
        </li>
    }
}

pub fn status_label(status: OperationStatus) -> impl IntoView {
    view! {
        <span data-testid="operation-status" data-status=status.as_str()>
            {labelled(status_tone(status), status_word(status))}
        </span>
    }
}

/// How it stands, in a sentence that is read out when it changes.
#[component]
pub fn Outcome(#[prop(into)] operation: Signal<Option<Operation>>) -> impl IntoView {
    let store = use_store();
    let tone =
        move || operation.with(|operation| operation.as_ref().map(|operation| status_tone(operation.status)));
    let class = move || format!("callout outcome {}", tone().map_or("", crate::situation::Tone::class));
    let status =
        Memo::new(move |_| operation.with(|operation| operation.as_ref().map(|operation| operation.status)));
    let sentence = Memo::new(move |_| {
        let now = store.now.get();
        operation.with(|operation| operation.as_ref().map(|operation| outcome(operation, now)))
    });
    view! {
        <div class=class role="status">
            {move || status.get().map(|status| sign(status_tone(status)))}
            <div>
                {move || status.get().map(status_label)}
                <p data-testid="operation-outcome">{move || sentence.get().map(|sentence| prose(&sentence).into_any())}</p>
            </div>
        </div>
    }
}

/// Keep, revert, abort and undo: whichever make sense now.
#[component]
pub fn OperationButtons(#[prop(into)] operation: Signal<Option<Operation>>) -> impl IntoView {
    let store = use_store();
    let desk = use_desk();
    // Only what decides about the buttons, so that a countdown does not make them anew.
    let state = Memo::new(move |_| {
        operation.with(|operation| {
            let operation = operation.as_ref()?;
            Some((operation.id, operation.status, is_abortable(operation), is_undoable(operation)))
        })
    });
    let disabled = move || desk.busy.get() || !store.is_live();
    move || {
        let (id, status, abortable, undoable) = state.get()?;
        Some(match status {
            OperationStatus::AwaitingKeep => view! {
                <button type="button" data-testid="revert" disabled=disabled on:click=move |_| desk.abort(id)>
                    "Revert now"
                </button>
                <button type="button" class="primary" data-testid="keep" disabled=disabled on:click=move |_| desk.keep(id)>
                    "Keep it"
                </button>
            }
            .into_any(),
            OperationStatus::Running => {
                let why = if abortable {
                    "Give it up; nothing has been changed yet"
                } else {
                    "It is past the point from which there is a way back; wait for its outcome"
                };
                view! {
                    <button
                        type="button"
                        data-testid="abort"
                        title=why
                        disabled=move || disabled() || !abortable
                        on:click=move |_| desk.abort(id)
                    >
                        "Abort"
                    </button>
                }
                .into_any()
            }
            _ if undoable => view! {
                <button
                    type="button"
                    data-testid="undo"
                    title="See what taking it back would do; nothing happens yet"
                    disabled=disabled
                    on:click=move |_| desk.undo(id)
                >
                    "Undo"
                </button>
            }
            .into_any(),
            _ => ().into_any(),
        })
    }
}

/// One line of a list of operations.
#[component]
pub fn OperationRow(operation: Operation) -> impl IntoView {
    let id = operation.id;
    let undone = operation.undone_by.map(|by| format!(", undone by operation {by}"));
    view! {
        <div class="row" role="row" data-testid=format!("operation-row-{id}")>
            <span role="cell" class="cell-id number">
                <a href=format!("/operations/{id}")>{id.0}</a>
            </span>
            <span role="cell" class="cell-action-text">
                <a class="plain clip" href=format!("/operations/{id}") title=operation.summary.clone()>
                    {format::capitalised(&operation.action.to_string())}
                    <span class="quiet">{undone}</span>
                </a>
            </span>
            <span role="cell" class="cell-status">{status_label(operation.status)}</span>
            <span role="cell" class="cell-took number">
                {took_ms(&operation).map_or_else(|| format::NONE.to_owned(), format::duration)}
            </span>
            <span role="cell" class="cell-when">{moment(operation.started_at)}</span>
        </div>
    }
}

/// The headings over [`OperationRow`]s.
pub fn operation_head() -> impl IntoView {
    view! {
        <div class="row head" role="row">
            <span role="columnheader" class="cell-id number">"Id"</span>
            <span role="columnheader" class="cell-action-text">"What"</span>
            <span role="columnheader" class="cell-status">"Status"</span>
            <span role="columnheader" class="cell-took number">"Took"</span>
            <span role="columnheader" class="cell-when">"Started"</span>
        </div>
    }
}
