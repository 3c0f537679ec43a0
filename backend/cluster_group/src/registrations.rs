//! Renewals of registrations: kept by the leader alone, in its memory.
//!
//! What always holds: a registration that was renewed with this leader within its TTL does not end. A new leader has
//! no renewals and restarts every TTL from when it first looked; a leader change can delay an end but never cause an
//! early one. An end that was decided is final: a later renewal is refused, and the endpoint registers anew.

use crate::{
    ClusterGroup,
    application::{Answer, Query, check_level},
    unexpected_answer,
};
use ringmaster_cluster::traffic;
use ringmaster_cluster::upstreams::registration::ActiveRegistration;
use ringmaster_common::{error::Refusal, id::Revision};
use ringmaster_net::clock;
use ringmaster_replication::application::LeaderAnswer;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Upstream, endpoint, and the revision of the registration.
type Key = (String, String, Revision);

/// When each registration was last renewed, as far as the leader of `term` knows.
#[derive(Debug, Default)]
pub(crate) struct Renewals(Mutex<InTerm>);

#[derive(Debug, Default)]
struct InTerm {
    term: u64,
    /// None if its end was decided.
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
    /// False if its end was decided.
    fn renew(&mut self, standing: ActiveRegistration, now: Instant) -> bool {
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
    fn ended(&mut self, standing: Vec<ActiveRegistration>, now: Instant) -> Vec<ActiveRegistration> {
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

fn key(standing: &ActiveRegistration) -> Key {
    (standing.upstream.clone(), standing.endpoint.clone(), standing.revision)
}

impl ClusterGroup {
    /// Renews a registration with the leader. False if it is not active.
    pub async fn renew_registration(
        &self,
        upstream: &str,
        endpoint: &str,
        deadline: Instant,
    ) -> Result<bool, Refusal> {
        check_level(&self.state(), traffic::LEVEL)?;
        let query = Query::Renew { upstream: upstream.to_owned(), endpoint: endpoint.to_owned() };
        match self.0.raft.query(query, deadline).await? {
            Answer::Renewed(active) => Ok(active),
            Answer::Plan(_) => Err(unexpected_answer()),
        }
    }

    pub(crate) fn renew_here(&self, upstream: &str, endpoint: &str) -> LeaderAnswer<Answer> {
        let Some(term) = self.leading() else { return LeaderAnswer::NotLeader };
        let state = self.state();
        let registration = state.upstreams.get(upstream).and_then(|record| record.registration(endpoint));
        let active = registration.is_some_and(|active| self.0.renewals.of(term).renew(active, clock::now()));
        LeaderAnswer::Answer(Answer::Renewed(active))
    }

    /// The registrations that were not renewed for their TTL, as far as the leader of `term` knows.
    pub fn ended_registrations(&self, term: u64) -> Vec<ActiveRegistration> {
        let standing = self.state().upstreams.registrations().collect();
        self.0.renewals.of(term).ended(standing, clock::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_ends_only_where_it_was_not_renewed_for_its_ttl() {
        let standing = |revision| ActiveRegistration {
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
        // The next leader has no renewals, and ends none early.
        assert_eq!(renewals.of(2).ended(vec![standing(7)], at(2_100)), []);
        assert_eq!(renewals.of(2).ended(vec![standing(7)], at(3_100)), []);
        assert_eq!(renewals.of(2).ended(vec![standing(7)], at(3_101)), [standing(7)]);
        // A decided end is final; a later registration is another one.
        assert!(!renewals.of(2).renew(standing(7), at(3_102)));
        assert!(renewals.of(2).renew(standing(9), at(3_103)));
        assert_eq!(renewals.of(2).ended(vec![standing(9)], at(3_104)), []);
    }
}
