//! An operation as it runs: its steps, how it stands, and what can be done about it.
//!
//! Test ids: `operation-status` (with `data-status`), `operation-outcome`, `step-<name>` (with
//! `data-status`), `keep`, `revert`, `abort`, `undo`, `operation-row-<id>`.

use crate::{
    components::{
        icons::{labelled, sign},
        live::{class_if, click, each, live, text},
        plan_panel::use_plan_panel,
        sorting::{Column, Order, SortKey, column, number},
        text::{linkify, moment, quiet},
    },
    format,
    operation::{StepLine, is_abortable, is_undoable, outcome, status_tone, status_word, took_ms},
    store::use_store,
    tone::Tone,
};
use leptos::prelude::*;
use ringmaster_common::operation::{Operation, OperationStatus, StepStatus};

/// The operation that a part of a page is about, once it is known.
pub type CurrentOperation = Memo<Option<Operation>>;

/// The steps, planned or under way.
pub fn steps(lines: &[StepLine]) -> AnyView {
    let lines = lines.iter().enumerate().map(|(index, line)| step(index, line));
    view! { <ol class="steps">{lines.collect_view()}</ol> }.into_any()
}

/// The steps of an operation, as they are done.
pub fn live_steps(operation: CurrentOperation) -> AnyView {
    let lines = Memo::new(move |_| {
        operation.with(|operation| {
            let steps = operation.iter().flat_map(|operation| &operation.steps);
            steps.map(StepLine::from).collect::<Vec<_>>()
        })
    });
    live(move || lines.with(|lines| steps(lines))).into_any()
}

fn step(index: usize, line: &StepLine) -> AnyView {
    let status = line.status.as_str();
    let mark = match line.status {
        StepStatus::Succeeded => "✓".to_owned(),
        StepStatus::Failed => "✕".to_owned(),
        StepStatus::Skipped => "–".to_owned(),
        StepStatus::Pending | StepStatus::Running => (index + 1).to_string(),
    };
    let detail =
        line.detail.clone().map(|detail| view! { <span class="step-detail">{detail}</span> }.into_any());
    view! {
        <li class=format!("step {status}") data-testid=format!("step-{}", line.name) data-status=status>
            <span class="step-mark" aria-hidden="true">{mark}</span>
            <span class="step-title">
                {line.title.clone()} <span class="visually-hidden">{format!(": {status}")}</span> {detail}
            </span>
            <span class="step-time">{line.time.clone()}</span>
        </li>
    }
    .into_any()
}

fn status_label(status: OperationStatus) -> AnyView {
    view! {
        <span data-testid="operation-status" data-status=status.as_str()>
            {labelled(status_tone(status), status_word(status))}
        </span>
    }
    .into_any()
}

/// How it stands, in a sentence that is read out when it changes.
pub fn live_outcome(operation: CurrentOperation) -> AnyView {
    let store = use_store();
    let status =
        Memo::new(move |_| operation.with(|operation| operation.as_ref().map(|operation| operation.status)));
    let sentence = Memo::new(move |_| {
        let now = store.now.get();
        operation
            .with(|operation| operation.as_ref().map(|operation| outcome(operation, now)).unwrap_or_default())
    });
    let class =
        text(move || format!("callout outcome {}", status.get().map(status_tone).map_or("", Tone::class)));
    view! {
        <div class=class role="status">
            {live(move || status.get().map(|status| sign(status_tone(status))))}
            <div>
                <strong
                    data-testid="operation-status"
                    data-status=text(move || status.get().map_or("", OperationStatus::as_str).to_owned())
                >
                    {text(move || status.get().map(status_word).map(format::capitalised).unwrap_or_default())}
                </strong>
                <p data-testid="operation-outcome">{live(move || linkify(&sentence.get()))}</p>
            </div>
        </div>
    }
    .into_any()
}

/// Keep, revert, abort and undo: whichever make sense now.
pub fn operation_buttons(operation: CurrentOperation) -> AnyView {
    let store = use_store();
    let panel = use_plan_panel();
    // Only what decides about the buttons, so that a countdown does not make them anew.
    let state = Memo::new(move |_| {
        operation.with(|operation| {
            let operation = operation.as_ref()?;
            Some((operation.id, operation.status, is_abortable(operation), is_undoable(operation)))
        })
    });
    let idle = class_if(move || panel.busy.get() || !store.is_live());
    live(move || {
        let (id, status, abortable, undoable) = state.get()?;
        Some(match status {
            OperationStatus::AwaitingKeep => view! {
                <button type="button" data-testid="revert" disabled=idle on:click=click(move || panel.abort(id))>
                    "Revert now"
                </button>
                <button type="button" class="primary" data-testid="keep" disabled=idle on:click=click(move || panel.keep(id))>
                    "Confirm"
                </button>
            }
            .into_any(),
            OperationStatus::Running => {
                let why = if abortable {
                    "Nothing has been changed yet"
                } else {
                    "It can no longer be aborted; wait for its outcome"
                };
                let disabled = class_if(move || idle.get() || !abortable);
                view! {
                    <button type="button" data-testid="abort" title=why disabled=disabled on:click=click(move || panel.abort(id))>
                        "Abort"
                    </button>
                }
                .into_any()
            }
            _ if undoable => view! {
                <button
                    type="button"
                    data-testid="undo"
                    title="Shows the plan of the undo; changes nothing yet"
                    disabled=idle
                    on:click=click(move || panel.undo(id))
                >
                    "Undo"
                </button>
            }
            .into_any(),
            _ => ().into_any(),
        })
    })
    .into_any()
}

const COLUMNS: [Column; 5] = [
    Column { name: "id", label: "Id", title: "", is_number: true },
    column("what", "Action"),
    column("status", "Status"),
    number("took", "Took", "From its start to its end"),
    column("when", "Started"),
];
pub const OPERATION_ORDER: Order = Order { columns: &COLUMNS, latest_first: true, of: "" };

pub fn operation_key(operation: &Operation, column: usize) -> SortKey {
    let number = match COLUMNS[column].name {
        "what" => return (operation.action.to_string(), operation.id.0),
        "status" => return (operation.status.as_str().to_owned(), operation.id.0),
        "took" => took_ms(operation).map_or(0, |took| took + 1),
        "when" => operation.started_at.as_millisecond().max(0).cast_unsigned(),
        _ => operation.id.0,
    };
    (String::new(), number)
}

/// A table of operations, in the order given.
pub fn operation_table(operations: Memo<Vec<Operation>>, sortable: bool) -> AnyView {
    view! {
        <div class="table operations" role="table" aria-label="Operations">
            {OPERATION_ORDER.headings(sortable, false)}
            {each(operations, |operation| (operation.id.0, operation.revision.0), operation_row)}
        </div>
    }
    .into_any()
}

fn operation_row(operation: Operation) -> AnyView {
    let id = operation.id;
    let undone = operation.undone_by.map(|by| quiet(format!(", undone by operation {by}")));
    view! {
        <div class="row" role="row" data-testid=format!("operation-row-{id}")>
            <span role="cell" class="cell-id number">
                <a href=format!("/operations/{id}")>{id.to_string()}</a>
            </span>
            <span role="cell" class="cell-what">
                <a class="plain clip" href=format!("/operations/{id}") title=operation.summary.clone()>
                    {format::capitalised(&operation.action.to_string())} {undone}
                </a>
            </span>
            <span role="cell" class="cell-status">{status_label(operation.status)}</span>
            <span role="cell" class="cell-took number">
                {took_ms(&operation).map_or_else(|| format::NONE.to_owned(), format::duration)}
            </span>
            <span role="cell" class="cell-when">{moment(operation.started_at)}</span>
        </div>
    }
    .into_any()
}
