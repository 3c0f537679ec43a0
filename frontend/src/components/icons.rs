//! Marks: a node's badge, and the sign of a tone.
//!
//! No meaning is carried by colour alone. A node has a colour, a shape and its number; a tone has a
//! colour and a shape, and always stands beside a word.

use crate::{
    components::live::{Live, live},
    format::split_name,
    leadership::ShownRole,
    store::NodeSignals,
    tone::Tone,
};
use leptos::prelude::*;
use ringmaster_common::{cluster::NodeStatus, id::NodeId};

/// The number of colours and shapes. Later nodes reuse them; the id distinguishes these nodes.
const KINDS: u64 = 7;

/// Outlines in a box of 20 by 20, each wide enough in the middle for a number.
const SHAPES: [&str; KINDS as usize] = [
    "M10 .5a9.5 9.5 0 1 1 0 19a9.5 9.5 0 0 1 0-19z",
    "M4 1h12a3 3 0 0 1 3 3v12a3 3 0 0 1-3 3h-12a3 3 0 0 1-3-3v-12a3 3 0 0 1 3-3z",
    "M10 0L20 10L10 20L0 10z",
    "M5.2 1.2h9.6L19.8 10L14.8 18.8H5.2L.2 10z",
    "M10 .3L19.6 7.4L16 18.8H4L.4 7.4z",
    "M1.5 1.5h17v8.5c0 4.5-3.4 7.6-8.5 9.6C4.9 17.6 1.5 14.5 1.5 10z",
    "M10 .8h9.2v9.2a9.2 9.2 0 1 1-9.2-9.2z",
];

/// The node's own mark, the same on every page.
pub fn badge(id: NodeId) -> AnyView {
    let kind = (id.0.max(1) - 1) % KINDS;
    let size = if id.0 > 99 { "7.5" } else { "11" };
    view! {
        <svg class=format!("badge n{}", kind + 1) viewBox="0 0 20 20" aria-hidden="true">
            <path d=SHAPES[kind as usize] />
            <text x="10" y="10.5" text-anchor="middle" dominant-baseline="central" font-size=size>
                {id.to_string()}
            </text>
        </svg>
    }
    .into_any()
}

/// A name that is cut in the middle where it does not fit.
pub fn name_text(name: &str) -> AnyView {
    let (head, tail) = split_name(name);
    view! {
        <span class="name" title=name.to_owned()>
            <span class="name-head">{head.to_owned()}</span>
            <span class="name-tail">{tail.to_owned()}</span>
        </span>
    }
    .into_any()
}

/// Badge and name of a node, leading to its page.
pub fn node_link(id: NodeId, node: NodeSignals) -> AnyView {
    view! {
        <a class="node-link" href=format!("/nodes/{id}")>
            {badge(id)}
            <span class="visually-hidden">{format!("node {id} ")}</span>
            {live(move || node.facts.with(|node| name_text(&node.name)))}
        </a>
    }
    .into_any()
}

/// The sign of a tone.
pub fn sign(tone: Tone) -> AnyView {
    let path = match tone {
        Tone::Good => "M8 1a7 7 0 1 1 0 14a7 7 0 0 1 0-14zM4.6 8.2l2.4 2.4l4.4-4.8",
        Tone::Note => "M8 1a7 7 0 1 1 0 14a7 7 0 0 1 0-14zM8 7.3v4M8 4.7v.2",
        Tone::Warning => "M8 1.5L15.3 14.5H.7zM8 6v4M8 12.2v.2",
        Tone::Bad => "M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1zM5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8",
        Tone::Unknown => {
            "M8 1a7 7 0 1 1 0 14a7 7 0 0 1 0-14zM6 6.3c0-2.8 4.1-2.6 4.1-.2c0 1.6-2.1 1.5-2.1 3M8 11.7v.2"
        }
    };
    view! {
        <svg class=format!("sign {}", tone.class()) viewBox="0 0 16 16" aria-hidden="true">
            <path d=path />
        </svg>
    }
    .into_any()
}

/// A node's status as the log has it. A node that is up in the log without a recent report is shown as silent.
pub fn live_status(node: NodeSignals) -> Live {
    live(move || {
        let status = node.facts.with(|node| node.status);
        if status == NodeStatus::Up && !node.is_up() {
            labelled(Tone::Unknown, "silent")
        } else {
            labelled(status_tone(status), status.as_str())
        }
    })
}

fn status_tone(status: NodeStatus) -> Tone {
    match status {
        NodeStatus::Up => Tone::Good,
        NodeStatus::Suspect => Tone::Warning,
        NodeStatus::Down => Tone::Bad,
        NodeStatus::Joining | NodeStatus::Draining | NodeStatus::Drained | NodeStatus::Left => Tone::Note,
    }
}

/// A sign and its word.
pub fn labelled(tone: Tone, word: &str) -> AnyView {
    view! {
        <span class=format!("labelled {}", tone.class())>{sign(tone)}<span>{word.to_owned()}</span></span>
    }
    .into_any()
}

pub fn role_chip(role: ShownRole) -> AnyView {
    let (class, word, title) = match role {
        ShownRole::Leader => ("chip lead", "leader".to_owned(), ""),
        ShownRole::Candidate => ("chip", "candidate".to_owned(), ""),
        ShownRole::Follower => ("chip", "follower".to_owned(), ""),
        ShownRole::Learner => ("chip", "learner".to_owned(), ""),
        ShownRole::FormerLeader(term) => {
            let title = "By its last report, which may be older than the present leader";
            ("chip silent", format!("led term {term}"), title)
        }
        ShownRole::WithoutQuorum(_) => {
            let title = "It reports to be the leader, but too few voters answer it, so it cannot commit";
            ("chip silent", "no quorum".to_owned(), title)
        }
        ShownRole::NotReporting => ("chip silent", "not reporting".to_owned(), ""),
    };
    view! { <span class=class title=title>{word}</span> }.into_any()
}

/// The arcs of the product's name.
pub fn logo() -> AnyView {
    view! {
        <svg class="logo-mark" viewBox="0 0 22 22" aria-hidden="true">
            <path class="lead" d="M11 2.6a8.4 8.4 0 0 1 7.3 4.2" />
            <path d="M19.3 9.6A8.4 8.4 0 0 1 13.6 19" />
            <path d="M10.6 19.4A8.4 8.4 0 0 1 8 3.2" />
        </svg>
    }
    .into_any()
}
