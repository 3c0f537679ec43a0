//! Reachability as a matrix: a row for each observer, a column for each subject.
//!
//! Test ids: `matrix`, `sees-<observer>-<subject>`.

use crate::{
    components::{
        icons::{badge, sign},
        live::{each, live, text},
        text::{callout, linkify, quantity},
    },
    format::{capitalised, duration, micros},
    reachability::{Cell, cell},
    store::use_store,
    tone::Tone,
};
use leptos::prelude::*;
use ringmaster_common::{
    cluster::Liveness,
    id::NodeId,
    telemetry::{Link, one_way_faults},
};

pub fn matrix() -> AnyView {
    let store = use_store();
    let ids = store.node_ids;
    let faults = Memo::new(move |_| {
        store.sample.with(|sample| {
            let faults = sample.as_ref().map(|sample| one_way_faults(&sample.nodes));
            faults.unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>()
        })
    });
    let fault = |text: String| callout(Tone::Warning, linkify(&format!("{}.", capitalised(&text))));
    let head = |scope: &'static str| {
        move |id: NodeId| {
            view! { <th scope=scope>{badge(id)} <span class="visually-hidden">{format!("node {id}")}</span></th> }
                .into_any()
        }
    };
    let row = move |observer: NodeId| {
        view! {
            <tr>
                {head("row")(observer)}
                {each(ids, |id| *id, move |subject| matrix_cell(observer, subject))}
            </tr>
        }
        .into_any()
    };
    view! {
        <div class="matrix-scroll">
            <table class="matrix" data-testid="matrix">
                <caption class="visually-hidden">"Reachability, with round-trip times"</caption>
                <thead>
                    <tr>
                        <td class="corner">"sees"</td>
                        {each(ids, |id| *id, head("col"))}
                    </tr>
                </thead>
                <tbody>{each(ids, |id| *id, row)}</tbody>
            </table>
        </div>
        {live(move || faults.get().into_iter().map(fault).collect_view())}
        <p class="quiet">
            "Each row is the observation of one node: the round-trip time to a peer that it reaches. Dashed: the last report of a node before it stopped reporting."
        </p>
    }
    .into_any()
}

/// A peer that is heard but cannot be reached is a problem.
fn tone(sees: Liveness, in_trouble: bool) -> Tone {
    match sees {
        Liveness::Alive if !in_trouble => Tone::Good,
        Liveness::Alive | Liveness::Suspect => Tone::Warning,
        Liveness::Dead => Tone::Bad,
    }
}

fn seen(sees: Liveness, in_trouble: bool) -> AnyView {
    view! { {sign(tone(sees, in_trouble))} <span>{sees.as_str()}</span> }.into_any()
}

fn matrix_cell(observer: NodeId, subject: NodeId) -> AnyView {
    let store = use_store();
    let value = Memo::new(move |_| {
        store.sample.with(|sample| store.with_view(|view| cell(view, sample.as_ref(), observer, subject)))
    });
    let class = text(move || {
        let value = value.get();
        let shade = value.sees().map_or("", |sees| tone(sees, value.trouble().is_some()).class());
        match value {
            Cell::Itself => "itself".to_owned(),
            Cell::Remembered(_) => format!("{shade} remembered"),
            _ => shade.to_owned(),
        }
    });
    let title = text(move || match value.get() {
        Cell::Itself => format!("Node {observer} itself"),
        Cell::Nothing => format!("Node {observer} has not reported on node {subject}"),
        Cell::Remembered(sees) => {
            format!("In its last report, node {observer} saw node {subject} {}", sees.as_str())
        }
        Cell::Measured(link) => {
            let heard = link.silent_ms.map(|ms| format!(", heard {} ago", duration(ms))).unwrap_or_default();
            let trouble = link.trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
            format!("Node {observer} sees node {subject} {}{heard}{trouble}", link.sees.as_str())
        }
    });
    let content = live(move || match value.get() {
        Cell::Itself => ().into_any(),
        Cell::Nothing => quantity(None),
        Cell::Measured(Link { sees: Liveness::Alive, rtt_us: Some(rtt_us), trouble: None, .. }) => {
            quantity(Some(micros(rtt_us)))
        }
        Cell::Measured(Link { sees, trouble, .. }) => seen(sees, trouble.is_some()),
        Cell::Remembered(sees) => seen(sees, false),
    });
    view! {
        <td class=class title=title data-testid=format!("sees-{observer}-{subject}")>
            <span class="cell">{content}</span>
        </td>
    }
    .into_any()
}
