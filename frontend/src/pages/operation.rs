//! One operation: its steps with measured times, its outcome, and the way back.

use crate::{
    api::ApiError,
    components::{
        live::{either, live, text},
        operation_view::{CurrentOperation, live_outcome, live_steps, operation_buttons},
        plan_panel::use_plan_panel,
        text::{card, code, line, linkify, moment, refusal, revision, skeleton},
    },
    format::{self, capitalised},
    store::use_store,
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{
    id::OperationId,
    operation::{Operation, OperationStatus},
};

pub fn operation_page(id: OperationId) -> AnyView {
    let store = use_store();
    let panel = use_plan_panel();
    let fetched = RwSignal::new(None::<Result<Operation, ApiError>>);
    // Operations in the view are live. Older ones are fetched.
    let streamed = Memo::new(move |_| store.operation(id));
    Effect::new(move |_| {
        if !store.loaded.get() || streamed.with_untracked(Option::is_some) {
            return;
        }
        spawn_local(async move {
            let answer = store.api.operation(id).await;
            fetched.set(Some(answer));
        });
    });
    let operation = Memo::new(move |_| {
        let older = fetched.with(|fetched| fetched.as_ref().and_then(|answer| answer.as_ref().ok().cloned()));
        streamed.get().or(older)
    });
    let unknown = move || {
        live(move || match fetched.get() {
            Some(Err(error)) => refusal(&error),
            _ => skeleton(6),
        })
        .into_any()
    };
    view! {
        <div class="page">
            <div class="page-head">
                <h1>
                    {text(move || match operation.with(|operation| operation.as_ref().map(|one| one.action.to_string())) {
                        Some(action) => format!("Operation {id}: {action}"),
                        None => format!("Operation {id}"),
                    })}
                </h1>
                <span class="spacer"></span>
                {operation_buttons(operation)}
            </div>
            {live(move || panel.refused.get().map(|error| refusal(&error)))}
            {either(move || operation.with(Option::is_some), move || known(operation), unknown)}
        </div>
    }
    .into_any()
}

fn known(operation: CurrentOperation) -> AnyView {
    let about = live(move || operation.with(|operation| operation.as_ref().map(about)));
    view! {
        <div class="columns">
            <section class="card" aria-label="Outcome and steps">{live_outcome(operation)} {live_steps(operation)}</section>
            {card("", "about-title", "About it", ().into_any(), about.into_any())}
        </div>
    }
    .into_any()
}

fn about(operation: &Operation) -> AnyView {
    let link = |sentence: String| linkify(&sentence);
    let undo = match (operation.undoable, operation.undone_by) {
        (_, Some(by)) => format!("it was undone by operation {by}"),
        (true, _) if operation.status == OperationStatus::Succeeded => "yes, by a new plan".to_owned(),
        (true, _) if operation.status.is_final() => {
            format!("nothing to undo: it {}", operation.status.as_str())
        }
        (true, _) => "once it has ended".to_owned(),
        (false, _) => "no".to_owned(),
    };
    view! {
        <p class="plan-summary">{linkify(&operation.summary)}</p>
        <dl>
            {line("Action", link(capitalised(&operation.action.to_string())))}
            {line("Plan", link(format!("plan {}", operation.plan)))}
            {line("Started", moment(operation.started_at))}
            {line("By", operation.started_by.clone())}
            {operation.ended_at.map(|ended| line("Ended", moment(ended)))}
            {operation.keep_within_ms.map(|ms| line("Reverted unless confirmed", format!("within {}", format::duration(ms))))}
            {operation.undo_of.map(|id| line("Undoes", link(format!("operation {id}"))))}
            {operation.undone_by.map(|id| line("Undone by", link(format!("operation {id}"))))}
            {line("Can be undone", link(undo))}
            {operation.error.as_ref().map(|error| line("Code", code(error.code.as_str())))}
            {line("Last change", revision(operation.revision))}
        </dl>
    }
    .into_any()
}
