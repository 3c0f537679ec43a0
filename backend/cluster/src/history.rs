//! The latest events, so that a client that lost its stream can resume it on any node.
//!
//! The history is replicated with the state: it survives a restart, comes with a snapshot, and is
//! the same on every node.

use crate::{encoding::encoded_len, limits::Limits};
use imbl::Vector;
use ringmaster_common::{event::EventBatch, id::Revision};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    batches: Vector<Arc<EventBatch>>,
    /// The size of all batches.
    bytes: u64,
    /// The revision of the last batch that was dropped; 0 while none was.
    dropped: Revision,
}

impl History {
    pub(super) fn push(&mut self, batch: Arc<EventBatch>, limits: &Limits) {
        self.bytes += encoded_len(&batch);
        self.batches.push_back(batch);
        // The latest batch stays, however large it is.
        while self.batches.len() > limits.history_revisions
            || (self.bytes > limits.history_bytes && self.batches.len() > 1)
        {
            let Some(oldest) = self.batches.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(encoded_len(&oldest));
            self.dropped = oldest.revision;
        }
    }

    /// The revision of the latest batch: what a client that has seen all events is at.
    pub fn last_revision(&self) -> Revision {
        self.batches.last().map_or(self.dropped, |batch| batch.revision)
    }

    /// The revision that the history begins after.
    pub fn dropped(&self) -> Revision {
        self.dropped
    }

    /// The batches after `revision`, oldest first, or none where the history no longer holds them all.
    pub fn after(&self, revision: Revision) -> Option<impl DoubleEndedIterator<Item = &Arc<EventBatch>>> {
        (revision >= self.dropped).then(|| {
            let start = self.position_after(revision);
            self.batches.focus().narrow(start..).into_iter()
        })
    }

    /// The batches before `revision`, newest first.
    pub fn before(&self, revision: Revision) -> impl Iterator<Item = &Arc<EventBatch>> {
        let end = match self.batches.binary_search_by_key(&revision, |batch| batch.revision) {
            Ok(position) | Err(position) => position,
        };
        self.batches.focus().narrow(..end).into_iter().rev()
    }

    fn position_after(&self, revision: Revision) -> usize {
        match self.batches.binary_search_by_key(&revision, |batch| batch.revision) {
            Ok(position) => position + 1,
            Err(position) => position,
        }
    }
}
