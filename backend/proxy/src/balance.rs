//! Balancing: one endpoint out of those that are eligible, by the upstream's policy.
//!
//! An endpoint is ineligible while it is drained, in maintenance, unhealthy (by the cluster's verdict or by this node's
//! own), new and without a passed check, at its limit of requests, standing by, or ejected for failures. An ejection is only an opinion: if no other
//! endpoint is left, an ejected endpoint is better than none.
//!
//! What always holds: an endpoint that is as good as the others gets its share. Ties are broken in turns; an average of
//! latencies decays while no request is measured; and a policy sees eligible endpoints only, so that the share of an
//! ineligible endpoint is spread over all others.

use crate::{
    attempt::Attempt,
    coarse_clock::CoarseInstant,
    decisions,
    hash::{mix, unit},
    selection::{Choice, Ineligible, NoEligibleEndpoint, Reason, SelectionHints, SlotSet},
    upstream::{Slot, Upstream},
};
use ringmaster_common::traffic::{
    MAX_ENDPOINTS,
    health::Verdict,
    live::Candidate,
    upstream::{EndpointState, Policy},
};
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

/// How much more than its share an endpoint takes before a consistent hash chooses the next.
const LOAD_FACTOR: f64 = 1.25;

impl Upstream {
    /// Chooses an endpoint for a request of this worker, and begins an attempt there. `random` is an unpredictable number.
    pub fn choose(
        &self,
        hints: &SelectionHints,
        worker: usize,
        now: CoarseInstant,
        random: u64,
    ) -> Result<Attempt<'_>, NoEligibleEndpoint> {
        let (mut open, mut count, mut ejected) = ([0u16; MAX_ENDPOINTS], 0, None);
        for slot in 0..self.slots.len().min(MAX_ENDPOINTS) {
            match self.why_ineligible(slot, &hints.tried, now) {
                None => {
                    open[count] = slot as u16;
                    count += 1;
                }
                // The one whose ejection ends first.
                Some(Ineligible::Ejected) => {
                    let until = self.endpoint(slot).ejected_until.load(Relaxed);
                    ejected = ejected.min(Some((until, slot))).or(Some((until, slot)));
                }
                Some(_) => {}
            }
        }
        let open = &open[..count];
        let choice = |slot, reason| Choice { slot, reason };
        let choice = match (open, ejected) {
            ([], None) => return Err(self.no_eligible_endpoint(&hints.tried, now)),
            ([], Some((_, slot))) => choice(slot, Reason::OnlyOne),
            ([slot], _) => {
                let reason = if self.primary.is_some() { Reason::Primary } else { Reason::OnlyOne };
                choice(usize::from(*slot), reason)
            }
            _ => {
                let sticky = hints.sticky.and_then(|token| {
                    open.iter().find(|slot| self.endpoint(usize::from(**slot)).token == token)
                });
                match sticky {
                    Some(slot) => choice(usize::from(*slot), Reason::Sticky),
                    None => self.by_policy(open, hints.key, worker, now, random),
                }
            }
        };
        let endpoint = self.endpoint(choice.slot);
        // Seldom, because it is for people; and before the request itself is counted, as the policy saw it.
        let decisions = &self.stats.decisions;
        let is_sampled = decisions.chosen.is_due(decisions::INTERVAL, now);
        let considered = is_sampled.then(|| self.candidates(&hints.tried, now));
        // Counted as soon as it is chosen, so that the next choice sees it. The end of the attempt takes it back.
        endpoint.in_flight.fetch_add(1, Relaxed);
        let sticky = (hints.sticky != Some(endpoint.token)).then_some(endpoint.token);
        Ok(Attempt { upstream: self, choice, tried: hints.tried, since: now, sticky, considered })
    }

    /// Why a slot cannot be chosen, if so.
    pub fn why_ineligible(&self, slot: usize, tried: &SlotSet, now: CoarseInstant) -> Option<Ineligible> {
        let Slot { endpoint, state, verdict, awaits_first_check, .. } = &self.slots[slot];
        // Which endpoint is primary, and its health, is decided by the cluster alone, never by one node.
        let is_primary = self.primary == Some(Some(slot));
        match state {
            _ if self.primary.is_some() && !is_primary => Some(Ineligible::Standby),
            EndpointState::Drain => Some(Ineligible::Drained),
            EndpointState::Maintenance => Some(Ineligible::Maintenance),
            EndpointState::Ready
                if *verdict == Verdict::Unhealthy || !is_primary && endpoint.is_unhealthy() =>
            {
                Some(Ineligible::Unhealthy)
            }
            EndpointState::Ready if *awaits_first_check && !endpoint.is_healthy() => {
                Some(Ineligible::Unchecked)
            }
            EndpointState::Ready if endpoint.in_flight.load(Relaxed) >= self.config.max_in_flight => {
                Some(Ineligible::Full)
            }
            EndpointState::Ready if tried.has(slot) => Some(Ineligible::Tried),
            EndpointState::Ready if is_primary => None,
            EndpointState::Ready => endpoint.ejected_for(now).map(|_| Ineligible::Ejected),
        }
    }

    /// For example `upstream u has 3 endpoints: 2 unhealthy, 1 drained`.
    fn no_eligible_endpoint(&self, tried: &SlotSet, now: CoarseInstant) -> NoEligibleEndpoint {
        if self.slots.is_empty() {
            return NoEligibleEndpoint(format!("upstream {} has no endpoints", self.name));
        }
        let mut counts: BTreeMap<Ineligible, usize> = BTreeMap::new();
        for why in (0..self.slots.len()).filter_map(|slot| self.why_ineligible(slot, tried, now)) {
            *counts.entry(why).or_default() += 1;
        }
        let reasons: Vec<_> = counts.iter().map(|(why, count)| format!("{count} {}", why.as_str())).collect();
        let plural = if self.slots.len() == 1 { "" } else { "s" };
        let primary = if self.primary == Some(None) { ", and none is primary" } else { "" };
        NoEligibleEndpoint(format!(
            "upstream {} has {} endpoint{plural}: {}{primary}",
            self.name,
            self.slots.len(),
            reasons.join(", ")
        ))
    }

    fn by_policy(&self, open: &[u16], key: u64, worker: usize, now: CoarseInstant, random: u64) -> Choice {
        let warm_up = |slot: u16| self.warm_up_percent(slot.into(), now);
        let weight = |slot: u16| self.effective_weight(slot.into(), now);
        let (slot, reason) = match self.config.policy {
            Policy::RoundRobin if open.iter().all(|slot| warm_up(*slot) == 100) => {
                let turn = self.stats.cursor.fetch_add(1, Relaxed);
                (usize::from(open[turn % open.len()]), Reason::RoundRobin)
            }
            Policy::RoundRobin => (self.smooth_weighted_rr(open, worker, warm_up), Reason::RoundRobin),
            Policy::WeightedRoundRobin => {
                (self.smooth_weighted_rr(open, worker, weight), Reason::WeightedRoundRobin)
            }
            Policy::LeastConnections => (self.least_connections(open, now), Reason::LeastConnections),
            Policy::P2cEwma => self.power_of_two_choices(open, now, random),
            Policy::ConsistentHash => self.bounded_hash(open, key, now),
        };
        Choice { slot, reason }
    }

    /// The weight of a slot by now, in hundredths: during a slow start it grows.
    pub fn effective_weight(&self, slot: usize, now: CoarseInstant) -> u32 {
        self.slots[slot].weight * self.warm_up_percent(slot, now)
    }

    /// How much of its weight an endpoint has by now.
    fn warm_up_percent(&self, slot: usize, now: CoarseInstant) -> u32 {
        /// The first share of a new endpoint: without any request it would never warm up.
        const FIRST: u64 = 10;
        let since = self.endpoint(slot).ready_since.load(Relaxed);
        if self.config.slow_start_ms == 0 || since == 0 {
            return 100;
        }
        let age = now.0.saturating_sub(since) / 1_000;
        (age * 100 / self.config.slow_start_ms).clamp(FIRST, 100) as u32
    }

    fn in_flight(&self, slot: u16) -> u32 {
        self.endpoint(slot.into()).in_flight.load(Relaxed)
    }

    /// Adds each weight to the slot's current weight, chooses the largest and takes the total from it, as nginx does.
    /// So a weight of 2 in 2, 1, 1 comes every other time, and not twice in a row. Each worker has its own sequence.
    fn smooth_weighted_rr(&self, open: &[u16], worker: usize, weight: impl Fn(u16) -> u32) -> usize {
        let mut current = self.stats.current_weights(worker);
        if current.len() < self.slots.len() {
            current.resize(self.slots.len(), 0);
        }
        let (mut best, mut total) = (usize::from(open[0]), 0);
        for slot in open {
            let weight = i64::from(weight(*slot));
            let slot = usize::from(*slot);
            current[slot] += weight;
            total += weight;
            if current[slot] > current[best] {
                best = slot;
            }
        }
        current[best] -= total;
        best
    }

    fn least_connections(&self, open: &[u16], now: CoarseInstant) -> usize {
        // Ties are broken in turns.
        let turn = self.stats.cursor.fetch_add(1, Relaxed) % open.len();
        let cost = |slot: u16| {
            let weight = self.effective_weight(slot.into(), now);
            (u64::from(self.in_flight(slot)) + 1, u64::from(weight).max(1))
        };
        let mut best = (open[turn], cost(open[turn]));
        for slot in open[turn + 1..].iter().chain(&open[..turn]) {
            let (load, weight) = cost(*slot);
            // load / weight, without the division.
            if load * best.1.1 < best.1.0 * weight {
                best = (*slot, (load, weight));
            }
        }
        best.0.into()
    }

    fn power_of_two_choices(&self, open: &[u16], now: CoarseInstant, random: u64) -> (usize, Reason) {
        let count = open.len() as u64;
        let first = (random >> 32) % count;
        let second = (first + 1 + (random & 0xffff_ffff) % (count - 1)) % count;
        let (first, second) = (open[first as usize], open[second as usize]);
        let better = if self.cost(second, now) < self.cost(first, now) { second } else { first };
        (better.into(), Reason::BetterOf(first.into(), second.into()))
    }

    /// What a request would wait for: the latency, once for each request in flight and once for itself.
    fn cost(&self, slot: u16, now: CoarseInstant) -> f64 {
        /// The cost of an endpoint with requests in flight and no response yet. It gets no more requests before it
        /// responds, unless all endpoints are like that.
        const UNPROVEN_MICROS: f64 = 1e9;
        let load = f64::from(self.in_flight(slot));
        let latency = self.endpoint(slot.into()).ewma.value(now);
        let weight = f64::from(self.effective_weight(slot.into(), now)).max(1.0);
        if latency == 0.0 && load > 0.0 {
            return (UNPROVEN_MICROS + load) / weight;
        }
        latency.max(1.0) * (load + 1.0) / weight
    }

    /// Rendezvous hashing with bounded loads: the key gives each endpoint a score in proportion to its weight, and the
    /// highest score wins. When an endpoint goes, its keys move and no others. An endpoint with more than its share in
    /// flight is passed over.
    fn bounded_hash(&self, open: &[u16], key: u64, now: CoarseInstant) -> (usize, Reason) {
        let weight = |slot: u16| f64::from(self.effective_weight(slot.into(), now));
        let load: f64 = open.iter().map(|slot| f64::from(self.in_flight(*slot))).sum::<f64>() + 1.0;
        let weights: f64 = open.iter().map(|slot| weight(*slot)).sum();
        let (mut first, mut within) = ((f64::MIN, open[0]), (f64::MIN, open[0]));
        for slot in open {
            let weight = weight(*slot);
            let token = self.endpoint(usize::from(*slot)).token;
            let score = -weight / unit(mix(key ^ token)).ln();
            let bound = (LOAD_FACTOR * load * weight / weights).ceil();
            if score > first.0 {
                first = (score, *slot);
            }
            if score > within.0 && f64::from(self.in_flight(*slot)) < bound {
                within = (score, *slot);
            }
        }
        // The bounds add up to more than the load, so at least one endpoint is within its bound.
        let reason = if first.1 == within.1 { Reason::FirstForKey } else { Reason::NextForKey };
        (within.1.into(), reason)
    }

    /// All endpoints with what the policy compares at this moment, for people to read.
    pub fn candidates(&self, tried: &SlotSet, now: CoarseInstant) -> Vec<Candidate> {
        let weighed = |slot: usize| {
            let endpoint = self.endpoint(slot);
            let load = endpoint.in_flight.load(Relaxed);
            match self.config.policy {
                Policy::P2cEwma => format!("{:.0} µs, {load} in flight", endpoint.ewma.value(now)),
                Policy::RoundRobin | Policy::LeastConnections if self.slots[slot].weight == 1 => {
                    format!("{load} in flight")
                }
                _ => format!("weight {}, {load} in flight", self.slots[slot].weight),
            }
        };
        let candidate = |slot: usize| Candidate {
            endpoint: self.endpoint(slot).id.clone(),
            why_ineligible: self.why_ineligible(slot, tried, now).map(|why| why.as_str().to_owned()),
            weighed: weighed(slot),
        };
        (0..self.slots.len()).map(candidate).collect()
    }

    /// The reason of a choice, for people to read.
    pub fn explain(&self, reason: Reason) -> String {
        let id = |slot: usize| self.slots.get(slot).map_or("", |slot| slot.endpoint.id.as_str());
        match reason {
            Reason::Primary => "primary".to_owned(),
            Reason::Sticky => "sticky cookie".to_owned(),
            Reason::OnlyOne => "the only endpoint left".to_owned(),
            Reason::RoundRobin => "round robin".to_owned(),
            Reason::WeightedRoundRobin => "weighted round robin".to_owned(),
            Reason::LeastConnections => "least requests in flight for its weight".to_owned(),
            Reason::BetterOf(one, other) => format!("the better of {} and {}", id(one), id(other)),
            Reason::FirstForKey => "first for this key".to_owned(),
            Reason::NextForKey => "next for this key: the first has more than its share".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
