//! Minimum-cost flow: as much as flows from a source to a sink, at the lowest cost.
//!
//! Successive shortest paths (Edmonds and Karp 1972): with potentials all arcs of the residual graph have a cost of 0 or
//! more, so Dijkstra's algorithm finds the distances, and then everything that flows along shortest paths is sent at
//! once. The flow may begin with what is sent along arcs without cost. A flow is optimal exactly where its residual graph
//! has no cycle of negative cost ([`Network::negative_cycle`]).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

pub type Vertex = usize;

/// One of a network's arcs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arc(usize);

#[derive(Clone, Debug)]
struct Half {
    to: Vertex,
    /// What may still flow.
    residual: u32,
    cost: i64,
}

/// Arcs are kept as pairs of halves: the arc, and its reverse, by which what flows is taken back.
#[derive(Clone, Debug)]
pub struct Network {
    halves: Vec<Half>,
    out: Vec<Vec<usize>>,
}

const UNREACHED: i64 = i64::MAX;

impl Network {
    pub fn new(vertices: usize) -> Network {
        Network { halves: Vec::new(), out: vec![Vec::new(); vertices] }
    }

    /// The cost is 0 or more.
    pub fn arc(&mut self, from: Vertex, to: Vertex, capacity: u32, cost: i64) -> Arc {
        let arc = self.halves.len();
        self.halves.push(Half { to, residual: capacity, cost });
        self.halves.push(Half { to: from, residual: 0, cost: -cost });
        self.out[from].push(arc);
        self.out[to].push(arc + 1);
        Arc(arc)
    }

    pub fn flow(&self, arc: Arc) -> u32 {
        self.halves[arc.0 + 1].residual
    }

    /// Sends one unit along each of these arcs; false, and nothing is sent, where one of them is full.
    pub fn send(&mut self, path: &[Arc]) -> bool {
        if path.iter().any(|arc| self.halves[arc.0].residual == 0) {
            return false;
        }
        for arc in path {
            self.push(arc.0, 1);
        }
        true
    }

    fn push(&mut self, half: usize, units: u32) {
        self.halves[half].residual -= units;
        self.halves[half ^ 1].residual += units;
    }

    /// Sends as much as flows from `source` to `sink`, beside what flows already, and returns how much that is. What
    /// flows already has cost nothing.
    pub fn maximize(&mut self, source: Vertex, sink: Vertex) -> u64 {
        let mut potential = vec![0; self.out.len()];
        let mut sent = 0;
        while self.shortest_paths(source, sink, &mut potential) {
            let (mut next, mut on_path) = (vec![0; self.out.len()], vec![false; self.out.len()]);
            loop {
                let units = self.send_along(source, sink, u32::MAX, &potential, &mut next, &mut on_path);
                if units == 0 {
                    break;
                }
                sent += u64::from(units);
            }
        }
        sent
    }

    /// Adds the distances from `source` to the potentials. False where the sink cannot be reached.
    fn shortest_paths(&self, source: Vertex, sink: Vertex, potential: &mut [i64]) -> bool {
        let mut distance = vec![UNREACHED; self.out.len()];
        let mut queue = BinaryHeap::from([Reverse((0, source))]);
        distance[source] = 0;
        let mut farthest = UNREACHED;
        while let Some(Reverse((at, vertex))) = queue.pop() {
            if at > farthest {
                break;
            }
            if at > distance[vertex] {
                continue;
            }
            if vertex == sink {
                farthest = at;
            }
            for &half in &self.out[vertex] {
                let Half { to, residual, cost } = self.halves[half];
                let reached = at + cost + potential[vertex] - potential[to];
                if residual > 0 && reached < distance[to] {
                    distance[to] = reached;
                    queue.push(Reverse((reached, to)));
                }
            }
        }
        if farthest == UNREACHED {
            return false;
        }
        for (potential, distance) in potential.iter_mut().zip(distance) {
            *potential += distance.min(farthest);
        }
        true
    }

    /// Sends up to `most` units along arcs on shortest paths. `next` is the first arc of each vertex that may lead there.
    fn send_along(
        &mut self,
        vertex: Vertex,
        sink: Vertex,
        most: u32,
        potential: &[i64],
        next: &mut [usize],
        on_path: &mut [bool],
    ) -> u32 {
        if vertex == sink {
            return most;
        }
        on_path[vertex] = true;
        let mut sent = 0;
        while sent == 0 && next[vertex] < self.out[vertex].len() {
            let half = self.out[vertex][next[vertex]];
            let Half { to, residual, cost } = self.halves[half];
            // Arcs of no cost may lead in a circle.
            if residual > 0 && !on_path[to] && cost + potential[vertex] == potential[to] {
                sent = self.send_along(to, sink, most.min(residual), potential, next, on_path);
            }
            match sent {
                0 => next[vertex] += 1,
                units => self.push(half, units),
            }
        }
        on_path[vertex] = false;
        sent
    }

    /// A cycle of the residual graph by which the same could flow at a lower cost, as its vertices. None: the flow is
    /// optimal.
    pub fn negative_cycle(&self) -> Option<Vec<Vertex>> {
        let vertices = self.out.len();
        let mut distance = vec![0; vertices];
        let mut before: Vec<Option<Vertex>> = vec![None; vertices];
        let mut queued = vec![true; vertices];
        let mut queue: VecDeque<Vertex> = (0..vertices).collect();
        let mut improved = 0;
        while let Some(vertex) = queue.pop_front() {
            queued[vertex] = false;
            for &half in &self.out[vertex] {
                let Half { to, residual, cost } = self.halves[half];
                if residual == 0 || distance[vertex] + cost >= distance[to] {
                    continue;
                }
                (distance[to], before[to]) = (distance[vertex] + cost, Some(vertex));
                improved += 1;
                if improved % vertices == 0
                    && let Some(cycle) = cycle_of(&before)
                {
                    return Some(cycle);
                }
                if !queued[to] {
                    queued[to] = true;
                    queue.push_back(to);
                }
            }
        }
        None
    }
}

/// A circle of predecessors. There is one soon after a negative cycle was gone round, and never else.
fn cycle_of(before: &[Option<Vertex>]) -> Option<Vec<Vertex>> {
    let mut seen_from = vec![None; before.len()];
    for start in 0..before.len() {
        let mut at = start;
        while seen_from[at].is_none() {
            seen_from[at] = Some(start);
            match before[at] {
                Some(previous) => at = previous,
                None => break,
            }
        }
        if before[at].is_some() && seen_from[at] == Some(start) {
            let mut cycle = vec![at];
            let mut vertex = before[at];
            while let Some(each) = vertex.filter(|each| *each != at) {
                cycle.push(each);
                vertex = before[each];
            }
            cycle.reverse();
            return Some(cycle);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(network: &Network, arcs: &[(Arc, i64)]) -> i64 {
        arcs.iter().map(|(arc, cost)| i64::from(network.flow(*arc)) * cost).sum()
    }

    #[test]
    fn the_cheapest_way_is_taken_first_and_taken_back_where_that_is_cheaper() {
        // Two units. The cheapest single path blocks the best pair of paths.
        let mut network = Network::new(4);
        let arcs = [(0, 1, 1), (0, 2, 4), (1, 2, 1), (1, 3, 5), (2, 3, 1)];
        let arcs = arcs.map(|(from, to, cost)| (network.arc(from, to, 1, cost), cost));
        assert_eq!(network.maximize(0, 3), 2);
        assert_eq!(cost(&network, &arcs), 11);
        assert_eq!(network.negative_cycle(), None);
    }

    #[test]
    fn a_flow_that_is_not_optimal_has_a_negative_cycle() {
        let mut network = Network::new(4);
        let cheap = [network.arc(0, 1, 1, 0), network.arc(1, 3, 1, 1)];
        let dear = [network.arc(0, 2, 1, 0), network.arc(2, 3, 1, 7)];
        assert!(network.send(&dear));
        assert!(!network.send(&dear), "it is full");
        let mut cycle = network.negative_cycle().unwrap();
        cycle.sort();
        assert_eq!(cycle, [0, 1, 2, 3]);
        assert!(network.send(&cheap));
        assert_eq!(network.negative_cycle(), None, "both are needed for two units");
    }

    /// All flows of small networks of unit arcs are tried.
    #[test]
    fn no_flow_of_the_same_size_costs_less() {
        let mut random = 7u64;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        for _ in 0..300 {
            let wires: Vec<(usize, usize, i64)> = (0..10)
                .map(|_| (below(5) as usize, 1 + below(5) as usize, below(6) as i64))
                .filter(|(from, to, _)| from != to && *from != 5 && *to != 0)
                .collect();
            let mut network = Network::new(6);
            let arcs: Vec<_> =
                wires.iter().map(|&(from, to, cost)| (network.arc(from, to, 1, cost), cost)).collect();
            let sent = network.maximize(0, 5);
            let best = (0u32..1 << wires.len())
                .filter_map(|chosen| {
                    let (mut balance, mut cost) = ([0i64; 6], 0);
                    for (_, wire) in wires.iter().enumerate().filter(|(n, _)| chosen >> n & 1 == 1) {
                        balance[wire.0] -= 1;
                        balance[wire.1] += 1;
                        cost += wire.2;
                    }
                    balance[1..5].iter().all(|each| *each == 0).then_some((Reverse(balance[5]), cost))
                })
                .min();
            assert_eq!(best, Some((Reverse(sent as i64), cost(&network, &arcs))), "{wires:?}");
            assert_eq!(network.negative_cycle(), None);
        }
    }
}
