//! Commit hints: how far each group has committed, for the next frame to take along.
//!
//! No caller waits for a hint, and a later one replaces it. So the writer is not woken for it, unless it
//! rests; and a disk that is busy sees one where many were noted.

use bytes::Bytes;
use ringmaster_common::id::GroupId;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The hints that no frame holds yet.
#[derive(Debug, Default)]
pub(super) struct Hints {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    latest: BTreeMap<GroupId, Bytes>,
    /// The writer does not look again until it is woken.
    writer_rests: bool,
}

impl Hints {
    /// Whether the writer must be woken.
    pub(super) fn note(&self, group: GroupId, committed: Bytes) -> bool {
        let mut state = self.lock();
        state.latest.insert(group, committed);
        std::mem::take(&mut state.writer_rests)
    }

    /// Takes the hints for the next frame. The entries that they speak of were queued before.
    pub(super) fn take(&self) -> BTreeMap<GroupId, Bytes> {
        let mut state = self.lock();
        state.writer_rests = false;
        std::mem::take(&mut state.latest)
    }

    /// Gives back hints that did not fit.
    pub(super) fn put_back(&self, hints: BTreeMap<GroupId, Bytes>) {
        let mut state = self.lock();
        for (group, committed) in hints {
            state.latest.entry(group).or_insert(committed);
        }
    }

    /// The group is gone.
    pub(super) fn forget(&self, group: GroupId) {
        self.lock().latest.remove(&group);
    }

    /// Whether the writer may rest: it is woken for the next hint.
    pub(super) fn rest(&self) -> bool {
        let mut state = self.lock();
        state.writer_rests = state.latest.is_empty();
        state.writer_rests
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
