//! A plan in full: its steps, its impact, its warnings, its blockers, and what it
//! looked at.
//!
//! Test ids: `plan-summary`, `impact-<metric>`, `plan-warning`, `plan-blocker`, `plan-footprint`,
//! `keep-switch`, `cli-tab`, `curl-tab`, `cli`, `curl`.

use crate::{
    components::{
        icons::{badge, sign},
        live::{click, live, text},
        text::{code, copyable, linkify, quiet, revision},
    },
    format::{self, capitalised, count, duration},
    operation::{cli, curl, direction},
    store::use_store,
    tone::Tone,
};
use leptos::prelude::*;
use ringmaster_common::{
    id::NodeId,
    lock::LockHolder,
    plan::{Blocker, Fact, Impact, LockImpact, Observation, Plan, UpstreamImpact, Warning},
};

/// The time in which an operation has to be kept before it reverts automatically.
pub const KEEP_WITHIN_MS: u64 = 60_000;

/// The leader before and after.
pub fn direction_view(plan: &Plan) -> Option<AnyView> {
    let (from, to) = direction(plan)?;
    let view = view! {
        <span class="direction">
            <span class="visually-hidden">{format!("from node {from} to node {to}")}</span>
            {badge(NodeId(from))} <span aria-hidden="true">"→"</span> {badge(NodeId(to))}
        </span>
    };
    Some(view.into_any())
}

pub fn summary(plan: &Plan) -> AnyView {
    view! { <p class="plan-summary" data-testid="plan-summary">{linkify(&plan.summary)}</p> }.into_any()
}

/// The blast radius.
pub fn blast_radius(impact: &Impact) -> AnyView {
    let change = |before: u64, after: u64| {
        if before == after { format::grouped(before) } else { format!("{before} → {after}") }
    };
    let pause = match (impact.write_pause_ms, impact.write_pause_bound_ms) {
        (Some(last), Some(worst)) => {
            Some((duration(last), format!("writes paused, last time; at worst {}", duration(worst))))
        }
        (Some(last), None) => Some((duration(last), "writes paused, last time".to_owned())),
        (None, Some(worst)) => Some((format!("≤ {}", duration(worst)), "writes may pause".to_owned())),
        (None, None) => None,
    };
    let (pause, pause_note) = pause.unzip();
    let special =
        || impact.lock.as_ref().map(lock_figures).or_else(|| impact.upstream.as_ref().map(upstream_figures));
    let metrics: [(&str, Option<String>, String); 4] = special().unwrap_or_else(|| {
        [
            ("pause", pause, pause_note.unwrap_or_default()),
            ("behind", impact.entries_behind.map(|lag| count(lag, "entry")), "behind, the target".to_owned()),
            ("voters", Some(change(impact.voters_before, impact.voters_after)), "voters".to_owned()),
            (
                "may-fail",
                Some(change(impact.failures_tolerated_before, impact.failures_tolerated_after)),
                "voter failures tolerated".to_owned(),
            ),
        ]
    });
    // A number that is not known is left out.
    let metric = |(id, value, note): (&str, Option<String>, String)| {
        value.map(|value| {
            view! { <div data-testid=format!("impact-{id}")><b>{value}</b> <span>{note}</span></div> }
                .into_any()
        })
    };
    view! {
        <div class="blast" role="group" aria-label="Blast radius">
            {metrics.map(metric).into_iter().flatten().collect_view()}
        </div>
    }
    .into_any()
}

/// How many endpoints are left for requests.
fn upstream_figures(upstream: &UpstreamImpact) -> [(&'static str, Option<String>, String); 4] {
    let routes = match upstream.routes.as_slice() {
        [] => "none".to_owned(),
        names => format::listed(names),
    };
    [
        ("taking-before", Some(format::grouped(upstream.serving_before)), "serving before".to_owned()),
        ("taking-after", Some(format::grouped(upstream.serving_after)), "serving after".to_owned()),
        (
            "endpoints",
            Some(format::grouped(upstream.endpoints)),
            format!("endpoints of {}", upstream.upstream),
        ),
        ("routes", Some(routes), "routes".to_owned()),
    ]
}

/// The holders that lose a lock, and the waiters that get it.
fn lock_figures(lock: &LockImpact) -> [(&'static str, Option<String>, String); 4] {
    let owners = |people: &[LockHolder]| {
        let owners: Vec<&str> = people.iter().map(|holder| holder.owner.as_str()).collect();
        if owners.is_empty() { "none".to_owned() } else { format::listed(&owners) }
    };
    let left = lock.holders.iter().map(|holder| holder.expires_in_ms).max();
    [
        (
            "loses",
            Some(format::grouped(lock.holders.len() as u64)),
            format!("lose it: {}", owners(&lock.holders)),
        ),
        (
            "gets",
            Some(format::grouped(lock.promoted.len() as u64)),
            format!("get it next: {}", owners(&lock.promoted)),
        ),
        ("left", left.map(duration), "left of the longest lease".to_owned()),
        ("token", Some(format::grouped(lock.next_token.0)), "or more is the next token".to_owned()),
    ]
}

fn marked(tone: Tone, id: &'static str, contents: AnyView) -> AnyView {
    view! {
        <div class=format!("callout {}", tone.class()) data-testid=id>
            {sign(tone)} <div>{contents}</div>
        </div>
    }
    .into_any()
}

pub fn warnings(warnings: &[Warning]) -> Vec<AnyView> {
    let warning = |warning: &Warning| {
        let contents =
            view! { <span class="visually-hidden">"Warning: "</span> {linkify(&warning.detail)} }.into_any();
        marked(Tone::Warning, "plan-warning", contents)
    };
    warnings.iter().map(warning).collect()
}

pub fn blockers(blockers: &[Blocker]) -> Vec<AnyView> {
    let blocker = |blocker: &Blocker| {
        let contents = view! {
            <strong>"Blocked: "</strong>
            {linkify(&blocker.detail)}
            <p class="quiet">"Fix: " {linkify(&blocker.lifted_by)}</p>
        }
        .into_any();
        marked(Tone::Bad, "plan-blocker", contents)
    };
    blockers.iter().map(blocker).collect()
}

/// The facts that it was computed from; a change of any of them makes it stale.
pub fn why(plan: &Plan) -> AnyView {
    let fact = |fact: &Fact| {
        view! { <li>{code(&fact.fact)} " as of revision " {revision(fact.version)}</li> }.into_any()
    };
    let observation = |seen: &Observation| {
        view! {
            <li>
                {linkify(&capitalised(&seen.what))} ": " <b>{seen.value.clone()}</b>
                {quiet(format!(", measured {} before", duration(seen.age_ms)))}
            </li>
        }
        .into_any()
    };
    let facts: Vec<AnyView> = plan.footprint.iter().map(fact).collect();
    let observations: Vec<AnyView> = plan.observations.iter().map(observation).collect();
    view! {
        <details class="why" data-testid="plan-footprint">
            <summary>"Facts and measurements of the plan"</summary>
            <p class="quiet">
                "Computed at revision " {revision(plan.revision)}
                ". If one of these facts changes before the plan is applied, it is refused and you can plan again. The measurements are checked again in the first step."
            </p>
            <ul class="facts">{facts} {observations}</ul>
        </details>
    }
    .into_any()
}

/// The switch for an operation that takes itself back.
pub fn keep_switch(keep: RwSignal<bool>) -> AnyView {
    view! {
        <label class="switch">
            <span>"Revert automatically unless confirmed within " <b>{format!("{} s", KEEP_WITHIN_MS / 1_000)}</b></span>
            <input
                type="checkbox"
                role="switch"
                data-testid="keep-switch"
                prop:checked={keep}
                on:change=move |event| keep.set(event_target_checked(&event))
            />
        </label>
    }
    .into_any()
}

/// The same from a terminal.
pub fn terminal(plan: &Plan, keep: RwSignal<bool>) -> AnyView {
    let store = use_store();
    let tab = RwSignal::new(0_usize);
    let keep_within = move || keep.get().then_some(KEEP_WITHIN_MS);
    let (for_cli, for_curl) = (plan.clone(), plan.clone());
    let texts: [(&str, Signal<String>); 2] = [
        ("CLI", text(move || cli(&for_cli, keep_within()))),
        ("curl", text(move || curl(&for_curl, &store.api.base(), keep_within()))),
    ];
    let choose = |index: usize| {
        let label = texts[index].0;
        view! {
            <button
                type="button"
                role="tab"
                aria-selected=text(move || (tab.get() == index).to_string())
                data-testid=format!("{}-tab", label.to_ascii_lowercase())
                on:click=click(move || tab.set(index))
            >
                {label}
            </button>
        }
        .into_any()
    };
    view! {
        <div class="terminal">
            <div class="tabs" role="tablist" aria-label="The same from a terminal">{choose(0)} {choose(1)}</div>
            <div role="tabpanel">
                {live(move || {
                    let (label, text) = texts[tab.get()];
                    copyable(text, label)
                })}
            </div>
        </div>
    }
    .into_any()
}
