//! Renewals of registrations: kept by the leader alone, in its memory.
//!
//! What always holds: nobody is taken for gone who renewed with this leader within their TTL. A new leader knows of no
//! renewal, so it counts each TTL anew from when it first looked; a change of leader makes an end late, never early.
//! An end that was decided is final: a renewal that comes after it is refused, and its endpoint registers anew.

use super::{
    ClusterGroup,
    forward::{Answer, Call},
    out_of_protocol,
};
use ringmaster_cluster::upstreams::registration::Standing;
use ringmaster_common::{error::Refusal, id::Revision};
use ringmaster_net::clock;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Of which upstream, which endpoint, and since which revision.
type Key = (String, String, Revision);

/// When each registration was last renewed, as far as the leader of `term` knows.
#[derive(Debug, Default)]
pub(super) struct Renewals(Mutex<InTerm>);

#[derive(Debug, Default)]
struct InTerm {
    term: u64,
    /// None where its end was decided.
    renewed: BTreeMap<Key, Option<Instant>>,
}

impl Renewals {
    fn of(&self, term: u64) -> MutexGuard<'_, InTerm> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.term != term {
            *known = InTerm { term, renewed: BTreeMap::new() };
        }
        known
    }
}

impl InTerm {
    /// Whether it goes on.
    fn renew(&mut self, standing: Standing, now: Instant) -> bool {
        let renewed = self.renewed.entry(key(&standing)).or_insert(Some(now));
        match renewed {
            Some(at) => {
                *at = now;
                true
            }
            None => false,
        }
    }

    /// Those that were not renewed for their TTL.
    fn ended(&mut self, standing: Vec<Standing>, now: Instant) -> Vec<Standing> {
        let mut renewed = BTreeMap::new();
        let mut ended = Vec::new();
        for standing in standing {
            let key = key(&standing);
            // One that is seen for the first time counts from now.
            let at = self.renewed.get(&key).copied().unwrap_or(Some(now));
            let ttl = Duration::from_millis(standing.ttl_ms);
            let alive = at.filter(|at| now.saturating_duration_since(*at) <= ttl);
            renewed.insert(key, alive);
            if alive.is_none() {
                ended.push(standing);
            }
        }
        self.renewed = renewed;
        ended
    }
}

fn key(standing: &Standing) -> Key {
    (standing.upstream.clone(), standing.endpoint.clone(), standing.revision)
}

impl ClusterGroup {
    /// Tells the leader that a registration goes on. False where it knows of none that does.
    pub async fn renew_registration(
        &self,
        upstream: &str,
        endpoint: &str,
        deadline: Instant,
    ) -> Result<bool, Refusal> {
        let call = Call::Renew { upstream: upstream.to_owned(), endpoint: endpoint.to_owned() };
        match self.at_leader(call, deadline).await? {
            Answer::Renewed(goes_on) => Ok(goes_on),
            _ => Err(out_of_protocol()),
        }
    }

    pub(super) fn renew_here(&self, upstream: &str, endpoint: &str) -> Answer {
        let Some(term) = self.leading() else { return Answer::NotLeader };
        let state = self.state();
        let standing = state.upstreams.get(upstream).and_then(|record| record.registration(endpoint));
        let goes_on = standing.is_some_and(|standing| self.0.renewals.of(term).renew(standing, clock::now()));
        Answer::Renewed(goes_on)
    }

    /// Those that nobody renewed for their TTL, as the leader of `term` knows it.
    pub fn ended_registrations(&self, term: u64) -> Vec<Standing> {
        let standing = self.state().upstreams.registrations().collect();
        self.0.renewals.of(term).ended(standing, clock::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_ends_only_where_it_was_not_renewed_for_its_ttl() {
        let standing = |revision| Standing {
            upstream: "web".to_owned(),
            endpoint: "e1".to_owned(),
            revision: Revision(revision),
            ttl_ms: 1_000,
        };
        let renewals = Renewals::default();
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        // A new leader counts from when it first looks.
        assert_eq!(renewals.of(1).ended(vec![standing(7)], at(0)), []);
        assert_eq!(renewals.of(1).ended(vec![standing(7)], at(1_000)), []);
        assert!(renewals.of(1).renew(standing(7), at(1_000)));
        assert_eq!(renewals.of(1).ended(vec![standing(7)], at(2_000)), []);
        // The next one knows of nothing, and drops nobody early.
        assert_eq!(renewals.of(2).ended(vec![standing(7)], at(2_100)), []);
        assert_eq!(renewals.of(2).ended(vec![standing(7)], at(3_100)), []);
        assert_eq!(renewals.of(2).ended(vec![standing(7)], at(3_101)), [standing(7)]);
        // What was decided stays so; a later registration is another one.
        assert!(!renewals.of(2).renew(standing(7), at(3_102)));
        assert!(renewals.of(2).renew(standing(9), at(3_103)));
        assert_eq!(renewals.of(2).ended(vec![standing(9)], at(3_104)), []);
    }
}
