//! The answers that were given: a repeated request gets the first outcome again.
//!
//! Requests whose id the client chose are kept apart from those that a node named, so that a flood
//! of plain writes cannot push out an operator's idempotency key.

use crate::{
    encoding::encoded_len,
    limits::Limits,
    outcome::{Outcome, Response},
    request::Request,
};
use imbl::{OrdMap, Vector};
use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

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
    /// The size of all answers.
    bytes: u64,
    /// Answers up to here may have been forgotten.
    #[serde(default)]
    forgotten: Revision,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    fingerprint: Option<u32>,
    response: Arc<Response>,
}

impl Requests {
    /// The answer that was given before under this id, or a refusal if it was to another request, or
    /// if it is no longer known whether it was answered.
    pub fn find(&self, request: &Request) -> Option<Result<Arc<Response>, Refusal>> {
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
        Some(if answer.fingerprint == request.fingerprint {
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

    pub(super) fn remember(&mut self, request: Request, response: Arc<Response>, limits: &Limits) {
        let (answers, most, most_bytes) = if request.repeatable {
            (&mut self.repeatable, limits.repeatable_answers, limits.repeatable_bytes)
        } else {
            (&mut self.plain, limits.plain_answers, limits.plain_bytes)
        };
        let id: Arc<str> = request.id.into();
        answers.bytes += counted_bytes(&response, limits);
        answers.by_id.insert(id.clone(), Answer { fingerprint: request.fingerprint, response });
        answers.ids.push_back(id);
        // The latest answer stays, however large it is.
        while answers.ids.len() > most || (answers.bytes > most_bytes && answers.ids.len() > 1) {
            let Some(oldest) = answers.ids.pop_front() else { return };
            if let Some(forgotten) = answers.by_id.remove(&oldest) {
                answers.bytes = answers.bytes.saturating_sub(counted_bytes(&forgotten.response, limits));
                answers.forgotten = forgotten.response.revision;
            }
        }
    }
}

/// The size of an answer in the bound of all. A refusal counts the same whatever its words are: versions may differ in
/// them, and must not differ in what they have forgotten.
fn counted_bytes(response: &Response, limits: &Limits) -> u64 {
    match response.outcome {
        Outcome::Refused(_) => limits.refusal_bytes,
        _ => encoded_len(response),
    }
}
