//! One operation: its steps with measured times, its outcome, and the way back.

use crate::{
    api::ApiError,
    components::{
        desk::use_desk,
        operation_view::{OperationButtons, Outcome, Steps},
        text::{moment, prose, refusal, revision, skeleton},
    },
    format::{self, capitalised},
    operation::StepLine,
    store::use_store,
};
use leptos::{prelude::*, task::spawn_local};
use leptos_router::hooks::use_params_map;
use ringmaster_common::{id::OperationId, operation::Operation};

#[component]
pub fn OperationPage() -> impl IntoView {
    let store = use_store();
    let desk = use_desk();
    let params = use_params_map();
    let id = Memo::new(move |_| {
        params.with(|params| params.get("id").and_then(|id| id.parse::<OperationId>().ok()))
    });
    let fetched = RwSignal::new(None::<Result<Operation, ApiError>>);
    // What is in the view is live. Only what is older has to be asked for.
    let streamed = Memo::new(move |_| id.get().and_then(|id| store.operation(id)));
    Effect::new(move |_| {
        let Some(id) = id.get() else { return };
        if !store.loaded.get() || streamed.with_untracked(Option::is_some) {
            return;
        }
        fetched.set(None);
        spawn_local(async move {
            let answer = store.api.operation(id).await;
            fetched.try_set(Some(answer));
        });
    });
    let operation = Memo::new(move |_| {
        let older = fetched.with(|fetched| fetched.as_ref().and_then(|answer| answer.as_ref().ok().cloned()));
        streamed.get().or_else(|| older.filter(|operation| Some(operation.id) == id.get()))
    });
    let known = Memo::new(move |_| operation.with(Option::is_some));
    let title = move || id.get().map_or("Operation".to_owned(), |id| format!("Operation {id}"));
    view! {
        <div class="page">
            <div class="page-head">
                <h1>{title}</h1>
                <span class="spacer"></span>
                <OperationButtons operation />
            </div>
            {move || desk.refused.get().map(|error| refusal(&error))}
            {move || {
                if known.get() {
                    view! { <Known operation=operation.into() /> }.into_any()
                } else {
                    match fetched.get() {
                        Some(Err(error)) => refusal(&error).into_any(),
                        _ if id.get().is_none() => view! { <p>"An operation has a number."</p> }.into_any(),
                        _ => skeleton(6).into_any(),
                    }
                }
            }}
        </div>
    }
}

#[component]
fn Known(operation: Signal<Option<Operation>>) -> impl IntoView {
    let lines = Memo::new(move |_| {
        operation.with(|operation| {
            operation
                .as_ref()
                .map(|operation| operation.steps.iter().map(StepLine::from).collect::<Vec<_>>())
                .unwrap_or_default()
        })
    });
    view! {
        <div class="columns">
            <section class="card" aria-label="Outcome and steps">
                <Outcome operation />
                <Steps lines />
            </section>
            <section class="card" aria-labelledby="about-title">
                <h3 id="about-title">"About it"</h3>
                {move || operation.get().map(about)}
            </section>
        </div>
    }
}

fn about(operation: Operation) -> impl IntoView {
    let line = |label: &'static str, value: AnyView| view! { <div><dt>{label}</dt><dd>{value}</dd></div> };
    let link = |sentence: String| prose(&sentence).into_any();
    view! {
        <p class="plan-summary">{prose(&operation.summary)}</p>
        <dl>
            {line("Action", link(capitalised(&operation.action.to_string())))}
            {line("Plan", link(format!("plan {}", operation.plan)))}
            {line("Started", view! { {moment(operation.started_at)} " by " {operation.started_by.clone()} }.into_any())}
            {operation.ended_at.map(|ended| line("Ended", moment(ended).into_any()))}
            {operation
                .keep_within_ms
                .map(|ms| line("Reverts unless kept within", format::duration(ms).into_any()))}
            {operation.undo_of.map(|id| line("Takes back", link(format!("operation {id}"))))}
            {operation.undone_by.map(|id| line("Taken back by", link(format!("operation {id}"))))}
            {line(
                "Can be undone",
                if operation.undoable { "yes, by a new plan" } else { "no: there is no way back from it" }.into_any(),
            )}
            {operation
                .error
                .as_ref()
                .map(|error| line("Code", view! { <code>{error.code.as_str()}</code> }.into_any()))}
            {line("Last change", view! { "revision " {revision(operation.revision)} }.into_any())}
        </dl>
    }
}
