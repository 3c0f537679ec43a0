//! What was answered to whom: a repeated request gets the first outcome again.
//!
//! Requests whose id the client chose are kept apart from those that a node named, so that a flood
//! of plain writes cannot push out an operator's idempotency key.

use crate::command::{Request, Response};
use imbl::{OrdMap, Vector};
use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How many answers under ids that clients chose are remembered.
pub const REMEMBERED_REPEATABLE: usize = 8192;
/// How many answers under ids that nodes made up are remembered. They matter only while the node
/// itself tries again.
pub const REMEMBERED_PLAIN: usize = 2048;
/// The longest idempotency key, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    repeatable: Answers,
    plain: Answers,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Answers {
    by_id: OrdMap<Arc<str>, Answer>,
    /// Oldest first.
    ids: Vector<Arc<str>>,
    /// Answers up to here may have been forgotten.
    #[serde(default)]
    forgotten: Revision,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    fingerprint: u32,
    response: Arc<Response>,
}

impl Requests {
    /// The answer that was given before under this id, or a refusal if it was to another request, or
    /// if nobody can tell any more whether it was answered.
    pub fn find(&self, request: &Request, fingerprint: u32) -> Option<Result<Arc<Response>, Refusal>> {
        let answers = if request.repeatable { &self.repeatable } else { &self.plain };
        let Some(answer) = answers.by_id.get(request.id.as_str()) else {
            // Carried out again, it might undo what others did in between.
            return request.resent_after.filter(|after| *after < answers.forgotten).map(|_| {
                Err(Refusal::new(
                    Code::OutcomeUnknown,
                    "the request was sent before, and whether it was carried out is no longer known; look, and send \
                     it anew if it was not",
                ))
            });
        };
        Some(if answer.fingerprint == fingerprint {
            Ok(answer.response.clone())
        } else {
            Err(Refusal::new(
                Code::IdempotencyKeyReused,
                format!(
                    "{} was the key of a different request; choose a new key for a new request",
                    request.id
                ),
            ))
        })
    }

    pub fn remember(&mut self, request: Request, fingerprint: u32, response: Arc<Response>) {
        let (answers, bound) = if request.repeatable {
            (&mut self.repeatable, REMEMBERED_REPEATABLE)
        } else {
            (&mut self.plain, REMEMBERED_PLAIN)
        };
        let id: Arc<str> = request.id.into();
        let answer = Answer { fingerprint, response };
        answers.by_id.insert(id.clone(), answer);
        answers.ids.push_back(id);
        if answers.ids.len() > bound
            && let Some(oldest) = answers.ids.pop_front()
            && let Some(forgotten) = answers.by_id.remove(&oldest)
        {
            answers.forgotten = forgotten.response.revision;
        }
    }
}
