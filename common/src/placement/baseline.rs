//! A plain consistent-hash ring, to compare the placement with: each shard is at the first nodes that a walk from its
//! position meets, those in a zone that has as many replicas as it may left out.

use super::{Place, Replicas, shares};
use crate::ring::{Position, Ring};
use std::collections::{BTreeMap, BTreeSet};

pub fn solve(places: &[Place], shards: u32, replicas: u32) -> Replicas {
    let replicas = replicas.min(places.len() as u32);
    let zones: Vec<&String> =
        places.iter().map(|place| &place.zone).collect::<BTreeSet<_>>().into_iter().collect();
    let zone_of: Vec<usize> =
        places.iter().map(|place| zones.binary_search(&&place.zone).unwrap_or_default()).collect();
    let cap = shares::zone_cap(&zone_of, zones.len(), replicas);
    let zones: BTreeMap<_, _> = places.iter().map(|place| place.node).zip(zone_of).collect();
    let ring = Ring::new(places.iter().map(|place| (place.node, place.weight)));
    let place = |shard| {
        let mut in_zone: BTreeMap<usize, u32> = BTreeMap::new();
        let mut chosen = BTreeSet::new();
        for node in ring.walk(Position::of_shard(shard, shards)) {
            let used = in_zone.entry(zones[&node]).or_default();
            if *used < cap && chosen.len() < replicas as usize {
                *used += 1;
                chosen.insert(node);
            }
        }
        chosen
    };
    (0..shards).map(place).collect()
}
