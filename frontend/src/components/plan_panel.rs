//! The plan panel: the plan that is open in the drawer.
//!
//! The page's address names it (`?plan=814`), so that it can be shared, survives a
//! reload, and the browser's back button closes it. Every action of every page goes through
//! [`PlanPanel::propose`]; nothing else changes anything in the cluster.

use crate::{
    address::{Address, use_address},
    api::ApiError,
    store::{Store, use_store},
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{
    action::Action,
    id::{NodeId, OperationId, PlanId},
    operation::Operation,
    plan::Plan,
};
use std::pin::Pin;

/// The content of the drawer.
#[derive(Clone, Debug)]
pub enum PanelContent {
    Nothing,
    /// The server computes the plan.
    Planning(Action),
    /// A plan that the address names is being fetched.
    Fetching(PlanId),
    /// The request for the plan failed. It can be repeated.
    Failed(PlanTarget, ApiError),
    Plan(Box<Plan>),
}

#[derive(Clone, Debug)]
pub enum PlanTarget {
    Action(Action),
    Plan(PlanId),
}

#[derive(Clone, Copy, Debug)]
pub struct PlanPanel {
    store: Store,
    address: Address,
    pub shown: RwSignal<PanelContent>,
    /// The operation that was started here, until the stream brings it.
    pub started: RwSignal<Option<Operation>>,
    /// The refusal of the last request about the plan.
    pub refused: RwSignal<Option<ApiError>>,
    /// A request is on its way.
    pub busy: RwSignal<bool>,
}

impl PlanPanel {
    pub fn new() -> Self {
        let panel = PlanPanel {
            store: use_store(),
            address: use_address(),
            shown: RwSignal::new(PanelContent::Nothing),
            started: RwSignal::new(None),
            refused: RwSignal::new(None),
            busy: RwSignal::new(false),
        };
        panel.follow_address();
        panel
    }

    /// Opens the plan that the address names, and closes it when the address no longer does.
    fn follow_address(self) {
        Effect::new(move |_| {
            let named: Option<PlanId> = self.address.parameter("plan").and_then(|id| id.parse().ok());
            let open = self.shown.with_untracked(|shown| match shown {
                PanelContent::Plan(plan) => Some(plan.id),
                PanelContent::Fetching(id) | PanelContent::Failed(PlanTarget::Plan(id), _) => Some(*id),
                _ => None,
            });
            match named {
                Some(id) if open != Some(id) => self.fetch(id),
                None if open.is_some() => self.clear(PanelContent::Nothing),
                _ => {}
            }
        });
    }

    fn clear(self, shown: PanelContent) {
        self.started.set(None);
        self.refused.set(None);
        self.busy.set(false);
        self.shown.set(shown);
    }

    /// Requests a plan and opens it.
    pub fn propose(self, action: Action) {
        self.clear(PanelContent::Planning(action.clone()));
        spawn_local(async move {
            let answer = self.store.api.propose(action.clone()).await;
            // The panel may have been closed or used for another plan in the meantime.
            let wanted = self
                .shown
                .with_untracked(|shown| matches!(shown, PanelContent::Planning(wanted) if *wanted == action));
            match answer {
                _ if !wanted => {}
                Ok(plan) => {
                    let id = plan.id.to_string();
                    self.shown.set(PanelContent::Plan(Box::new(plan)));
                    self.address.set_parameter("plan", Some(&id), false);
                }
                Err(error) => self.shown.set(PanelContent::Failed(PlanTarget::Action(action), error)),
            }
        });
    }

    pub fn transfer_leadership(self, to: NodeId) {
        self.propose(Action::TransferLeadership { group: ringmaster_common::id::GroupId::CLUSTER, to });
    }

    pub fn undo(self, operation: OperationId) {
        self.propose(Action::Undo { operation });
    }

    fn fetch(self, id: PlanId) {
        self.clear(PanelContent::Fetching(id));
        spawn_local(async move {
            let answer = self.store.api.plan(id).await;
            let wanted = self
                .shown
                .with_untracked(|shown| matches!(shown, PanelContent::Fetching(wanted) if *wanted == id));
            match answer {
                _ if !wanted => {}
                Ok(plan) => {
                    self.fetch_operation(plan.operation);
                    self.shown.set(PanelContent::Plan(Box::new(plan)));
                }
                Err(error) => self.shown.set(PanelContent::Failed(PlanTarget::Plan(id), error)),
            }
        });
    }

    /// An operation that is older than those in the view has to be asked for.
    fn fetch_operation(self, id: Option<OperationId>) {
        let Some(id) = id.filter(|id| untrack(|| self.store.operation(*id)).is_none()) else { return };
        spawn_local(async move {
            match self.store.api.operation(id).await {
                Ok(operation) => self.started.set(Some(operation)),
                Err(error) => self.refused.set(Some(error)),
            }
        });
    }

    pub fn retry(self, wanted: PlanTarget) {
        match wanted {
            PlanTarget::Action(action) => self.propose(action),
            PlanTarget::Plan(id) => self.fetch(id),
        }
    }

    pub fn close(self) {
        self.clear(PanelContent::Nothing);
        self.address.set_parameter("plan", None, false);
    }

    /// The operation that runs or ran the plan in the panel.
    pub fn operation(self) -> Option<Operation> {
        let known = self.shown.with(|shown| match shown {
            PanelContent::Plan(plan) => plan.operation,
            _ => None,
        });
        let started = self.started.get();
        let id = known.or_else(|| started.as_ref().map(|operation| operation.id))?;
        let streamed = self.store.operation(id);
        // Whichever is newer: the answer may overtake the stream.
        match (streamed, started.filter(|operation| operation.id == id)) {
            (Some(streamed), Some(started)) if started.revision > streamed.revision => Some(started),
            (streamed, started) => streamed.or(started),
        }
    }

    pub fn apply(self, plan: PlanId, keep_within_ms: Option<u64>) {
        self.request(async move { self.store.api.apply(plan, keep_within_ms).await });
    }

    pub fn abort(self, operation: OperationId) {
        self.request(async move { self.store.api.abort(operation).await });
    }

    pub fn keep(self, operation: OperationId) {
        self.request(async move { self.store.api.keep(operation).await });
    }

    fn request(self, answer: impl Future<Output = Result<Operation, ApiError>> + 'static) {
        let answer: Pin<Box<dyn Future<Output = Result<Operation, ApiError>>>> = Box::pin(answer);
        self.busy.set(true);
        self.refused.set(None);
        spawn_local(async move {
            match answer.await {
                Ok(operation) => {
                    self.shown.update(|shown| match shown {
                        PanelContent::Plan(plan) if plan.id == operation.plan => {
                            plan.operation = Some(operation.id)
                        }
                        _ => {}
                    });
                    self.started.set(Some(operation));
                }
                Err(error) => self.refused.set(Some(error)),
            }
            self.busy.set(false);
        });
    }
}

pub fn use_plan_panel() -> PlanPanel {
    expect_context::<PlanPanel>()
}
