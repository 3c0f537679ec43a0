//! The state that this node has applied, for all readers.
//!
//! It is replaced after each batch of entries and before their outcomes are sent, so a client that has its answer can
//! read what it did. Taking the state costs a reference count, and never holds up `apply`.

use crate::application::Application;
use arc_swap::ArcSwap;
use ringmaster_common::id::{NodeId, Revision};
use ringmaster_net::clock;
use std::{sync::Arc, time::Instant};
use tokio::sync::watch;

/// How far the state has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub revision: Revision,
    /// The term of the last applied entry.
    pub term: u64,
    /// When it was applied, by this node's monotonic clock; none before the first.
    pub at: Option<Instant>,
}

/// Watches of how far the state has come.
#[derive(Debug, Default)]
pub struct Progress {
    applied: watch::Sender<Applied>,
    control: watch::Sender<Applied>,
}

impl Progress {
    pub fn applied(&self) -> Applied {
        *self.applied.borrow()
    }

    /// Changes whenever more was applied.
    pub fn watch(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// Changes when more was applied that controllers follow.
    pub fn watch_control(&self) -> watch::Receiver<Applied> {
        self.control.subscribe()
    }
}

/// The latest state of an application.
#[derive(Debug)]
pub struct Published<A: Application> {
    application: Arc<A>,
    state: ArcSwap<A::State>,
    progress: Progress,
}

/// The published state as consensus sees it, for any application.
pub(crate) trait AppliedState: Send + Sync {
    fn progress(&self) -> &Progress;
    fn clock_ms(&self) -> u64;
    fn may_lead(&self, node: NodeId) -> bool;
}

impl<A: Application> Published<A> {
    pub(crate) fn new(application: Arc<A>) -> Self {
        Published { application, state: ArcSwap::default(), progress: Progress::default() }
    }

    pub fn application(&self) -> &A {
        &self.application
    }

    pub fn state(&self) -> Arc<A::State> {
        self.state.load_full()
    }

    pub fn applied(&self) -> Applied {
        self.progress.applied()
    }

    /// Changes whenever more was applied.
    pub fn watch(&self) -> watch::Receiver<Applied> {
        self.progress.watch()
    }

    /// Changes when more was applied that controllers follow.
    pub fn watch_control(&self) -> watch::Receiver<Applied> {
        self.progress.watch_control()
    }

    pub(crate) fn publish(&self, state: A::State, revision: Revision, term: u64, control: bool) {
        self.state.store(Arc::new(state));
        let applied = Applied { revision, term, at: Some(clock::now()) };
        self.progress.applied.send_replace(applied);
        if control {
            self.progress.control.send_replace(applied);
        }
    }
}

impl<A: Application> AppliedState for Published<A> {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn clock_ms(&self) -> u64 {
        self.application.clock_ms(&self.state.load())
    }

    fn may_lead(&self, node: NodeId) -> bool {
        self.application.may_lead(&self.state.load(), node)
    }
}
