//! Who waits for whom, and the circles in that.
//!
//! Owners are the nodes of the graph: whoever waits for a lock waits for all who hold it. A circle
//! never ends by itself, unless a lease or a wait runs out.

use super::Locks;
use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};
use ringmaster_common::lock::Wait;
use std::collections::{BTreeSet, VecDeque};

/// How many edges the graph around one lock shows.
const MAX_SHOWN: usize = 200;

/// The edges that are part of a circle.
#[derive(Debug, Default)]
pub(super) struct Circles {
    edges: BTreeSet<(String, String)>,
    locks: BTreeSet<String>,
}

impl Circles {
    /// Whether somebody waits in a circle for the lock.
    pub fn touch(&self, lock: &str) -> bool {
        self.locks.contains(lock)
    }
}

impl Locks {
    /// Every edge, by the lock that makes it.
    fn edges(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.contended.iter().filter_map(|name| Some((name, self.by_name.get(name)?))).flat_map(
            |(name, lock)| {
                lock.waiters.iter().flat_map(move |waiter| {
                    let holders = lock.holders.iter();
                    holders.map(move |hold| (waiter.owner(), &**name, hold.ask.acquire.owner.as_str()))
                })
            },
        )
    }

    pub(super) fn deadlocked(&self) -> Circles {
        let graph: DiGraphMap<&str, ()> = self.edges().map(|(waiter, _, holder)| (waiter, holder)).collect();
        let mut circles = Circles::default();
        for component in tarjan_scc(&graph) {
            let members: BTreeSet<&str> = component.into_iter().collect();
            let inside = |edge: &(&str, &str, &str)| {
                members.contains(edge.0)
                    && members.contains(edge.2)
                    && (members.len() > 1 || edge.0 == edge.2)
            };
            if members.len() == 1 && !members.iter().any(|owner| graph.contains_edge(owner, owner)) {
                continue;
            }
            for (waiter, lock, holder) in self.edges().filter(inside) {
                circles.edges.insert((waiter.to_owned(), holder.to_owned()));
                circles.locks.insert(lock.to_owned());
            }
        }
        circles
    }

    /// Who waits for whom, from those who wait for this lock onwards.
    pub(super) fn waits(&self, name: &str, circles: &Circles) -> Vec<Wait> {
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
                    deadlocked: circles.edges.contains(&((*waiter).to_owned(), (*holder).to_owned())),
                });
            }
        }
        shown
    }
}
