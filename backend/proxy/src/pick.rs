//! Balancing: one endpoint out of those that may be chosen, by the upstream's policy.
//!
//! What always holds: an endpoint that is as good as the others gets its share. Ties go in turns; an
//! average of latencies fades while nothing is heard; and a policy sees only who may be chosen, so that
//! nobody inherits the share of a neighbour who is left out.

use super::{
    moment::Moment,
    upstream::{Ineligible, Nobody, Tried, Upstream},
};
use ringmaster_common::traffic::{MAX_ENDPOINTS, live::Candidate, upstream::Policy};
use std::{
    fmt,
    sync::{PoisonError, atomic::Ordering::Relaxed},
};

/// How much more than its share an endpoint takes before a consistent hash goes on to the next.
const LOAD_FACTOR: f64 = 1.25;

/// What of a request matters to the choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Of the key that a consistent hash goes by.
    pub key: u64,
    /// What the client's sticky cookie says.
    pub sticky: Option<u64>,
    pub tried: Tried,
}

/// Who was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    pub seat: usize,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Primary,
    Sticky,
    Alone,
    Turn,
    WeightedTurn,
    FewestUnderWay,
    BetterOf(usize, usize),
    FirstForKey,
    NextForKey,
}

impl Upstream {
    /// Chooses. `random` is any number that nobody can foresee.
    pub fn pick(&self, wish: &Wish, now: Moment, random: u64) -> Result<Pick, Nobody> {
        let (mut open, mut count, mut ejected) = ([0u16; MAX_ENDPOINTS], 0, None);
        for seat in 0..self.seats.len().min(MAX_ENDPOINTS) {
            match self.why_ineligible(seat, &wish.tried, now) {
                None => {
                    open[count] = seat as u16;
                    count += 1;
                }
                // The one that comes back first.
                Some(Ineligible::Ejected) => {
                    let until = self.seats[seat].endpoint.ejected_until.load(Relaxed);
                    ejected = ejected.min(Some((until, seat))).or(Some((until, seat)));
                }
                Some(_) => {}
            }
        }
        let open = &open[..count];
        let pick = |seat, why| Ok(Pick { seat, why });
        match (open, ejected) {
            ([], None) => Err(self.nobody(&wish.tried, now)),
            ([], Some((_, seat))) => pick(seat, Why::Alone),
            ([seat], _) => {
                pick(usize::from(*seat), if self.primary.is_some() { Why::Primary } else { Why::Alone })
            }
            _ => {
                let stuck = wish.sticky.and_then(|token| {
                    open.iter().find(|seat| self.seats[usize::from(**seat)].endpoint.token == token)
                });
                match stuck {
                    Some(seat) => pick(usize::from(*seat), Why::Sticky),
                    None => Ok(self.by_policy(open, wish.key, now, random)),
                }
            }
        }
    }

    fn by_policy(&self, open: &[u16], key: u64, now: Moment, random: u64) -> Pick {
        let (seat, why) = match self.config.policy {
            Policy::RoundRobin if open.iter().all(|seat| self.share_of(*seat, now) == 100) => {
                let turn = self.standing.cursor.fetch_add(1, Relaxed);
                (usize::from(open[turn % open.len()]), Why::Turn)
            }
            Policy::RoundRobin => (self.smooth(open, |seat| self.share_of(seat, now)), Why::Turn),
            Policy::WeightedRoundRobin => {
                (self.smooth(open, |seat| self.weight(seat.into(), now)), Why::WeightedTurn)
            }
            Policy::LeastConnections => (self.least_connections(open, now), Why::FewestUnderWay),
            Policy::P2cEwma => self.better_of_two(open, now, random),
            Policy::ConsistentHash => self.bounded_hash(open, key, now),
        };
        Pick { seat, why }
    }

    fn share_of(&self, seat: u16, now: Moment) -> u32 {
        self.share(&self.seats[usize::from(seat)].endpoint, now)
    }

    fn in_flight(&self, seat: u16) -> u32 {
        self.seats[usize::from(seat)].endpoint.in_flight.load(Relaxed)
    }

    /// Each is owed its weight each time, and who is owed the most pays for all. So a weight of 2 in
    /// 2, 1, 1 comes every other time, and not twice in a row.
    fn smooth(&self, open: &[u16], weight: impl Fn(u16) -> u32) -> usize {
        let mut owed = self.standing.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if owed.len() < self.seats.len() {
            owed.resize(self.seats.len(), 0);
        }
        let (mut best, mut total) = (usize::from(open[0]), 0);
        for seat in open {
            let weight = i64::from(weight(*seat));
            let seat = usize::from(*seat);
            owed[seat] += weight;
            total += weight;
            if owed[seat] > owed[best] {
                best = seat;
            }
        }
        owed[best] -= total;
        best
    }

    fn least_connections(&self, open: &[u16], now: Moment) -> usize {
        // Ties are broken in turns.
        let turn = self.standing.cursor.fetch_add(1, Relaxed) % open.len();
        let cost = |seat: u16| {
            (u64::from(self.in_flight(seat)) + 1, u64::from(self.weight(seat.into(), now)).max(1))
        };
        let mut best = (open[turn], cost(open[turn]));
        for seat in open[turn + 1..].iter().chain(&open[..turn]) {
            let (load, weight) = cost(*seat);
            // load / weight, without the division.
            if load * best.1.1 < best.1.0 * weight {
                best = (*seat, (load, weight));
            }
        }
        best.0.into()
    }

    fn better_of_two(&self, open: &[u16], now: Moment, random: u64) -> (usize, Why) {
        let count = open.len() as u64;
        let first = (random >> 32) % count;
        let second = (first + 1 + (random & 0xffff_ffff) % (count - 1)) % count;
        let (first, second) = (open[first as usize], open[second as usize]);
        let better = if self.cost(second, now) < self.cost(first, now) { second } else { first };
        (better.into(), Why::BetterOf(first.into(), second.into()))
    }

    /// What a request would wait for: the latency, once for each that is under way, and for itself.
    fn cost(&self, seat: u16, now: Moment) -> f64 {
        /// Of who has something under way and has not answered yet. It gets no more before it does,
        /// unless all are like that.
        const UNPROVEN_MICROS: f64 = 1e9;
        let load = f64::from(self.in_flight(seat));
        let latency = self.seats[usize::from(seat)].endpoint.ewma.value(now);
        let weight = f64::from(self.weight(seat.into(), now)).max(1.0);
        if latency == 0.0 && load > 0.0 {
            return (UNPROVEN_MICROS + load) / weight;
        }
        latency.max(1.0) * (load + 1.0) / weight
    }

    /// Rendezvous hashing: the key draws a lot for each endpoint, and the highest wins, in proportion to
    /// weight. When an endpoint goes, its keys go elsewhere and no others. Who has more than its
    /// share under way is passed over.
    fn bounded_hash(&self, open: &[u16], key: u64, now: Moment) -> (usize, Why) {
        let load: f64 = open.iter().map(|seat| f64::from(self.in_flight(*seat))).sum::<f64>() + 1.0;
        let weights: f64 = open.iter().map(|seat| f64::from(self.weight((*seat).into(), now))).sum();
        let (mut first, mut within) = ((f64::MIN, open[0]), (f64::MIN, open[0]));
        for seat in open {
            let weight = f64::from(self.weight((*seat).into(), now));
            let token = self.seats[usize::from(*seat)].endpoint.token;
            let lot = -weight / unit(mix(key ^ token)).ln();
            let bound = (LOAD_FACTOR * load * weight / weights).ceil();
            if lot > first.0 {
                first = (lot, *seat);
            }
            if lot > within.0 && f64::from(self.in_flight(*seat)) < bound {
                within = (lot, *seat);
            }
        }
        // The bounds add up to more than there is, so somebody is within.
        let why = if first.1 == within.1 { Why::FirstForKey } else { Why::NextForKey };
        (within.1.into(), why)
    }

    /// Everybody who could have been chosen, for people to read.
    pub fn candidates(&self, tried: &Tried, now: Moment) -> Vec<Candidate> {
        let weighed = |seat: usize| {
            let endpoint = &self.seats[seat].endpoint;
            let load = endpoint.in_flight.load(Relaxed);
            match self.config.policy {
                Policy::P2cEwma => format!("{:.0} µs, {load} under way", endpoint.ewma.value(now)),
                Policy::RoundRobin | Policy::LeastConnections if self.seats[seat].weight == 1 => {
                    format!("{load} under way")
                }
                _ => format!("weight {}, {load} under way", self.seats[seat].weight),
            }
        };
        let candidate = |seat: usize| Candidate {
            endpoint: self.seats[seat].endpoint.id.clone(),
            why_ineligible: self.why_ineligible(seat, tried, now).map(|why| why.as_str().to_owned()),
            weighed: weighed(seat),
        };
        (0..self.seats.len()).map(candidate).collect()
    }

    /// Why this one, as a sentence.
    pub fn explain(&self, why: Why) -> impl fmt::Display {
        let id = |seat: usize| self.seats.get(seat).map_or("", |seat| seat.endpoint.id.as_str());
        match why {
            Why::Primary => "it is primary".to_owned(),
            Why::Sticky => "the client's cookie names it".to_owned(),
            Why::Alone => "no other is left".to_owned(),
            Why::Turn => "it was its turn".to_owned(),
            Why::WeightedTurn => "it was its turn, by weight".to_owned(),
            Why::FewestUnderWay => "the fewest requests are under way there, for its weight".to_owned(),
            Why::BetterOf(one, other) => format!("the better of {} and {}", id(one), id(other)),
            Why::FirstForKey => "it is the first for this key".to_owned(),
            Why::NextForKey => "it is the next for this key: the first has more than its share".to_owned(),
        }
    }
}

/// The same on every node and in every version: FNV-1a, mixed so that all bits count.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    mix(fnv)
}

/// SplitMix64's finaliser.
pub fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Between 0 and 1, neither of them included.
fn unit(value: u64) -> f64 {
    ((value >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
