//! The placement: which nodes hold each shard, and which of them should lead it.
//!
//! It is computed exactly, as a flow of minimum cost: from a source to each shard as many units as it has replicas, from
//! the shard to each zone no more than the zone may hold of one shard, from there one unit to each node, and from each
//! node as much as its quota to a sink.
//!
//! ```text
//! source ──R──► shard ──cap──► (shard, zone) ──1──► node ──quota──► sink
//! ```
//!
//! Of all placements it is one that, in this order,
//! 1. gives each node its fair share, by its weight and under the caps of zones ([`shares`]), within one replica,
//! 2. moves the fewest replicas,
//! 3. has the replicas that move where the ring has them: the nodes that a walk from the shard's position meets first.
//!
//! That it is optimal can be checked: the flow's residual graph has no cycle of negative cost
//! ([`Problem::negative_cycle`]).

pub mod baseline;
mod flow;
pub mod leaders;
pub mod shares;
#[cfg(test)]
mod tests;

use crate::{
    id::NodeId,
    ring::{Position, Ring},
};
use flow::{Arc, Network};
use shares::Share;
use std::collections::{BTreeMap, BTreeSet};

/// A node that may hold shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub node: NodeId,
    /// Nodes without a zone are in one together.
    pub zone: String,
    /// 1 or more.
    pub weight: u32,
}

/// The nodes of each shard.
pub type Replicas = Vec<BTreeSet<NodeId>>;

/// How far the result may be from fair shares where that saves moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Each node has its fair share, rounded down or up.
    Even,
    /// Each node may have this many replicas more or less than that.
    Within(u32),
    /// No replica is moved for the sake of balance.
    Keep,
}

/// What a placement is computed from. The result is the same on every node and in every browser.
#[derive(Clone, Debug)]
pub struct Problem {
    places: Vec<Place>,
    zones: Vec<String>,
    /// The zone of each place.
    zone_of: Vec<usize>,
    shares: Vec<Share>,
    replicas: u32,
    /// The most replicas of a shard in one zone.
    zone_cap: u32,
    balance: Balance,
    /// The nodes that hold each shard now.
    current: Replicas,
    /// Of each shard, how many nodes the walk around the ring meets before each place.
    ranks: Vec<Vec<u32>>,
}

/// A move costs more than all differences of ring distance together, and a replica beyond the rounded-down share more
/// than all moves.
const MOVE: i64 = 1 << 24;
const SURPLUS: i64 = 1 << 48;

impl Problem {
    /// `current` has an entry for each shard, empty for one that was never placed. Where there are fewer places than
    /// `replicas`, a shard has as many replicas as there are places.
    pub fn new(places: &[Place], replicas: u32, current: &[BTreeSet<NodeId>], balance: Balance) -> Problem {
        let mut places = places.to_vec();
        places.sort_by_key(|place| place.node);
        places.dedup_by_key(|place| place.node);
        let names: BTreeSet<&String> = places.iter().map(|place| &place.zone).collect();
        let zones: Vec<String> = names.into_iter().cloned().collect();
        let zone_of: Vec<usize> =
            places.iter().map(|place| zones.binary_search(&place.zone).unwrap_or_default()).collect();
        let shards = current.len() as u32;
        let replicas = replicas.min(places.len() as u32);
        let zone_cap = shares::zone_cap(&zone_of, zones.len(), replicas);
        let weights: Vec<u32> = places.iter().map(|place| place.weight.max(1)).collect();
        let shares = shares::fair(&weights, &zone_of, zones.len(), shards, replicas, zone_cap);
        let ring = Ring::new(places.iter().map(|place| (place.node, place.weight.max(1))));
        let ranks = (0..shards).map(|shard| {
            let mut ranks = vec![0; places.len()];
            for (rank, node) in ring.walk(Position::of_shard(shard, shards)).iter().enumerate() {
                if let Ok(place) = places.binary_search_by_key(node, |place| place.node) {
                    ranks[place] = rank as u32;
                }
            }
            ranks
        });
        let ranks = ranks.collect();
        Problem {
            places,
            zones,
            zone_of,
            shares,
            replicas,
            zone_cap,
            balance,
            current: current.to_vec(),
            ranks,
        }
    }

    /// The share of each node that is fair, in the order of ids.
    pub fn shares(&self) -> impl Iterator<Item = (NodeId, Share)> {
        self.places.iter().map(|place| place.node).zip(self.shares.iter().copied())
    }

    /// The replicas of the fullest node, as a multiple of its fair share.
    pub fn fullest(&self, placement: &Replicas) -> f64 {
        let counts = counts(placement);
        let of_share = |(node, share): (NodeId, Share)| {
            f64::from(counts.get(&node).copied().unwrap_or_default()) / share.as_f64()
        };
        self.shares().map(of_share).fold(0.0, f64::max)
    }

    /// How many replicas a shard has.
    pub fn replicas(&self) -> u32 {
        self.replicas
    }

    /// The most replicas of one shard in one zone.
    pub fn zone_cap(&self) -> u32 {
        self.zone_cap
    }

    pub fn solve(&self) -> Replicas {
        let mut graph = Graph::new(self);
        graph.start_with_what_stays(self);
        graph.network.maximize(graph.source, graph.sink);
        graph.replicas(self)
    }

    /// Nodes by which a placement of the same size would cost less than `placement`, which keeps to all limits. None:
    /// it is optimal.
    ///
    /// # Errors
    ///
    /// The limit that `placement` does not keep to.
    pub fn negative_cycle(&self, placement: &Replicas) -> Result<Option<Vec<String>>, String> {
        let mut graph = Graph::new(self);
        graph.load(self, placement)?;
        Ok(graph
            .network
            .negative_cycle()
            .map(|cycle| cycle.iter().map(|at| graph.describe(self, *at)).collect()))
    }

    /// The fewest and the most replicas that a node may have.
    fn quota(&self, place: usize) -> (u32, u32) {
        let (share, shards) = (self.shares[place], self.current.len() as u32);
        match self.balance {
            Balance::Even => (share.floor(), share.ceil()),
            Balance::Within(more) => {
                (share.floor().saturating_sub(more), share.ceil().saturating_add(more).min(shards))
            }
            Balance::Keep => (0, shards),
        }
    }
}

/// How many replicas have to be copied to come from one placement to the other.
pub fn moves(from: &Replicas, to: &Replicas) -> usize {
    from.iter().zip(to).map(|(from, to)| to.difference(from).count()).sum()
}

/// How many replicas each node has.
pub fn counts(placement: &Replicas) -> BTreeMap<NodeId, u32> {
    let mut counts = BTreeMap::new();
    for node in placement.iter().flatten() {
        *counts.entry(*node).or_default() += 1;
    }
    counts
}

/// The problem as a network. Vertices: source, sink, shards, pairs of shard and zone, places.
struct Graph {
    network: Network,
    source: usize,
    sink: usize,
    shards: Vec<Arc>,
    /// By shard and zone.
    zones: Vec<Vec<Arc>>,
    /// By shard and place.
    places: Vec<Vec<Arc>>,
    /// The rounded-down share of each place, and what may be beyond it.
    quotas: Vec<[Arc; 2]>,
}

impl Graph {
    fn new(problem: &Problem) -> Graph {
        let (shards, zones) = (problem.current.len(), problem.zones.len());
        let (source, sink) = (0, 1);
        let shard_vertex = |shard| 2 + shard;
        let zone_vertex = |shard, zone| 2 + shards + shard * zones + zone;
        let place_vertex = |place| 2 + shards + shards * zones + place;
        let mut network = Network::new(place_vertex(problem.places.len()));
        let mut graph = Graph {
            network: Network::new(0),
            source,
            sink,
            shards: vec![],
            zones: vec![],
            places: vec![],
            quotas: vec![],
        };
        for (shard, current) in problem.current.iter().enumerate() {
            graph.shards.push(network.arc(source, shard_vertex(shard), problem.replicas, 0));
            let to_zone =
                |zone| network.arc(shard_vertex(shard), zone_vertex(shard, zone), problem.zone_cap, 0);
            graph.zones.push((0..zones).map(to_zone).collect());
            let to_place = |(place, at): (usize, &Place)| {
                let zone = zone_vertex(shard, problem.zone_of[place]);
                let stays = current.contains(&at.node);
                let cost = if stays { 0 } else { MOVE + i64::from(problem.ranks[shard][place]) };
                network.arc(zone, place_vertex(place), 1, cost)
            };
            graph.places.push(problem.places.iter().enumerate().map(to_place).collect());
        }
        for place in 0..problem.places.len() {
            let (least, most) = problem.quota(place);
            // No node has more than this before each has that.
            let beyond = if problem.balance == Balance::Keep { 0 } else { SURPLUS };
            graph.quotas.push([
                network.arc(place_vertex(place), sink, least, 0),
                network.arc(place_vertex(place), sink, most - least, beyond),
            ]);
        }
        graph.network = network;
        graph
    }

    /// What costs nothing flows from the start.
    fn start_with_what_stays(&mut self, problem: &Problem) {
        for (shard, current) in problem.current.iter().enumerate() {
            for (place, zone) in problem.zone_of.iter().enumerate() {
                if current.contains(&problem.places[place].node) {
                    let [share, beyond] = self.quotas[place];
                    let path = [self.shards[shard], self.zones[shard][*zone], self.places[shard][place]];
                    let is_free = problem.balance == Balance::Keep;
                    if !self.network.send(&[path[0], path[1], path[2], share]) && is_free {
                        self.network.send(&[path[0], path[1], path[2], beyond]);
                    }
                }
            }
        }
    }

    /// This placement flows.
    fn load(&mut self, problem: &Problem, placement: &Replicas) -> Result<(), String> {
        if placement.len() != problem.current.len() {
            return Err(format!("it has {} shards, not {}", placement.len(), problem.current.len()));
        }
        for (shard, replicas) in placement.iter().enumerate() {
            if replicas.len() != problem.replicas as usize {
                return Err(format!(
                    "shard {shard} has {} replicas, not {}",
                    replicas.len(),
                    problem.replicas
                ));
            }
            for node in replicas {
                let Ok(place) = problem.places.binary_search_by_key(node, |place| place.node) else {
                    return Err(format!("shard {shard} is at node {node}, which may hold none"));
                };
                let zone = problem.zone_of[place];
                let [share, beyond] = self.quotas[place];
                let path = [self.shards[shard], self.zones[shard][zone], self.places[shard][place]];
                let is_sent = self.network.send(&[path[0], path[1], path[2], share])
                    || self.network.send(&[path[0], path[1], path[2], beyond]);
                if !is_sent {
                    return Err(format!(
                        "shard {shard}: node {node} or zone {:?} has too many",
                        problem.zones[zone]
                    ));
                }
            }
        }
        Ok(())
    }

    fn replicas(&self, problem: &Problem) -> Replicas {
        let of_shard = |arcs: &Vec<Arc>| {
            let holds = arcs.iter().zip(&problem.places).filter(|(arc, _)| self.network.flow(**arc) > 0);
            holds.map(|(_, place)| place.node).collect()
        };
        self.places.iter().map(of_shard).collect()
    }

    fn describe(&self, problem: &Problem, vertex: usize) -> String {
        let (shards, zones) = (problem.current.len(), problem.zones.len());
        match vertex {
            0 => "source".to_owned(),
            1 => "sink".to_owned(),
            shard if shard < 2 + shards => format!("shard {}", shard - 2),
            pair if pair < 2 + shards + shards * zones => {
                let pair = pair - 2 - shards;
                format!("shard {} in zone {:?}", pair / zones, problem.zones[pair % zones])
            }
            place => format!("node {}", problem.places[place - 2 - shards - shards * zones].node),
        }
    }
}
