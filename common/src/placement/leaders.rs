//! Which replica of each shard should lead it: leaders spread evenly over the replicas, with the fewest transfers.
//!
//! A second flow: one unit from each shard to one of its replicas, at no cost to the present leader; a node leads its
//! number of replicas divided by the replicas of a shard, rounded down or up, as far as those that may lead allow.

use super::{
    Replicas, counts,
    flow::{Arc, Network},
};
use crate::id::NodeId;
use std::collections::{BTreeMap, BTreeSet};

const TRANSFER: i64 = 1;
/// More than all transfers together.
const SURPLUS: i64 = 1 << 20;

/// The leader of each shard; none where no replica may lead. `may_lead` are the nodes that may.
pub fn solve(
    placement: &Replicas,
    current: &[Option<NodeId>],
    may_lead: &BTreeSet<NodeId>,
) -> Vec<Option<NodeId>> {
    let held = counts(placement);
    let nodes: Vec<NodeId> = held.keys().filter(|node| may_lead.contains(node)).copied().collect();
    let (source, sink, shard_vertex) = (0, 1, |shard| 2 + shard);
    let node_vertex = |node| 2 + placement.len() + node;
    let mut network = Network::new(node_vertex(nodes.len()));
    let mut quotas: BTreeMap<NodeId, Arc> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let (least, most) = quota(held[node], placement);
        quotas.insert(*node, network.arc(node_vertex(index), sink, least, 0));
        network.arc(node_vertex(index), sink, most - least, SURPLUS);
        // Where others may not lead, each further shard costs more than the one before: none leads two more than need be.
        for more in 0..held[node].saturating_sub(most) {
            network.arc(node_vertex(index), sink, 1, SURPLUS * i64::from(2 + more));
        }
    }
    let mut leads: Vec<Vec<(NodeId, Arc)>> = Vec::with_capacity(placement.len());
    for (shard, replicas) in placement.iter().enumerate() {
        let elected = network.arc(source, shard_vertex(shard), 1, 0);
        let present = current.get(shard).copied().flatten();
        let mut arcs = Vec::new();
        for node in replicas {
            let Ok(index) = nodes.binary_search(node) else { continue };
            let cost = if present == Some(*node) { 0 } else { TRANSFER };
            arcs.push((*node, network.arc(shard_vertex(shard), node_vertex(index), 1, cost)));
        }
        // What costs nothing flows from the start.
        if let Some((node, arc)) = arcs.iter().find(|(node, _)| present == Some(*node)) {
            network.send(&[elected, *arc, quotas[node]]);
        }
        leads.push(arcs);
    }
    network.maximize(source, sink);
    let leader = |arcs: &Vec<(NodeId, Arc)>| {
        arcs.iter().find(|(_, arc)| network.flow(*arc) > 0).map(|(node, _)| *node)
    };
    leads.iter().map(leader).collect()
}

/// The fewest and the most shards that a node with so many replicas leads.
pub fn quota(held: u32, placement: &Replicas) -> (u32, u32) {
    let replicas = placement.iter().map(BTreeSet::len).max().unwrap_or(1).max(1) as u32;
    (held / replicas, held.div_ceil(replicas))
}
