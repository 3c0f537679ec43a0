//! The audit: each operator's request and its outcome, refusals too. It is written in the same log entry as the change,
//! so neither can be without the other.

use crate::{Context, outcome::Outcome, request::Request};
use imbl::Vector;
use ringmaster_common::event::{AuditEntry, Event};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// How many entries there have ever been.
    pub count: u64,
    entries: Vector<Arc<AuditEntry>>,
}

impl Audit {
    pub(super) fn record(
        &mut self,
        context: &mut Context,
        request: &Request,
        asked: String,
        outcome: &Outcome,
    ) {
        self.count += 1;
        self.entries.push_back(Arc::new(AuditEntry {
            number: self.count,
            revision: context.revision,
            at: context.wall,
            actor: request.actor.to_string(),
            request_id: request.id.clone(),
            request: asked,
            refused: match outcome {
                Outcome::Refused(refusal) => Some(refusal.clone()),
                _ => None,
            },
            operation: match outcome {
                Outcome::Operation { operation, .. } => Some(operation.id),
                _ => None,
            },
        }));
        if self.entries.len() > context.limits.audit_entries {
            self.entries.pop_front();
        }
        context.emit(Event::Audited { count: self.count });
    }

    /// The entries with a number below `number`, newest first.
    pub fn before(&self, number: u64) -> impl Iterator<Item = &Arc<AuditEntry>> {
        let end = match self.entries.binary_search_by_key(&number, |entry| entry.number) {
            Ok(position) | Err(position) => position,
        };
        self.entries.focus().narrow(..end).into_iter().rev()
    }
}
