//! The plan drawer: what a click would do, and then what it does.
//!
//! A native modal dialog, so that focus stays in it, Esc closes it and focus returns. It lies over
//! the page, scrolls in its middle, and keeps its buttons in sight.
//!
//! Test ids: `plan-drawer`, `plan-apply`, `plan-again`, `plan-cancel`, and those of
//! [`crate::components::plan_view`] and [`crate::components::operation_view`].

use crate::{
    api::ApiError,
    browser,
    components::{
        desk::{Desk, Shown, use_desk},
        live::{click, effect, flag, follow, live, memo, when},
        operation_view::{Shown as ShownOperation, live_outcome, live_steps, operation_buttons, steps},
        plan_view::{
            KEEP_WITHIN_MS, blast_radius, blockers, direction_view, keep_switch, summary, terminal, warnings,
            why,
        },
        text::{callout, code, refusal, revision, skeleton},
    },
    format,
    operation::{self, StepLine},
    situation::Tone,
    store::use_store,
    var::Var,
};
use leptos::{ev, html::Dialog, prelude::*};
use ringmaster_common::{
    error::Code,
    plan::{Fact, Plan},
};
use wasm_bindgen::JsCast;

pub fn plan_drawer() -> AnyView {
    let desk = use_desk();
    let dialog = NodeRef::<Dialog>::new();
    let open = memo(move || desk.shown.with(|shown| !matches!(shown, Shown::Nothing)));
    follow_dialog(dialog, follow(open));
    view! {
        <dialog
            node_ref=dialog
            class="drawer"
            data-testid="plan-drawer"
            aria-labelledby="drawer-title"
            on:cancel=move |event: ev::Event| {
                event.prevent_default();
                desk.close();
            }
            on:mousedown=move |event| {
                if on_backdrop(&event) {
                    desk.close();
                }
            }
        >
            {contents(desk)}
        </dialog>
    }
    .into_any()
}

/// Opens and closes a modal dialog.
pub fn follow_dialog(dialog: NodeRef<Dialog>, open: Signal<bool>) {
    effect(move || {
        let Some(dialog) = dialog.get() else { return };
        match (open.get(), dialog.open()) {
            (true, false) => {
                dialog.show_modal().ok();
            }
            (false, true) => {
                dialog.close();
                browser::keep_focus();
            }
            _ => {}
        }
    });
}

/// Whether a press was beside a dialog: then the dialog itself is its target, and nothing inside it.
pub fn on_backdrop(event: &ev::MouseEvent) -> bool {
    event.target().is_some_and(|target| target.dyn_ref::<web_sys::HtmlDialogElement>().is_some())
}

/// What the drawer shows, without what changes while an operation runs: its parts follow that.
#[derive(Clone, PartialEq)]
enum Scene {
    Nothing,
    Waiting(String),
    Failed,
    Proposed(u64),
    Applied(u64),
}

fn contents(desk: Desk) -> AnyView {
    let scene = memo(move || {
        let applied = desk.operation().is_some();
        desk.shown.with(|shown| match shown {
            Shown::Nothing => Scene::Nothing,
            Shown::Planning(action) => Scene::Waiting(operation::title(action)),
            Shown::Fetching(id) => Scene::Waiting(format!("Plan {id}")),
            Shown::Failed(..) => Scene::Failed,
            Shown::Plan(plan) if applied => Scene::Applied(plan.id.0),
            Shown::Plan(plan) => Scene::Proposed(plan.id.0),
        })
    });
    live(move || {
        let scene = scene.get();
        untrack(|| match (scene, desk.shown.get()) {
            (Scene::Waiting(title), _) => waiting(desk, title),
            (_, Shown::Failed(wanted, error)) => {
                let again = move || desk.retry(wanted.clone());
                let buttons = view! {
                    {close(desk, "Close")}
                    <button type="button" class="primary" data-testid="plan-again" on:click=click(again)>
                        "Try again"
                    </button>
                };
                drawer(
                    head(desk, "There is no plan".to_owned(), None),
                    view! { {refusal(&error)} <p class="quiet">"Nothing was changed."</p> }.into_any(),
                    ().into_any(),
                    buttons.into_any(),
                )
            }
            (Scene::Proposed(_), Shown::Plan(plan)) => proposed(desk, &plan),
            (Scene::Applied(_), Shown::Plan(plan)) => applied(desk, &plan),
            _ => ().into_any(),
        })
    })
    .into_any()
}

/// The frame: a head, a body that scrolls, and at the foot what must be seen, over the buttons.
fn drawer(head: AnyView, body: AnyView, notes: AnyView, buttons: AnyView) -> AnyView {
    view! {
        {head}
        <div class="drawer-body">{body}</div>
        <footer class="drawer-foot">
            {notes}
            <div class="buttons">{buttons}</div>
        </footer>
    }
    .into_any()
}

fn head(desk: Desk, title: String, plan: Option<&Plan>) -> AnyView {
    let pill = plan.map(|plan| view! { <span class="pill">{format!("plan {}", plan.id)}</span> }.into_any());
    view! {
        <header class="drawer-head">
            <h2 id="drawer-title">{title}</h2>
            {plan.and_then(direction_view)}
            {pill}
            <button type="button" class="icon" aria-label="Close" on:click=click(move || desk.close())>
                "✕"
            </button>
        </header>
    }
    .into_any()
}

fn close(desk: Desk, label: &'static str) -> AnyView {
    view! {
        <button type="button" data-testid="plan-cancel" on:click=click(move || desk.close())>{label}</button>
    }
    .into_any()
}

fn waiting(desk: Desk, title: String) -> AnyView {
    let body = view! {
        <p class="quiet" role="status">"Computing the plan. Nothing happens yet."</p>
        {skeleton(6)}
    };
    drawer(head(desk, title, None), body.into_any(), ().into_any(), close(desk, "Cancel"))
}

/// Before: the plan and its button.
fn proposed(desk: Desk, plan: &Plan) -> AnyView {
    let store = use_store();
    let keep = Var::new(false);
    let blocked = !plan.blockers.is_empty();
    let (id, expires_at) = (plan.id, plan.expires_at);
    let expired = memo(move || format::seconds_left(expires_at, store.now.get()) == 0);
    let outdated = memo(move || {
        const OUTDATED: [Code; 3] = [Code::PlanStale, Code::PlanExpired, Code::PlanBlocked];
        let is_outdated = |error: &ApiError| OUTDATED.iter().any(|code| error.is(*code));
        expired.get() || desk.refused.with(|refused| refused.as_ref().is_some_and(is_outdated))
    });
    let lines: Vec<StepLine> = plan.steps.iter().map(StepLine::from).collect();
    let body = view! {
        {summary(plan)}
        {blockers(&plan.blockers)}
        {warnings(&plan.warnings)}
        {blast_radius(&plan.impact)}
        <section>
            <h3>"Steps, and the most they may take"</h3>
            {steps(&lines)}
        </section>
        {(plan.undoable && !blocked).then(|| keep_switch(keep))}
        {terminal(plan, keep)}
        {why(plan)}
    };
    let note = |text: &'static str| move || callout(Tone::Warning, text.into_any());
    let notes = view! {
        {refused(desk)}
        {when(move || expired.get(), note("This plan has expired. Plan again to see how things stand now."))}
        {when(move || !store.is_live(), note("The page is not connected to any node; nothing can be applied from here."))}
    };
    let (verb, action) = (operation::verb(plan), plan.action.clone());
    let buttons = live(move || {
        let (verb, action) = (verb.clone(), action.clone());
        let again = outdated.get() || blocked;
        let apply = (!outdated.get() || blocked).then(|| {
            let title = if blocked { "The plan is blocked; see above what lifts it" } else { "" };
            view! {
                <button
                    type="button"
                    class="primary"
                    data-testid="plan-apply"
                    title=title
                    disabled=flag(move || blocked || desk.busy.get() || !store.is_live())
                    on:click=click(move || desk.apply(id, keep.get_untracked().then_some(KEEP_WITHIN_MS)))
                >
                    {verb}
                </button>
            }
            .into_any()
        });
        let class = if blocked { "" } else { "primary" };
        let again = again.then(|| {
            view! {
                <button
                    type="button"
                    class=class
                    data-testid="plan-again"
                    on:click=click(move || desk.propose(action.clone()))
                >
                    "Plan again"
                </button>
            }
            .into_any()
        });
        view! { {close(desk, "Cancel")} {again} {apply} }
    });
    let title = operation::title(&plan.action);
    drawer(head(desk, title, Some(plan)), body.into_any(), notes.into_any(), buttons.into_any())
}

/// Why the last request was refused, with the facts that changed.
fn refused(desk: Desk) -> AnyView {
    let fact = |fact: &Fact| {
        view! { <li>{code(&fact.fact)} " has changed since revision " {revision(fact.version)}</li> }
            .into_any()
    };
    live(move || {
        desk.refused.get().map(|error| {
            let facts: Vec<AnyView> = error.facts().iter().map(fact).collect();
            view! { {refusal(&error)} <ul class="facts" data-testid="stale-facts">{facts}</ul> }
        })
    })
    .into_any()
}

/// After: the operation, as it goes on.
fn applied(desk: Desk, plan: &Plan) -> AnyView {
    let operation: ShownOperation = memo(move || desk.operation());
    let id = memo(move || operation.with(|operation| operation.as_ref().map(|operation| operation.id)));
    let link = live(move || {
        id.get().map(|id| view! { <a href=format!("/operations/{id}")>{format!("Open operation {id}")}</a> })
    });
    let body = view! {
        {live_outcome(operation)}
        <section>
            <h3>"Steps"</h3>
            {live_steps(operation)}
        </section>
        {summary(plan)}
        {blast_radius(&plan.impact)}
        {why(plan)}
        <p>{link}</p>
    };
    let buttons = view! { {close(desk, "Close")} {operation_buttons(operation)} };
    let title = operation::title(&plan.action);
    drawer(head(desk, title, Some(plan)), body.into_any(), refused(desk), buttons.into_any())
}
