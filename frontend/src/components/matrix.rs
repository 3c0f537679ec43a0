//! Who sees whom, as a square: a row for each observer, a column for each subject.
//!
//! Test ids: `matrix`, `sees-<observer>-<subject>`.

use crate::{
    components::{
        marks::{badge, sign},
        text::{prose, quantity},
    },
    format::{duration, micros},
    situation::Tone,
    store::use_store,
    who_sees_whom::{Cell, cell, one_way_faults},
};
use leptos::prelude::*;
use ringmaster_common::{cluster::Sees, id::NodeId};

#[component]
pub fn Matrix() -> impl IntoView {
    let store = use_store();
    let ids = move || store.node_ids.get();
    let faults = Memo::new(move |_| {
        store.sample.with(|sample| {
            let sample = sample.as_ref()?;
            let faults = store.with_view(|view| one_way_faults(view, sample));
            Some(faults.iter().map(ToString::to_string).collect::<Vec<_>>())
        })
    });
    view! {
        <div class="matrix-scroll">
            <table class="matrix" data-testid="matrix">
                <caption class="visually-hidden">"Who sees whom, with round-trip times"</caption>
                <thead>
                    <tr>
                        <td class="corner">"sees"</td>
                        <For each=ids key=|id| *id let(id)>
                            <th scope="col">{badge(id)}<span class="visually-hidden">{format!("node {id}")}</span></th>
                        </For>
                    </tr>
                </thead>
                <tbody>
                    <For each=ids key=|id| *id let(observer)>
                        <tr>
                            <th scope="row">
                                {badge(observer)}<span class="visually-hidden">{format!("node {observer}")}</span>
                            </th>
                            <For each=ids key=|id| *id let(subject)>
                                <MatrixCell observer subject />
                            </For>
                        </tr>
                    </For>
                </tbody>
            </table>
        </div>
        {move || {
            faults
                .get()
                .filter(|faults| !faults.is_empty())
                .map(|faults| {
                    faults
                        .into_iter()
                        .map(|fault| {
                            view! {
                                <p class="callout warning">
                                    {sign(Tone::Warning)} <span>{prose(&format!("{fault}: the link is cut one way."))}</span>
                                </p>
                            }
                        })
                        .collect_view()
                })
        }}
        <p class="quiet">
            "Each row is what one node sees: a round-trip time where it hears the other. A dashed cell is what a node said before it fell silent itself."
        </p>
    }
}

#[component]
fn MatrixCell(observer: NodeId, subject: NodeId) -> impl IntoView {
    let store = use_store();
    let value = Memo::new(move |_| {
        store.sample.with(|sample| store.with_view(|view| cell(view, sample.as_ref(), observer, subject)))
    });
    let class = move || {
        let cell = value.get();
        let tone = match cell.sees() {
            Some(Sees::Alive) => "good",
            Some(Sees::Suspect) => "warning",
            Some(Sees::Dead) => "bad",
            None => "",
        };
        match cell {
            Cell::Itself => "itself".to_owned(),
            Cell::Remembered(_) => format!("{tone} remembered"),
            _ => tone.to_owned(),
        }
    };
    let title = move || match value.get() {
        Cell::Itself => format!("Node {observer} itself"),
        Cell::Nothing => format!("Node {observer} has said nothing of node {subject}"),
        Cell::Remembered(sees) => {
            format!("Before it fell silent, node {observer} saw node {subject} {}", sees.as_str())
        }
        Cell::Measured { sees, silent_ms, .. } => {
            let heard = silent_ms.map(|ms| format!(", heard {} ago", duration(ms))).unwrap_or_default();
            format!("Node {observer} sees node {subject} {}{heard}", sees.as_str())
        }
    };
    let content = move || match value.get() {
        Cell::Itself => ().into_any(),
        Cell::Nothing => quantity(None),
        Cell::Measured { sees: Sees::Alive, rtt_us: Some(rtt_us), .. } => quantity(Some(micros(rtt_us))),
        Cell::Measured { sees, .. } | Cell::Remembered(sees) => {
            let tone = match sees {
                Sees::Alive => Tone::Good,
                Sees::Suspect => Tone::Warning,
                Sees::Dead => Tone::Bad,
            };
            view! { {sign(tone)} <span>{sees.as_str()}</span> }.into_any()
        }
    };
    view! {
        <td class=class title=title data-testid=format!("sees-{observer}-{subject}")>
            <span class="cell">{content}</span>
        </td>
    }
}
