//! The desk: the plan that lies open in the drawer.
//!
//! The page's address names it (`?plan=814`), so that it can be sent to somebody else, survives a
//! reload, and the browser's back button closes it. Every action of every page goes through
//! [`Desk::propose`]; nothing else changes anything in the cluster.

use crate::{
    address::{Address, use_address},
    api::ApiError,
    components::live::effect,
    store::{Store, use_store},
    var::Var,
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{
    action::Action,
    id::{NodeId, OperationId, PlanId},
    operation::Operation,
    plan::Plan,
};
use std::pin::Pin;

/// What the drawer shows.
#[derive(Clone, Debug)]
pub enum Shown {
    Nothing,
    /// The server computes the plan.
    Planning(Action),
    /// A plan that the address names is being fetched.
    Fetching(PlanId),
    /// There is no plan, and this is why. What was wanted can be tried again.
    Failed(Wanted, ApiError),
    Plan(Box<Plan>),
}

#[derive(Clone, Debug)]
pub enum Wanted {
    Action(Action),
    Plan(PlanId),
}

#[derive(Clone, Copy, Debug)]
pub struct Desk {
    store: Store,
    address: Address,
    pub shown: Var<Shown>,
    /// The operation that was started here, until the stream brings it.
    pub started: Var<Option<Operation>>,
    /// Why the last request about the plan on the desk was refused.
    pub refused: Var<Option<ApiError>>,
    /// A request is on its way.
    pub busy: Var<bool>,
}

impl Desk {
    pub fn new() -> Self {
        let desk = Desk {
            store: use_store(),
            address: use_address(),
            shown: Var::new(Shown::Nothing),
            started: Var::new(None),
            refused: Var::new(None),
            busy: Var::new(false),
        };
        desk.follow_address();
        desk
    }

    /// Opens what the address names, and closes what it no longer does.
    fn follow_address(self) {
        effect(move || {
            let named: Option<PlanId> = self.address.parameter("plan").and_then(|id| id.parse().ok());
            let open = self.shown.with_untracked(|shown| match shown {
                Shown::Plan(plan) => Some(plan.id),
                Shown::Fetching(id) | Shown::Failed(Wanted::Plan(id), _) => Some(*id),
                _ => None,
            });
            match named {
                Some(id) if open != Some(id) => self.fetch(id),
                None if open.is_some() => self.clear(Shown::Nothing),
                _ => {}
            }
        });
    }

    fn clear(self, shown: Shown) {
        self.started.set(None);
        self.refused.set(None);
        self.busy.set(false);
        self.shown.set(shown);
    }

    /// Asks for a plan and lays it open.
    pub fn propose(self, action: Action) {
        self.clear(Shown::Planning(action.clone()));
        spawn_local(async move {
            let answer = self.store.api.propose(action.clone()).await;
            // Closed in the meantime, or asked for something else: that is what counts.
            let wanted = self
                .shown
                .with_untracked(|shown| matches!(shown, Shown::Planning(wanted) if *wanted == action));
            match answer {
                _ if !wanted => {}
                Ok(plan) => {
                    let id = plan.id.to_string();
                    self.shown.set(Shown::Plan(Box::new(plan)));
                    self.address.set_parameter("plan", Some(&id), false);
                }
                Err(error) => self.shown.set(Shown::Failed(Wanted::Action(action), error)),
            }
        });
    }

    pub fn hand_over(self, to: NodeId) {
        self.propose(Action::TransferLeadership { group: ringmaster_common::id::GroupId::CLUSTER, to });
    }

    pub fn undo(self, operation: OperationId) {
        self.propose(Action::Undo { operation });
    }

    fn fetch(self, id: PlanId) {
        self.clear(Shown::Fetching(id));
        spawn_local(async move {
            let answer = self.store.api.plan(id).await;
            let wanted =
                self.shown.with_untracked(|shown| matches!(shown, Shown::Fetching(wanted) if *wanted == id));
            match answer {
                _ if !wanted => {}
                Ok(plan) => {
                    self.fetch_operation(plan.operation);
                    self.shown.set(Shown::Plan(Box::new(plan)));
                }
                Err(error) => self.shown.set(Shown::Failed(Wanted::Plan(id), error)),
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

    pub fn retry(self, wanted: Wanted) {
        match wanted {
            Wanted::Action(action) => self.propose(action),
            Wanted::Plan(id) => self.fetch(id),
        }
    }

    pub fn close(self) {
        self.clear(Shown::Nothing);
        self.address.set_parameter("plan", None, false);
    }

    /// The operation that runs or ran the plan on the desk.
    pub fn operation(self) -> Option<Operation> {
        let known = self.shown.with(|shown| match shown {
            Shown::Plan(plan) => plan.operation,
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
                        Shown::Plan(plan) if plan.id == operation.plan => plan.operation = Some(operation.id),
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

pub fn use_desk() -> Desk {
    expect_context::<Desk>()
}
