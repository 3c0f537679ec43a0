//! The waits-for graph, and the deadlocks in it.
//!
//! Owners are the nodes of the graph: a waiter of a lock waits for all its holders. A circle
//! never ends, unless a lease or a wait runs out. Of a semaphore, a waiter needs one slot alone,
//! so a circle through one that has other holders may come undone by them.

use super::Locks;
use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};
use ringmaster_common::lock::Wait;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many edges the graph around one lock shows.
const MAX_SHOWN: usize = 200;
/// How many edges are searched for deadlocks.
const MAX_EDGES: usize = 20_000;

/// The edges that are part of a circle.
#[derive(Debug, Default)]
pub(super) struct Deadlocks {
    edges: BTreeSet<(String, String)>,
    locks: BTreeSet<String>,
}

impl Deadlocks {
    /// Whether a waiter of the lock is part of a deadlock.
    pub fn involves(&self, lock: &str) -> bool {
        self.locks.contains(lock)
    }
}

impl Locks {
    /// Every edge, by the lock that makes it; of very many, the first ones.
    fn edges(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.contended
            .iter()
            .filter_map(|name| Some((name, self.by_name.get(name)?)))
            .flat_map(|(name, lock)| {
                lock.waiters.iter().flat_map(move |waiter| {
                    let holders = lock.holders.iter();
                    holders.map(move |lease| (waiter.owner(), &**name, lease.request.acquire.owner.as_str()))
                })
            })
            .take(MAX_EDGES)
    }

    pub(super) fn deadlocked(&self) -> Deadlocks {
        let graph: DiGraphMap<&str, ()> = self.edges().map(|(waiter, _, holder)| (waiter, holder)).collect();
        let mut component = BTreeMap::new();
        for (number, members) in tarjan_scc(&graph).into_iter().enumerate() {
            let is_circle =
                members.len() > 1 || members.iter().any(|owner| graph.contains_edge(owner, owner));
            if is_circle {
                component.extend(members.into_iter().map(|owner| (owner, number)));
            }
        }
        let mut deadlocks = Deadlocks::default();
        for (waiter, lock, holder) in self.edges() {
            let of = |owner| component.get(owner);
            if of(waiter).is_some() && of(waiter) == of(holder) {
                deadlocks.edges.insert((waiter.to_owned(), holder.to_owned()));
                deadlocks.locks.insert(lock.to_owned());
            }
        }
        deadlocks
    }

    /// Who waits for whom, from those who wait for this lock onwards.
    pub(super) fn waits(&self, name: &str, deadlocks: &Deadlocks) -> Vec<Wait> {
        let all: Vec<_> = self.edges().collect();
        let mut shown = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next: VecDeque<&str> =
            all.iter().filter(|(_, lock, _)| *lock == name).map(|(waiter, _, _)| *waiter).collect();
        while let Some(owner) = next.pop_front() {
            if !seen.insert(owner) {
                continue;
            }
            for (waiter, lock, holder) in all.iter().filter(|(waiter, _, _)| *waiter == owner) {
                if shown.len() == MAX_SHOWN {
                    return shown;
                }
                next.push_back(holder);
                shown.push(Wait {
                    waiter: (*waiter).to_owned(),
                    lock: (*lock).to_owned(),
                    holder: (*holder).to_owned(),
                    deadlocked: deadlocks.edges.contains(&((*waiter).to_owned(), (*holder).to_owned())),
                });
            }
        }
        shown
    }
}
