//! Leases that have ended, for as long as a request about them may come once more.
//!
//! A release that is repeated is answered as it was the first time. An acquire that arrives late, after its lease was
//! granted and ended, is not granted again: its client has finished, and a lease for it would hold up everyone until the
//! TTL has passed. The same goes for a request that its client has withdrawn from the queue. A request is known by its id and the name of its lock.
//!
//! What always holds: leases are remembered for [`ended_for`](crate::limits::Limits::ended_for), unless there are more
//! than the limits of count and bytes allow; then the oldest are forgotten first.
//!
//! Deliberately absent: a grant that its client never learned of. Its client may come back and wait again.

use crate::{Context, encoding::encoded_len, limits::Limits, time::ClusterTime};
use imbl::{OrdMap, Vector};
use ringmaster_common::{
    id::{Revision, Token},
    lock::LockFact,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a lease ended, how one entry of a re-entrant lease was left, or that a waiter has withdrawn its request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub lock: Arc<str>,
    pub owner: String,
    /// None where nothing was granted.
    pub token: Option<Token>,
    pub what: LockFact,
    pub revision: Revision,
    pub at: ClusterTime,
    /// The requests that must not be granted again.
    pub requests: Vec<Arc<str>>,
    /// Whether the lease ended. Otherwise only these requests have left it.
    pub is_whole: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(super) struct EndedLeases {
    /// Oldest first.
    in_order: Vector<Arc<Ended>>,
    by_token: OrdMap<Token, Arc<Ended>>,
    by_request: OrdMap<RequestKey, Arc<Ended>>,
    bytes: u64,
    /// Requests up to here may have been forgotten.
    forgotten: Revision,
}

/// The name of the lock, and the id of the request.
type RequestKey = (Arc<str>, Arc<str>);

/// What a snapshot holds of it: the indexes follow from the list.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Stored {
    in_order: Vector<Arc<Ended>>,
    bytes: u64,
    forgotten: Revision,
}

impl From<Stored> for EndedLeases {
    fn from(Stored { in_order, bytes, forgotten }: Stored) -> EndedLeases {
        let mut ended = EndedLeases { bytes, forgotten, ..EndedLeases::default() };
        in_order.into_iter().for_each(|one| ended.insert(one));
        ended
    }
}

impl From<EndedLeases> for Stored {
    fn from(EndedLeases { in_order, bytes, forgotten, .. }: EndedLeases) -> Stored {
        Stored { in_order, bytes, forgotten }
    }
}

impl EndedLeases {
    /// The lease that had this token, if it has ended and is remembered.
    pub fn lease(&self, lock: &str, token: Token) -> Option<&Ended> {
        self.by_token.get(&token).map(Arc::as_ref).filter(|ended| *ended.lock == *lock)
    }

    /// What became of the lease that this request was granted.
    pub fn request(&self, lock: &str, request: &str) -> Option<&Ended> {
        self.by_request.get(&(lock.into(), request.into())).map(Arc::as_ref)
    }

    /// Whether a request that was ordered first after `revision` may have been forgotten.
    pub fn may_have_forgotten(&self, revision: Revision) -> bool {
        revision < self.forgotten
    }

    pub fn remember(&mut self, context: &Context, ended: Ended) {
        let limits = context.limits;
        self.bytes += counted_bytes(&ended, limits);
        self.insert(Arc::new(ended));
        // The latest stays, however large it is.
        while self.in_order.len() > limits.ended_leases
            || (self.bytes > limits.ended_bytes && self.in_order.len() > 1)
        {
            self.forget_oldest(limits);
        }
        for _ in 0..limits.forgotten_at_once {
            let is_recent = |ended: &Arc<Ended>| ended.at.after(limits.ended_for) >= context.now;
            if self.in_order.front().is_none_or(is_recent) {
                return;
            }
            self.forget_oldest(limits);
        }
    }

    fn insert(&mut self, ended: Arc<Ended>) {
        for request in &ended.requests {
            self.by_request.insert((ended.lock.clone(), request.clone()), ended.clone());
        }
        if let Some(token) = ended.token.filter(|_| ended.is_whole) {
            self.by_token.insert(token, ended.clone());
        }
        self.in_order.push_back(ended);
    }

    fn forget_oldest(&mut self, limits: &Limits) {
        let Some(oldest) = self.in_order.pop_front() else { return };
        self.bytes = self.bytes.saturating_sub(counted_bytes(&oldest, limits));
        self.forgotten = oldest.revision;
        for request in &oldest.requests {
            let key = (oldest.lock.clone(), request.clone());
            // A later record of the same request stays, as it does in a state that was read from a snapshot.
            if self.by_request.get(&key).is_some_and(|indexed| Arc::ptr_eq(indexed, &oldest)) {
                self.by_request.remove(&key);
            }
        }
        if let Some(token) = oldest.token.filter(|_| oldest.is_whole) {
            self.by_token.remove(&token);
        }
    }
}

fn counted_bytes(ended: &Ended, limits: &Limits) -> u64 {
    encoded_len(ended) + limits.entry_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::FEATURE_LEVEL;

    #[test]
    fn a_later_record_of_a_request_outlives_the_earlier_one() {
        let ended = |revision: u64, is_whole| {
            Arc::new(Ended {
                lock: "l".into(),
                owner: "ada".to_owned(),
                token: Some(Token(1)),
                what: LockFact::Released,
                revision: Revision(revision),
                at: ClusterTime(0),
                requests: vec!["r".into()],
                is_whole,
            })
        };
        let mut live = EndedLeases::default();
        live.insert(ended(5, false));
        live.insert(ended(9, true));
        live.forget_oldest(Limits::at(FEATURE_LEVEL));
        assert_eq!(live.request("l", "r").map(|ended| ended.revision), Some(Revision(9)));
        let restored = EndedLeases::from(Stored::from(live.clone()));
        assert_eq!((restored.by_request, restored.by_token), (live.by_request, live.by_token));
    }
}
