//! The plan drawer: what a click would do, and then what it does.
//!
//! A native modal dialog, so that focus stays in it, Esc closes it and focus returns. It lies over
//! the page, scrolls in its middle, and keeps its buttons in sight.
//!
//! Test ids: `plan-drawer`, `plan-outdated`, `plan-final`, `confirm-name`, `plan-apply`, `plan-again`, `plan-cancel`,
//! and those of [`crate::components::plan_view`] and [`crate::components::operation_view`].

use crate::{
    api::ApiError,
    browser,
    components::{
        live::{class_if, click, live, typed, when},
        operation_view::{CurrentOperation, live_outcome, live_steps, operation_buttons, steps},
        plan_panel::{PanelContent, PlanPanel, use_plan_panel},
        plan_view::{
            KEEP_WITHIN_MS, blast_radius, blockers, direction_view, keep_switch, summary, terminal, warnings,
            why,
        },
        text::{callout, code, refusal, revision, skeleton},
    },
    format,
    operation::{self, StepLine},
    store::use_store,
    tone::Tone,
};
use leptos::{ev, html::Dialog, prelude::*};
use ringmaster_common::{
    error::Code,
    plan::{Fact, Plan},
};
use wasm_bindgen::JsCast;

pub fn plan_drawer() -> AnyView {
    let panel = use_plan_panel();
    let dialog = NodeRef::<Dialog>::new();
    let open = Memo::new(move |_| panel.shown.with(|shown| !matches!(shown, PanelContent::Nothing)));
    follow_dialog(dialog, open.into());
    view! {
        <dialog
            node_ref=dialog
            class="drawer"
            data-testid="plan-drawer"
            aria-labelledby="drawer-title"
            on:cancel=move |event: ev::Event| {
                event.prevent_default();
                panel.close();
            }
            on:mousedown=move |event| {
                if on_backdrop(&event) {
                    panel.close();
                }
            }
        >
            {contents(panel)}
        </dialog>
    }
    .into_any()
}

/// Opens and closes a modal dialog.
pub fn follow_dialog(dialog: NodeRef<Dialog>, open: Signal<bool>) {
    Effect::new(move |_| {
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

/// The content of the drawer, without the parts that follow a running operation.
#[derive(Clone, PartialEq)]
enum Scene {
    Nothing,
    Waiting(String),
    Failed,
    Proposed(u64),
    Applied(u64),
}

fn contents(panel: PlanPanel) -> AnyView {
    let scene = Memo::new(move |_| {
        let applied = panel.operation().is_some();
        panel.shown.with(|shown| match shown {
            PanelContent::Nothing => Scene::Nothing,
            PanelContent::Planning(action) => Scene::Waiting(operation::title(action)),
            PanelContent::Fetching(id) => Scene::Waiting(format!("Plan {id}")),
            PanelContent::Failed(..) => Scene::Failed,
            PanelContent::Plan(plan) if applied => Scene::Applied(plan.id.0),
            PanelContent::Plan(plan) => Scene::Proposed(plan.id.0),
        })
    });
    live(move || {
        let scene = scene.get();
        untrack(|| match (scene, panel.shown.get()) {
            (Scene::Waiting(title), _) => waiting(panel, title),
            (_, PanelContent::Failed(wanted, error)) => {
                let again = move || panel.retry(wanted.clone());
                let buttons = view! {
                    {close(panel, "Close")}
                    <button type="button" class="primary" data-testid="plan-again" on:click=click(again)>
                        "Try again"
                    </button>
                };
                drawer(
                    head(panel, "There is no plan".to_owned(), None),
                    view! { {refusal(&error)} <p class="quiet">"Nothing was changed."</p> }.into_any(),
                    ().into_any(),
                    buttons.into_any(),
                )
            }
            (Scene::Proposed(_), PanelContent::Plan(plan)) => proposed(panel, &plan),
            (Scene::Applied(_), PanelContent::Plan(plan)) => applied(panel, &plan),
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

fn head(panel: PlanPanel, title: String, plan: Option<&Plan>) -> AnyView {
    let pill = plan.map(|plan| view! { <span class="pill">{format!("plan {}", plan.id)}</span> }.into_any());
    view! {
        <header class="drawer-head">
            <h2 id="drawer-title">{title}</h2>
            {plan.and_then(direction_view)}
            {pill}
            <button type="button" class="icon" aria-label="Close" on:click=click(move || panel.close())>
                "✕"
            </button>
        </header>
    }
    .into_any()
}

fn close(panel: PlanPanel, label: &'static str) -> AnyView {
    view! {
        <button type="button" data-testid="plan-cancel" on:click=click(move || panel.close())>{label}</button>
    }
    .into_any()
}

fn waiting(panel: PlanPanel, title: String) -> AnyView {
    let body = view! {
        <p class="quiet" role="status">"Computing the plan. Nothing happens yet."</p>
        {skeleton(6)}
    };
    drawer(head(panel, title, None), body.into_any(), ().into_any(), close(panel, "Cancel"))
}

/// Before: the plan and its button.
fn proposed(panel: PlanPanel, plan: &Plan) -> AnyView {
    let store = use_store();
    let keep = RwSignal::new(false);
    let blocked = !plan.blockers.is_empty();
    let (id, expires_at) = (plan.id, plan.expires_at);
    let expired = Memo::new(move |_| format::seconds_left(expires_at, store.now.get()) == 0);
    let changed = {
        let plan = plan.clone();
        Memo::new(move |_| store.with_view(|view| operation::out_of_date(&plan, view)))
    };
    let outdated = Memo::new(move |_| {
        const OUTDATED: [Code; 3] = [Code::PlanStale, Code::PlanExpired, Code::PlanBlocked];
        let is_outdated = |error: &ApiError| OUTDATED.iter().any(|code| error.is(*code));
        expired.get()
            || changed.with(Option::is_some)
            || panel.refused.with(|refused| refused.as_ref().is_some_and(is_outdated))
    });
    let lines: Vec<StepLine> = plan.steps.iter().map(StepLine::from).collect();
    let body = view! {
        {summary(plan)}
        {blockers(&plan.blockers)}
        {warnings(&plan.warnings)}
        {blast_radius(&plan.impact)}
        <section>
            <h3>"Steps and their time limits"</h3>
            {steps(&lines)}
        </section>
        {(plan.undoable && !blocked).then(|| keep_switch(keep))}
        {terminal(plan, keep)}
        {why(plan)}
    };
    let (verb, action) = (operation::verb(plan), plan.action.clone());
    let is_final = operation::is_final(plan);
    let name = store.with_view(|view| {
        let name_of = |id| view.nodes.get(&id).map(|node| node.name.as_str());
        operation::name_to_type(plan, name_of).map(str::to_owned)
    });
    let typed_name = RwSignal::new(String::new());
    let ask = name.clone().filter(|_| !blocked).map(|name| {
        view! {
            <label class="confirm-name">
                <span>"To confirm, type " <b>{name}</b></span>
                <input
                    type="text"
                    autocomplete="off"
                    data-testid="confirm-name"
                    prop:value=typed_name
                    on:input=typed(move |text| typed_name.set(text))
                />
            </label>
        }
        .into_any()
    });
    let irrevocable = (is_final && !blocked)
        .then(|| view! { <p class="quiet" data-testid="plan-final">"This cannot be undone."</p> }.into_any());
    let is_named =
        class_if(move || name.as_ref().is_none_or(|name| typed_name.with(|typed| typed.trim() == name)));
    let note = |text: &'static str| move || callout(Tone::Warning, text.into_any());
    let notes = view! {
        {refused(panel)}
        {when(move || panel.busy.get(), sending)}
        {live(move || {
            let sentence = |text: String| view! { <span data-testid="plan-outdated">{text}</span> }.into_any();
            changed.get().map(|text| callout(Tone::Warning, sentence(text)))
        })}
        {when(move || expired.get(), note("This plan has expired. Make a new plan to see the current state."))}
        {when(move || !store.is_live(), note("The page is not connected to any node; nothing can be applied from here."))}
        {irrevocable} {ask}
    };
    let buttons = live(move || {
        let (verb, action) = (verb.clone(), action.clone());
        let again = outdated.get() || blocked;
        let apply = (!outdated.get() || blocked).then(|| {
            let title =
                if blocked { "The plan is blocked; the blockers above say how to lift them" } else { "" };
            view! {
                <button
                    type="button"
                    class=if is_final { "danger" } else { "primary" }
                    data-testid="plan-apply"
                    title=title
                    disabled=class_if(move || blocked || !is_named.get() || panel.busy.get() || !store.is_live())
                    on:click=click(move || panel.apply(id, keep.get_untracked().then_some(KEEP_WITHIN_MS)))
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
                    on:click=click(move || panel.propose(action.clone()))
                >
                    "Plan again"
                </button>
            }
            .into_any()
        });
        view! { {close(panel, "Cancel")} {again} {apply} }
    });
    let title = operation::title(&plan.action);
    drawer(head(panel, title, Some(plan)), body.into_any(), notes.into_any(), buttons.into_any())
}

/// A node that hangs may take as long as the page needs to find another.
fn sending() -> AnyView {
    let text = "Sending. If the node does not answer, the request is sent to another node under the same key, so it cannot be done twice.";
    view! { <p class="quiet" role="status">{text}</p> }.into_any()
}

/// Why the last request was refused, with the facts that changed.
fn refused(panel: PlanPanel) -> AnyView {
    let fact = |fact: &Fact| {
        view! { <li>{code(&fact.fact)} " has changed since revision " {revision(fact.version)}</li> }
            .into_any()
    };
    live(move || {
        panel.refused.get().map(|error| {
            let facts: Vec<AnyView> = error.facts().iter().map(fact).collect();
            view! { {refusal(&error)} <ul class="facts" data-testid="stale-facts">{facts}</ul> }
        })
    })
    .into_any()
}

/// After the plan was applied: the operation.
fn applied(panel: PlanPanel, plan: &Plan) -> AnyView {
    let operation: CurrentOperation = Memo::new(move |_| panel.operation());
    let id = Memo::new(move |_| operation.with(|operation| operation.as_ref().map(|operation| operation.id)));
    let link = live(move || {
        id.get().map(|id| view! { <a href=format!("/operations/{id}")>{format!("Open operation {id}")}</a> })
    });
    let body = view! {
        {live_outcome(operation)}
        <section>
            <h3>"Steps"</h3>
            {live_steps(operation)}
        </section>
        <section>
            <h3>"As it was planned"</h3>
            {summary(plan)}
            {blast_radius(&plan.impact)}
        </section>
        {why(plan)}
        <p>{link}</p>
    };
    let buttons = view! { {close(panel, "Close")} {operation_buttons(operation)} };
    let title = operation::title(&plan.action);
    drawer(head(panel, title, Some(plan)), body.into_any(), refused(panel), buttons.into_any())
}
