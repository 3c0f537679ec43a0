//! A plan, laid open: what will happen, to whom, what could go wrong, what forbids it, and what it
//! looked at.
//!
//! Test ids: `plan-summary`, `impact-<figure>`, `plan-warning`, `plan-blocker`, `plan-footprint`,
//! `keep-switch`, `cli`, `curl`.

use crate::{
    components::{
        marks::{badge, sign},
        text::{Copyable, prose, revision},
    },
    format::{self, capitalised, count, duration},
    operation::{cli, curl, direction},
    situation::Tone,
    store::use_store,
};
use leptos::prelude::*;
use ringmaster_common::{
    id::NodeId,
    plan::{Blocker, Impact, Plan, Warning},
};

/// How long an operation that reverts by itself waits to be kept.
pub const KEEP_WITHIN_MS: u64 = 60_000;

/// From whom to whom leadership moves.
pub fn direction_view(plan: &Plan) -> impl IntoView + use<> {
    direction(plan).map(|(from, to)| {
        view! {
            <span class="direction">
                <span class="visually-hidden">{format!("from node {from} to node {to}")}</span>
                {badge(NodeId(from))} <span aria-hidden="true">"→"</span> {badge(NodeId(to))}
            </span>
        }
    })
}

pub fn summary(plan: &Plan) -> impl IntoView + use<> {
    view! { <p class="plan-summary" data-testid="plan-summary">{prose(&plan.summary)}</p> }
}

/// The blast radius.
pub fn impact(impact: &Impact) -> impl IntoView + use<> {
    let change = |before: u64, after: u64| {
        if before == after { format::grouped(before) } else { format!("{before} → {after}") }
    };
    let bound = impact.write_pause_bound_ms.map(|ms| format!("at worst {}", duration(ms)));
    let pause_note = match (impact.write_pause_ms.is_some(), bound) {
        (true, Some(bound)) => format!("writes paused, last time; {bound}"),
        (true, None) => "writes paused, last time".to_owned(),
        (false, Some(bound)) => format!("pause of writes; {bound}"),
        (false, None) => "pause of writes".to_owned(),
    };
    let figures: [(&str, Option<String>, String); 4] = [
        ("pause", impact.write_pause_ms.map(duration), pause_note),
        ("behind", impact.entries_behind.map(|lag| count(lag, "entry")), "the target is behind".to_owned()),
        (
            "voters",
            Some(change(impact.voters_before, impact.voters_after)),
            "voters, before and after".to_owned(),
        ),
        (
            "may-fail",
            Some(change(impact.may_fail_before, impact.may_fail_after)),
            "may fail with writes going on".to_owned(),
        ),
    ];
    figures
        .map(|(id, value, note)| {
            let measured = value.is_some();
            view! {
                <div data-testid=format!("impact-{id}")>
                    <b class:none=!measured>{value.unwrap_or_else(|| "not measured".to_owned())}</b>
                    <span>{note}</span>
                </div>
            }
        })
        .collect_view()
}

pub fn warnings(warnings: &[Warning]) -> impl IntoView + use<> {
    warnings
        .iter()
        .map(|warning| {
            view! {
                <div class="callout warning" data-testid="plan-warning">
                    {sign(Tone::Warning)} <div>
                        <span class="visually-hidden">"Warning: "</span>
                        {prose(&warning.detail)}
                    </div>
                </div>
            }
        })
        .collect_view()
}

pub fn blockers(blockers: &[Blocker]) -> impl IntoView + use<> {
    blockers
        .iter()
        .map(|blocker| {
            view! {
                <div class="callout bad" data-testid="plan-blocker">
                    {sign(Tone::Bad)} <div>
                        <strong>"Blocked: "</strong>
                        {prose(&blocker.detail)}
                        <p class="quiet">"What lifts it: " {prose(&blocker.lifted_by)}</p>
                    </div>
                </div>
            }
        })
        .collect_view()
}

/// The facts that it was computed from; a change of any of them makes it stale.
pub fn why(plan: &Plan) -> impl IntoView + use<> {
    let facts = plan
        .footprint
        .iter()
        .map(|fact| {
            view! {
                <li>
                    <code>{fact.fact.clone()}</code> " as of revision " {revision(fact.version)}
                </li>
            }
        })
        .collect_view();
    let observations = plan
        .observations
        .iter()
        .map(|seen| {
            view! {
                <li>
                    {prose(&capitalised(&seen.what))} ": " <b>{seen.value.clone()}</b>
                    <span class="quiet">{format!(", measured {} before", duration(seen.age_ms))}</span>
                </li>
            }
        })
        .collect_view();
    view! {
        <details class="why" data-testid="plan-footprint">
            <summary>"Why, and what it looked at"</summary>
            <p class="quiet">
                "Computed at revision " {revision(plan.revision)}
                ". If one of these facts changes before it is applied, it is refused and you can plan again. What was measured is looked at again as its first step."
            </p>
            <ul class="facts">{facts} {observations}</ul>
        </details>
    }
}

/// The switch for an operation that takes itself back.
#[component]
pub fn KeepSwitch(keep: RwSignal<bool>) -> impl IntoView {
    view! {
        <label class="switch">
            <span>"Revert by itself unless I keep it within " <b>{format!("{} s", KEEP_WITHIN_MS / 1_000)}</b></span>
            <input
                type="checkbox"
                role="switch"
                data-testid="keep-switch"
                prop:checked=move || keep.get()
                on:change=move |event| keep.set(event_target_checked(&event))
            />
        </label>
    }
}

/// The same from a terminal.
#[component]
pub fn Terminal(plan: Plan, keep: Signal<bool>) -> impl IntoView {
    let store = use_store();
    let tab = RwSignal::new(0);
    let keep_within = move || keep.get().then_some(KEEP_WITHIN_MS);
    let for_curl = plan.clone();
    let texts: [(&str, Signal<String>); 2] = [
        ("CLI", Signal::derive(move || cli(&plan, keep_within()))),
        ("curl", Signal::derive(move || curl(&for_curl, &store.api.base(), keep_within()))),
    ];
    let choose = texts
        .iter()
        .enumerate()
        .map(|(index, (label, _))| {
            let label = *label;
            view! {
                <button
                    type="button"
                    role="tab"
                    aria-selected=move || (tab.get() == index).to_string()
                    data-testid=format!("{}-tab", label.to_lowercase())
                    on:click=move |_| tab.set(index)
                >
                    {label}
                </button>
            }
        })
        .collect_view();
    view! {
        <div class="terminal">
            <div class="tabs" role="tablist" aria-label="The same from a terminal">{choose}</div>
            {move || {
                let (label, text) = texts[tab.get()];
                view! { <div role="tabpanel"><Copyable text label /></div> }
            }}
        </div>
    }
}
