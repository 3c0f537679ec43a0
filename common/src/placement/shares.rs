//! The fair share of each node: in proportion to its weight, as far as its zone and its number of shards allow.
//!
//! All shares grow together, each at the pace of its weight, until a node would hold every shard, or a zone as much as it
//! may; those stay where they are, and the others grow on (water-filling, the max-min fair division). Shares are exact
//! fractions.

use std::cmp::Ordering;

/// A number of replicas: `part` of `whole`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    part: u128,
    whole: u128,
}

impl Share {
    pub fn floor(self) -> u32 {
        (self.part / self.whole) as u32
    }

    pub fn ceil(self) -> u32 {
        self.part.div_ceil(self.whole) as u32
    }

    pub fn as_f64(self) -> f64 {
        self.part as f64 / self.whole as f64
    }
}

/// The most replicas of one shard in one zone: as even as the zones' numbers of nodes allow.
pub(super) fn zone_cap(zone_of: &[usize], zones: usize, replicas: u32) -> u32 {
    let mut nodes = vec![0; zones];
    zone_of.iter().for_each(|zone| nodes[*zone] += 1);
    let room = |cap: u32| nodes.iter().map(|nodes| cap.min(*nodes)).sum::<u32>();
    (0..=replicas).find(|cap| room(*cap) >= replicas).unwrap_or(replicas)
}

/// How fast a share has grown when it stops: replicas for each unit of weight.
#[derive(Clone, Copy, Debug)]
struct Level {
    replicas: u128,
    weight: u128,
}

impl Level {
    fn cmp(&self, other: &Level) -> Ordering {
        (self.replicas * other.weight).cmp(&(other.replicas * self.weight))
    }
}

/// The fair shares of nodes with these weights in these zones.
pub(super) fn fair(
    weights: &[u32],
    zone_of: &[usize],
    zones: usize,
    shards: u32,
    replicas: u32,
    zone_cap: u32,
) -> Vec<Share> {
    let mut shares: Vec<Option<Share>> = vec![None; weights.len()];
    let growing = |shares: &[Option<Share>], zone: Option<usize>| -> u128 {
        let grows =
            |place: &usize| shares[*place].is_none() && zone.is_none_or(|zone| zone_of[*place] == zone);
        (0..weights.len()).filter(grows).map(|place| u128::from(weights[place])).sum()
    };
    // What those that stay have: whole numbers, since each is every shard, or all that a zone may hold beside such nodes.
    let mut left = u128::from(shards) * u128::from(replicas);
    let mut left_in: Vec<u128> = vec![u128::from(shards) * u128::from(zone_cap); zones];
    while growing(&shares, None) > 0 {
        let all = Level { replicas: left, weight: growing(&shares, None) };
        let of_zone = |zone: usize| {
            let weight = growing(&shares, Some(zone));
            (weight > 0).then_some(Level { replicas: left_in[zone], weight })
        };
        let zone =
            (0..zones).filter_map(|zone| Some((zone, of_zone(zone)?))).min_by(|(_, a), (_, b)| a.cmp(b));
        let of_place = |place: usize| Level { replicas: shards.into(), weight: weights[place].into() };
        let place = (0..weights.len()).filter(|place| shares[*place].is_none());
        let place = place.map(|place| (place, of_place(place))).min_by(|(_, a), (_, b)| a.cmp(b));
        let (Some((zone, zone_level)), Some((place, place_level))) = (zone, place) else { break };
        if place_level.cmp(&zone_level).is_le() && place_level.cmp(&all).is_le() {
            shares[place] = Some(Share { part: shards.into(), whole: 1 });
            left -= u128::from(shards);
            left_in[zone_of[place]] -= u128::from(shards);
            continue;
        }
        let (level, stops): (Level, Vec<usize>) = match zone_level.cmp(&all) {
            Ordering::Less => {
                (zone_level, (0..weights.len()).filter(|place| zone_of[*place] == zone).collect())
            }
            Ordering::Equal | Ordering::Greater => (all, (0..weights.len()).collect()),
        };
        for place in stops {
            if shares[place].is_none() {
                let part = level.replicas * u128::from(weights[place]);
                shares[place] = Some(Share { part, whole: level.weight });
            }
        }
        left -= level.replicas;
        left_in[zone] = 0;
    }
    shares.into_iter().map(|share| share.unwrap_or(Share { part: 0, whole: 1 })).collect()
}
