//! The ring: where keys, shards and nodes are in a hash space of 64 bits.
//!
//! A key belongs to one shard for ever: shards are equal arcs of the ring, and their number never changes. A node is at
//! several positions, its vnodes, in proportion to its weight. The order in which a walk around the ring meets the nodes
//! is what the placement decides by where nothing else does.
//!
//! Positions are the same in every version and on every platform: [XXH3](https://xxhash.com), 64 bits, seed 0. A key is
//! hashed as it is; vnode `n` of a node as 16 bytes, the id of the node and `n`, both little-endian.

use crate::id::NodeId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{fmt, num::ParseIntError, ops::RangeInclusive, str::FromStr};
use xxhash_rust::xxh3::xxh3_64;

/// How many shards a cluster may have. The number is chosen when the cluster is created.
pub const SHARDS: RangeInclusive<u32> = 1..=1_024;
pub const DEFAULT_SHARDS: u32 = 64;
/// Of a node of weight 1.
pub const VNODES: u32 = 128;
/// Of all nodes together. Where their weights would make more, each unit of weight has fewer vnodes, one at least.
pub const MAX_VNODES: u64 = 65_536;

/// Beyond 2^53, so JSON has it as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    pub fn of_key(key: &[u8]) -> Position {
        Position(xxh3_64(key))
    }

    fn of_vnode(node: NodeId, vnode: u64) -> Position {
        let [a, b] = [node.0, vnode].map(u64::to_le_bytes);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&a);
        bytes[8..].copy_from_slice(&b);
        Position(xxh3_64(&bytes))
    }

    /// Where the arc of a shard begins.
    pub fn of_shard(shard: u32, shards: u32) -> Position {
        // The first position p with p × shards / 2^64 >= shard.
        let start = (u128::from(shard) << 64).div_ceil(u128::from(shards.max(1)));
        Position(start as u64)
    }

    /// The shard of this position, counted from 0.
    pub fn shard(self, shards: u32) -> u32 {
        ((u128::from(self.0) * u128::from(shards)) >> 64) as u32
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Position {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u64::from_str_radix(text, 16).map(Position)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The vnodes of all nodes in the order of their positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    vnodes: Vec<(Position, NodeId)>,
    nodes: Vec<NodeId>,
}

impl Ring {
    /// From the nodes with their weights, each node once.
    pub fn new(nodes: impl IntoIterator<Item = (NodeId, u32)>) -> Ring {
        let mut nodes: Vec<_> = nodes.into_iter().filter(|(_, weight)| *weight > 0).collect();
        nodes.sort_unstable();
        let weights: u64 = nodes.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let each = (MAX_VNODES / weights.max(1)).clamp(1, VNODES.into());
        let vnodes_of = |&(node, weight): &(NodeId, u32)| {
            let count = u64::from(weight) * each;
            (0..count).map(move |vnode| (Position::of_vnode(node, vnode), node))
        };
        let mut vnodes: Vec<_> = nodes.iter().flat_map(vnodes_of).collect();
        vnodes.sort_unstable();
        Ring { vnodes, nodes: nodes.into_iter().map(|(node, _)| node).collect() }
    }

    pub fn vnodes(&self) -> &[(Position, NodeId)] {
        &self.vnodes
    }

    /// The nodes in the order in which a walk from `position`, clockwise, meets them, each once.
    pub fn walk(&self, position: Position) -> Vec<NodeId> {
        let start = self.vnodes.partition_point(|(at, _)| *at < position);
        let (before, after) = self.vnodes.split_at(start);
        let (mut met, mut is_met) = (Vec::with_capacity(self.nodes.len()), vec![false; self.nodes.len()]);
        for (_, node) in after.iter().chain(before) {
            let Ok(index) = self.nodes.binary_search(node) else { continue };
            if !is_met[index] {
                is_met[index] = true;
                met.push(*node);
                if met.len() == self.nodes.len() {
                    break;
                }
            }
        }
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with the reference implementation, xxHash 0.8.3.
    #[test]
    fn positions_are_the_same_everywhere() {
        let vectors = [
            ("", "2d06800538d394c2"),
            ("a", "e6c632b61e964e1f"),
            ("jobs/nightly", "c706edc74267b8f0"),
            ("kundenakte/4711/größe", "4baab0bedff4eea6"),
        ];
        for (key, position) in vectors {
            assert_eq!(Position::of_key(key.as_bytes()).to_string(), position, "{key:?}");
        }
        assert_eq!(Position::of_vnode(NodeId(1), 0).to_string(), "26f2a1148cf52011");
        assert_eq!(Position::of_vnode(NodeId(7), 127).to_string(), "a79aac36d7d1889e");
    }

    #[test]
    fn shards_are_equal_arcs_without_a_gap() {
        for shards in [1, 2, 3, 64, 100, 255, 1_024] {
            assert_eq!(Position(u64::MAX).shard(shards), shards - 1);
            for shard in 0..shards {
                let start = Position::of_shard(shard, shards);
                assert_eq!(start.shard(shards), shard, "of {shards}");
                if let Some(before) = start.0.checked_sub(1) {
                    assert_eq!(Position(before).shard(shards), shard - 1, "of {shards}");
                }
            }
        }
    }

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for position in [Position(0), Position(u64::MAX), Position::of_key(b"x")] {
            let json = serde_json::to_string(&position).unwrap();
            assert_eq!(json.len(), 18, "{json}");
            assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
        }
        assert!(serde_json::from_str::<Position>("\"xyz\"").is_err());
    }

    #[test]
    fn a_walk_meets_each_node_once_and_a_heavy_one_early() {
        let ring = Ring::new([(NodeId(1), 1), (NodeId(2), 1), (NodeId(3), 8)]);
        let mut first = [0; 4];
        for shard in 0..1_000 {
            let walk = ring.walk(Position::of_shard(shard, 1_000));
            let mut sorted = walk.clone();
            sorted.sort();
            assert_eq!(sorted, [1, 2, 3].map(NodeId));
            first[walk[0].0 as usize] += 1;
        }
        assert!((700..=900).contains(&first[3]), "8 of 10 parts: {first:?}");
        assert!(Ring::default().walk(Position(5)).is_empty());
    }
}
