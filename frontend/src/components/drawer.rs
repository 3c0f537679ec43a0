//! The plan drawer: what a click would do, and then what it does.
//!
//! A native modal dialog, so that focus stays in it, Esc closes it and focus returns. It lies over
//! the page, scrolls in its middle, and keeps its buttons in sight.
//!
//! Test ids: `plan-drawer`, `plan-apply`, `plan-again`, `plan-cancel`, and those of
//! [`crate::components::plan_view`] and [`crate::components::operation_view`].

use crate::{
    components::{
        desk::{Shown, use_desk},
        operation_view::{OperationButtons, Outcome, Steps},
        plan_view::{self, KEEP_WITHIN_MS, KeepSwitch, Terminal},
        text::{refusal, revision, skeleton},
    },
    format,
    operation::{self, StepLine},
    store::use_store,
};
use leptos::{html::Dialog, prelude::*};
use ringmaster_common::{error::Code, operation::Operation, plan::Plan};
use wasm_bindgen::JsCast;

#[component]
pub fn PlanDrawer() -> impl IntoView {
    let desk = use_desk();
    let dialog = NodeRef::<Dialog>::new();
    let open = Memo::new(move |_| desk.shown.with(|shown| *shown != Shown::Nothing));
    Effect::new(move |_| {
        let Some(dialog) = dialog.get() else { return };
        match (open.get(), dialog.open()) {
            (true, false) => {
                dialog.show_modal().ok();
            }
            (false, true) => dialog.close(),
            _ => {}
        }
    });
    let close_on_backdrop = move |event: leptos::ev::MouseEvent| {
        let on_backdrop =
            event.target().is_some_and(|target| target.dyn_ref::<web_sys::HtmlDialogElement>().is_some());
        if on_backdrop {
            desk.close();
        }
    };
    view! {
        <dialog
            node_ref=dialog
            class="drawer"
            data-testid="plan-drawer"
            aria-labelledby="drawer-title"
            on:cancel=move |event: leptos::ev::Event| {
                event.prevent_default();
                desk.close();
            }
            on:mousedown=close_on_backdrop
        >
            <Contents />
        </dialog>
    }
}

/// What the drawer shows, without what changes while an operation runs: the parts follow that.
#[derive(Clone, PartialEq)]
enum Scene {
    Nothing,
    Waiting(String),
    Failed,
    /// A plan by its id. `applied` changes the whole of what can be done with it.
    Plan {
        id: u64,
        applied: bool,
    },
}

#[component]
fn Contents() -> impl IntoView {
    let desk = use_desk();
    let scene = Memo::new(move |_| {
        let applied = desk.operation().is_some();
        desk.shown.with(|shown| match shown {
            Shown::Nothing => Scene::Nothing,
            Shown::Planning(action) => Scene::Waiting(operation::title(action)),
            Shown::Fetching(id) => Scene::Waiting(format!("Plan {id}")),
            Shown::Failed(..) => Scene::Failed,
            Shown::Plan(plan) => Scene::Plan { id: plan.id.0, applied },
        })
    });
    move || match scene.get() {
        Scene::Nothing => ().into_any(),
        Scene::Waiting(title) => view! {
            {head(title, None, None)}
            <div class="drawer-body" aria-busy="true">
                <p class="quiet">"Computing the plan. Nothing happens yet."</p>
                {skeleton(6)}
            </div>
            <footer class="drawer-foot">{cancel("Cancel")}</footer>
        }
        .into_any(),
        Scene::Failed => failed().into_any(),
        Scene::Plan { applied, .. } => {
            let plan = desk.shown.with_untracked(|shown| match shown {
                Shown::Plan(plan) => Some(Plan::clone(plan)),
                _ => None,
            });
            match plan {
                Some(plan) if applied => view! { <Applied plan /> }.into_any(),
                Some(plan) => view! { <Proposed plan /> }.into_any(),
                None => ().into_any(),
            }
        }
    }
}

fn head(title: String, pill: Option<String>, direction: Option<AnyView>) -> impl IntoView {
    let desk = use_desk();
    view! {
        <header class="drawer-head">
            <h2 id="drawer-title">{title}</h2>
            {direction}
            {pill.map(|pill| view! { <span class="pill">{pill}</span> })}
            <button type="button" class="icon" aria-label="Close" on:click=move |_| desk.close()>"✕"</button>
        </header>
    }
}

fn cancel(label: &'static str) -> impl IntoView {
    let desk = use_desk();
    view! {
        <button type="button" data-testid="plan-cancel" on:click=move |_| desk.close()>{label}</button>
    }
}

fn failed() -> impl IntoView {
    let desk = use_desk();
    let (wanted, error) = match desk.shown.get_untracked() {
        Shown::Failed(wanted, error) => (wanted, error),
        _ => return ().into_any(),
    };
    view! {
        {head("There is no plan".to_owned(), None, None)}
        <div class="drawer-body">
            {refusal(&error)}
            <p class="quiet">"Nothing was changed."</p>
        </div>
        <footer class="drawer-foot">
            {cancel("Close")}
            <button type="button" class="primary" data-testid="plan-again" on:click=move |_| desk.retry(wanted.clone())>
                "Try again"
            </button>
        </footer>
    }
    .into_any()
}

/// Before: the plan and its button.
#[component]
fn Proposed(plan: Plan) -> impl IntoView {
    let store = use_store();
    let desk = use_desk();
    let keep = RwSignal::new(false);
    let blocked = !plan.blockers.is_empty();
    let (id, action, expires_at) = (plan.id, plan.action.clone(), plan.expires_at);
    let expired = Memo::new(move |_| format::seconds_left(expires_at, store.now.get()) == 0);
    let outdated = Memo::new(move |_| {
        let refused = desk.refused.with(|error| {
            error.as_ref().is_some_and(|error| {
                error.is(Code::PlanStale) || error.is(Code::PlanExpired) || error.is(Code::PlanBlocked)
            })
        });
        refused || expired.get()
    });
    let why_not = Memo::new(move |_| {
        if blocked {
            Some("The plan is blocked; see above what lifts it")
        } else if !store.is_live() {
            Some("The page is not connected to any node")
        } else {
            None
        }
    });
    let verb = operation::verb(&plan);
    let lines: Vec<StepLine> = plan.steps.iter().map(StepLine::from).collect();
    let again = {
        let action = action.clone();
        move |_| desk.propose(action.clone())
    };
    let undoable = plan.undoable && !blocked;
    view! {
        {head(
            operation::title(&action),
            Some(format!("plan {id}")),
            Some(plan_view::direction_view(&plan).into_any()),
        )}
        <div class="drawer-body">
            {plan_view::summary(&plan)}
            {plan_view::blockers(&plan.blockers)}
            {plan_view::warnings(&plan.warnings)}
            <div class="blast" role="group" aria-label="Blast radius">{plan_view::impact(&plan.impact)}</div>
            <section>
                <h3>"Steps, and the most they may take"</h3>
                <Steps lines=Signal::stored(lines) />
            </section>
            {undoable.then(|| view! { <KeepSwitch keep /> })}
            <Terminal plan=plan.clone() keep=keep.into() />
            {plan_view::why(&plan)}
        </div>
        <footer class="drawer-foot">
            {stale_facts}
            {move || {
                expired
                    .get()
                    .then(|| {
                        view! { <p class="callout warning">"This plan has expired. Plan again to see how things stand now."</p> }
                    })
            }}
            {move || {
                why_not
                    .get()
                    .filter(|_| !blocked)
                    .map(|why| view! { <p class="callout warning">{why}</p> })
            }}
            <div class="buttons">
                {cancel("Cancel")}
                {move || {
                    let verb = verb.clone();
                    let again = again.clone();
                    if outdated.get() || blocked {
                        view! {
                            {blocked
                                .then(|| {
                                    view! {
                                        <button type="button" class="primary" data-testid="plan-apply" disabled title=why_not.get()>
                                            {verb}
                                        </button>
                                    }
                                })}
                            <button type="button" class:primary=!blocked data-testid="plan-again" on:click=again>
                                "Plan again"
                            </button>
                        }
                            .into_any()
                    } else {
                        view! {
                            <button
                                type="button"
                                class="primary"
                                data-testid="plan-apply"
                                disabled=move || why_not.get().is_some() || desk.busy.get()
                                on:click=move |_| desk.apply(id, keep.get_untracked().then_some(KEEP_WITHIN_MS))
                            >
                                {verb}
                            </button>
                        }
                            .into_any()
                    }
                }}
            </div>
        </footer>
    }
}

/// Why the last request was refused, with the facts that changed.
fn stale_facts() -> impl IntoView {
    let desk = use_desk();
    desk.refused.get().map(|error| {
        let facts = error
            .facts()
            .iter()
            .map(|fact| {
                view! {
                    <li>
                        <code>{fact.fact.clone()}</code> " has changed since revision " {revision(fact.version)}
                    </li>
                }
            })
            .collect_view();
        view! {
            {refusal(&error)}
            <ul class="facts">{facts}</ul>
        }
    })
}

/// After: the operation, as it goes on.
#[component]
fn Applied(plan: Plan) -> impl IntoView {
    let desk = use_desk();
    let operation = Memo::new(move |_| desk.operation());
    let lines = Memo::new(move |_| {
        operation.with(|operation| {
            operation
                .as_ref()
                .map(|operation: &Operation| operation.steps.iter().map(StepLine::from).collect::<Vec<_>>())
                .unwrap_or_default()
        })
    });
    let id = Memo::new(move |_| operation.with(|operation| operation.as_ref().map(|operation| operation.id)));
    view! {
        {head(
            operation::title(&plan.action),
            Some(format!("plan {}", plan.id)),
            Some(plan_view::direction_view(&plan).into_any()),
        )}
        <div class="drawer-body">
            <Outcome operation />
            <section>
                <h3>"Steps"</h3>
                <Steps lines />
            </section>
            {plan_view::summary(&plan)}
            <div class="blast" role="group" aria-label="Blast radius, as planned">{plan_view::impact(&plan.impact)}</div>
            {plan_view::why(&plan)}
            <p>
                {move || {
                    id.get().map(|id| view! { <a href=format!("/operations/{id}")>"Open operation " {id.0}</a> })
                }}
            </p>
        </div>
        <footer class="drawer-foot">
            {stale_facts}
            <div class="buttons">
                {cancel("Close")} <OperationButtons operation />
            </div>
        </footer>
    }
}
