//! The answers that were given: a repeated request gets the first outcome again.
//!
//! What always holds: an answer is remembered for [`repeatable_for`](crate::limits::Limits::repeatable_for), unless there
//! are more than the limits of count and bytes allow; then the oldest are forgotten first. A request that says after which
//! revision it was sent first is refused where its answer may have been forgotten, and never carried out again.
//!
//! Requests whose id the client chose are kept apart from those that a node named, so that a flood
//! of plain writes cannot push out an operator's idempotency key.

use crate::{
    encoding::encoded_len,
    limits::Limits,
    outcome::{Outcome, Response},
    request::Request,
    time::ClusterTime,
};
use imbl::{OrdMap, Vector};
use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

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
    /// When it was given.
    #[serde(default)]
    at: ClusterTime,
    response: Arc<Response>,
}

/// The bounds of one table of answers.
struct Bounds {
    kept_for: Duration,
    answers: usize,
    bytes: u64,
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

    pub(super) fn remember(
        &mut self,
        request: Request,
        response: Arc<Response>,
        now: ClusterTime,
        limits: &Limits,
    ) {
        let (answers, bounds) = if request.repeatable {
            let bounds = Bounds {
                kept_for: limits.repeatable_for,
                answers: limits.repeatable_answers,
                bytes: limits.repeatable_bytes,
            };
            (&mut self.repeatable, bounds)
        } else {
            let bounds = Bounds {
                kept_for: limits.plain_for,
                answers: limits.plain_answers,
                bytes: limits.plain_bytes,
            };
            (&mut self.plain, bounds)
        };
        let id: Arc<str> = request.id.into();
        answers.bytes += counted_bytes(&id, &response, limits);
        answers.by_id.insert(id.clone(), Answer { fingerprint: request.fingerprint, at: now, response });
        answers.ids.push_back(id);
        answers.forget(&bounds, now, limits);
    }
}

impl Answers {
    /// Forgets what is beyond the bounds: of what is only old, a few at a time.
    fn forget(&mut self, bounds: &Bounds, now: ClusterTime, limits: &Limits) {
        // The latest answer stays, however large it is.
        while self.ids.len() > bounds.answers || (self.bytes > bounds.bytes && self.ids.len() > 1) {
            self.forget_oldest(limits);
        }
        for _ in 0..limits.forgotten_at_once {
            let oldest = self.ids.front().and_then(|id| self.by_id.get(id));
            if oldest.is_none_or(|answer| answer.at.after(bounds.kept_for) >= now) {
                return;
            }
            self.forget_oldest(limits);
        }
    }

    fn forget_oldest(&mut self, limits: &Limits) {
        let Some(id) = self.ids.pop_front() else { return };
        if let Some(Answer { response, .. }) = self.by_id.remove(&id) {
            self.bytes = self.bytes.saturating_sub(counted_bytes(&id, &response, limits));
            self.forgotten = response.revision;
        }
    }
}

/// The size of an answer in the bound of all. A refusal counts the same whatever its words are: versions may differ in
/// them, and must not differ in what they have forgotten.
fn counted_bytes(id: &str, response: &Response, limits: &Limits) -> u64 {
    let answer = match response.outcome {
        Outcome::Refused(_) => limits.refusal_bytes,
        _ => encoded_len(response),
    };
    answer + id.len() as u64 + limits.entry_bytes
}
