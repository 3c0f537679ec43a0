//! Demo chaos: real signals to real processes. Only a demo cluster offers it, and it looks apart
//! from everything else, because nothing of it goes through a plan.
//!
//! Test ids: `chaos`, `chaos-<kill|pause|resume|restart>-<id>`, `chaos-add-node`, `chaos-result`.

use crate::{api::ApiError, components::marks::badge, format::capitalised, store::use_store};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{
    demo::{Chaos, DemoNode, ProcessState},
    id::NodeId,
};

/// Chaos for all nodes, or for one.
#[component]
pub fn ChaosPanel(#[prop(optional)] only: Option<NodeId>) -> impl IntoView {
    let store = use_store();
    let said = RwSignal::new(String::new());
    let busy = RwSignal::new(false);
    let ids = move || match only {
        Some(id) => vec![id],
        None => store.node_ids.get(),
    };
    let tell = move |what: String, answer: Result<DemoNode, ApiError>| {
        busy.set(false);
        said.set(match answer {
            Ok(node) => format!("{what}: its process {}.", state(&node)),
            Err(error) => format!("{what}: refused. {}", capitalised(&error.to_string())),
        });
    };
    let inflict = move |id: NodeId, chaos: Chaos| {
        busy.set(true);
        said.set(format!("{} node {id}…", capitalised(chaos.as_str())));
        spawn_local(async move {
            let answer = store.api.chaos(id, chaos).await;
            tell(format!("{} node {id}", capitalised(chaos.as_str())), answer);
        });
    };
    let add = move |_| {
        busy.set(true);
        said.set("Starting a node…".to_owned());
        spawn_local(async move {
            let answer = store.api.add_demo_node().await;
            let what = answer
                .as_ref()
                .map_or("Add a node".to_owned(), |node| format!("Node {} is started", node.node));
            tell(what, answer);
        });
    };
    view! {
        <Show when=move || store.demo.get()>
            <section class="card chaos" data-testid="chaos" aria-labelledby="chaos-title">
                <h3 id="chaos-title">
                    "Demo chaos" <span class="quiet">"real signals to real processes, at once and without a plan"</span>
                </h3>
                <div class="chaos-rows">
                    <For each=ids key=|id| *id let(id)>
                        <div class="chaos-row" role="group" aria-label=format!("Chaos for node {id}")>
                            {badge(id)}
                            {Chaos::ALL
                                .iter()
                                .map(|chaos| {
                                    let chaos = *chaos;
                                    view! {
                                        <button
                                            type="button"
                                            class="small"
                                            title=explain(chaos)
                                            aria-label=format!("{} node {id}", capitalised(chaos.as_str()))
                                            data-testid=format!("chaos-{}-{id}", chaos.as_str())
                                            disabled=move || busy.get()
                                            on:click=move |_| inflict(id, chaos)
                                        >
                                            {capitalised(chaos.as_str())}
                                        </button>
                                    }
                                })
                                .collect_view()}
                        </div>
                    </For>
                </div>
                {only
                    .is_none()
                    .then(|| {
                        view! {
                            <button type="button" class="small" data-testid="chaos-add-node" disabled=move || busy.get() on:click=add>
                                "Add a node"
                            </button>
                        }
                    })}
                <p class="quiet" role="status" data-testid="chaos-result">{said}</p>
            </section>
        </Show>
    }
}

fn explain(chaos: Chaos) -> &'static str {
    match chaos {
        Chaos::Kill => "SIGKILL: the process is gone at once",
        Chaos::Pause => "SIGSTOP: the process stands still, its connections stay open",
        Chaos::Resume => "SIGCONT: a paused process goes on",
        Chaos::Restart => "Starts the process again; kills it first where it runs",
    }
}

fn state(node: &DemoNode) -> String {
    match (node.state, node.pid) {
        (ProcessState::Running, Some(pid)) => format!("runs as {pid}"),
        (ProcessState::Running, None) => "runs".to_owned(),
        (ProcessState::Paused, _) => "is paused".to_owned(),
        (ProcessState::Exited, _) => "has exited".to_owned(),
    }
}
