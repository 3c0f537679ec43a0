//! Chaos actions: real signals to real processes. Only a demo cluster offers them, and they look different from
//! everything else, because they do not go through a plan.
//!
//! Test ids: `chaos`, `chaos-<kill|pause|resume|restart>-<id>`, `chaos-add-node`, `chaos-result`.

use crate::{
    api::ApiError,
    components::{
        icons::badge,
        live::{click, each, when},
    },
    format::capitalised,
    store::{Store, use_store},
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{
    demo::{Chaos, DemoNode, ProcessState},
    id::NodeId,
};
use std::pin::Pin;

/// The latest chaos action and its result. One for the page, so that the commands of the palette report in the
/// same place as the buttons.
#[derive(Clone, Copy, Debug)]
pub struct ChaosAction {
    store: Store,
    said: RwSignal<String>,
    busy: RwSignal<bool>,
}

impl ChaosAction {
    pub fn new() -> Self {
        ChaosAction { store: use_store(), said: RwSignal::new(String::new()), busy: RwSignal::new(false) }
    }

    pub fn run(self, chaos: Chaos, id: NodeId) {
        let what = format!("{} node {id}", capitalised(chaos.as_str()));
        let through = self.store.address_besides(id);
        self.request(what, async move { self.store.api.chaos(through, id, chaos).await });
    }

    pub fn add_node(self) {
        self.request("Add a node".to_owned(), async move { self.store.api.add_demo_node().await });
    }

    fn request(self, what: String, answer: impl Future<Output = Result<DemoNode, ApiError>> + 'static) {
        let answer: Pin<Box<dyn Future<Output = Result<DemoNode, ApiError>>>> = Box::pin(answer);
        self.busy.set(true);
        self.said.set(format!("{what}…"));
        spawn_local(async move {
            self.said.set(match answer.await {
                Ok(node) => format!("{what}: the process of node {} {}.", node.node, state(&node)),
                Err(error) => match error {
                    ApiError::Refused(_) => format!("{what}: refused. {}", capitalised(&error.to_string())),
                    _ => format!("{what}: no answer. {}", capitalised(&error.to_string())),
                },
            });
            self.busy.set(false);
        });
    }
}

/// Chaos for all nodes, or for one.
pub fn chaos_panel(only: Option<NodeId>) -> AnyView {
    let store = use_store();
    let ids = Memo::new(move |_| only.map_or_else(|| store.node_ids.get(), |id| vec![id]));
    when(move || store.demo.get(), move || panel(ids, only.is_none())).into_any()
}

fn panel(ids: Memo<Vec<NodeId>>, can_add: bool) -> AnyView {
    let action = expect_context::<ChaosAction>();
    let busy = action.busy;
    let button = move |chaos: Chaos, id: NodeId| {
        view! {
            <button
                type="button"
                class="small"
                title=explain(chaos)
                aria-label=format!("{} node {id}", capitalised(chaos.as_str()))
                data-testid=format!("chaos-{}-{id}", chaos.as_str())
                disabled=busy
                on:click=click(move || action.run(chaos, id))
            >
                {capitalised(chaos.as_str())}
            </button>
        }
        .into_any()
    };
    let row = move |id: NodeId| {
        let buttons: Vec<AnyView> = Chaos::ALL.iter().map(|chaos| button(*chaos, id)).collect();
        view! {
            <div class="chaos-row" role="group" aria-label=format!("Chaos for node {id}")>{badge(id)} {buttons}</div>
        }
        .into_any()
    };
    let add = can_add.then(|| {
        view! {
            <button
                type="button"
                class="small"
                title="Starts another node process, which joins the cluster"
                data-testid="chaos-add-node"
                disabled=busy
                on:click=click(move || action.add_node())
            >
                "Add a node"
            </button>
        }
        .into_any()
    });
    view! {
        <section class="card chaos" data-testid="chaos" aria-labelledby="chaos-title">
            <h2 id="chaos-title">
                "Demo chaos" <span class="quiet">"real signals to real processes, at once and without a plan"</span>
            </h2>
            <div class="chaos-rows">{each(ids, |id| *id, row)}</div>
            {add}
            <p class="quiet" role="status" data-testid="chaos-result">{action.said}</p>
        </section>
    }
    .into_any()
}

fn explain(chaos: Chaos) -> &'static str {
    match chaos {
        Chaos::Kill => "SIGKILL: the process is gone at once",
        Chaos::Pause => "SIGSTOP: the process is stopped, its connections stay open",
        Chaos::Resume => "SIGCONT: a paused process continues",
        Chaos::Restart => "Starts the process again; kills it first where it runs",
    }
}

fn state(node: &DemoNode) -> String {
    match (node.state, node.pid) {
        (ProcessState::Running, Some(pid)) => format!("runs (pid {pid})"),
        (ProcessState::Running, None) => "runs".to_owned(),
        (ProcessState::Paused, _) => "is paused".to_owned(),
        (ProcessState::Exited, _) => "has exited".to_owned(),
    }
}
