//! Who sees whom, as a square: a row for each observer, a column for each subject.
//!
//! Test ids: `matrix`, `sees-<observer>-<subject>`.

use crate::{
    components::{
        live::{each, follow, live, memo, words},
        marks::{badge, sign},
        text::{callout, prose, quantity},
    },
    format::{duration, micros},
    situation::Tone,
    store::use_store,
    who_sees_whom::{Cell, cell, one_way_faults},
};
use leptos::prelude::*;
use ringmaster_common::{cluster::Sees, id::NodeId};

pub fn matrix() -> AnyView {
    let store = use_store();
    let ids = follow::<Vec<NodeId>>(store.node_ids);
    let faults = memo(move || {
        store.sample.with(|sample| {
            let faults = sample.as_ref().map(|sample| store.with_view(|view| one_way_faults(view, sample)));
            faults.unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>()
        })
    });
    let fault = |text: String| callout(Tone::Warning, prose(&format!("{text}: the link is cut one way.")));
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
                {each(ids, |id| (id.0, 0), move |subject| matrix_cell(observer, subject))}
            </tr>
        }
        .into_any()
    };
    view! {
        <div class="matrix-scroll">
            <table class="matrix" data-testid="matrix">
                <caption class="visually-hidden">"Who sees whom, with round-trip times"</caption>
                <thead>
                    <tr>
                        <td class="corner">"sees"</td>
                        {each(ids, |id| (id.0, 0), head("col"))}
                    </tr>
                </thead>
                <tbody>{each(ids, |id| (id.0, 0), row)}</tbody>
            </table>
        </div>
        {live(move || faults.get().into_iter().map(fault).collect_view())}
        <p class="quiet">
            "Each row is what one node sees: a round-trip time where it hears the other. A dashed cell is what a node said before it fell silent itself."
        </p>
    }
    .into_any()
}

fn tone(sees: Sees) -> Tone {
    match sees {
        Sees::Alive => Tone::Good,
        Sees::Suspect => Tone::Warning,
        Sees::Dead => Tone::Bad,
    }
}

fn matrix_cell(observer: NodeId, subject: NodeId) -> AnyView {
    let store = use_store();
    let value = memo(move || {
        store.sample.with(|sample| store.with_view(|view| cell(view, sample.as_ref(), observer, subject)))
    });
    let class = words(move || {
        let shade = value.get().sees().map_or("", |sees| tone(sees).class());
        match value.get() {
            Cell::Itself => "itself".to_owned(),
            Cell::Remembered(_) => format!("{shade} remembered"),
            _ => shade.to_owned(),
        }
    });
    let title = words(move || match value.get() {
        Cell::Itself => format!("Node {observer} itself"),
        Cell::Nothing => format!("Node {observer} has said nothing of node {subject}"),
        Cell::Remembered(sees) => {
            format!("Before it fell silent, node {observer} saw node {subject} {}", sees.as_str())
        }
        Cell::Measured { sees, silent_ms, .. } => {
            let heard = silent_ms.map(|ms| format!(", heard {} ago", duration(ms))).unwrap_or_default();
            format!("Node {observer} sees node {subject} {}{heard}", sees.as_str())
        }
    });
    let content = live(move || match value.get() {
        Cell::Itself => ().into_any(),
        Cell::Nothing => quantity(None),
        Cell::Measured { sees: Sees::Alive, rtt_us: Some(rtt_us), .. } => quantity(Some(micros(rtt_us))),
        Cell::Measured { sees, .. } | Cell::Remembered(sees) => {
            view! { {sign(tone(sees))} <span>{sees.as_str()}</span> }.into_any()
        }
    });
    view! {
        <td class=class title=title data-testid=format!("sees-{observer}-{subject}")>
            <span class="cell">{content}</span>
        </td>
    }
    .into_any()
}
