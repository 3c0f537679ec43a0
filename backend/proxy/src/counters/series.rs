//! Which objects have a series of their own, and the sum of all others, which never falls.
//!
//! An object keeps its series for as long as it is there. What those among the others have counted stays in their sum
//! when they are gone, get a series of their own, or start anew under the same name: a monitoring system takes a counter
//! that falls for one that was reset, and would count the rest again.

use std::collections::{BTreeMap, BTreeSet};

/// Counters of one object, or of several together.
pub trait Counted: Clone {
    /// Adds the counters and the present values of another object.
    fn add(&mut self, other: &Self);
    /// The same without its present values, as of an object that is gone.
    fn of_the_past(&self) -> Self;
    /// How much was counted.
    fn count(&self) -> u64;
}

#[derive(Debug)]
pub struct Series<K, C> {
    own: BTreeSet<K>,
    /// The others, as they were last seen.
    others: BTreeMap<K, C>,
    /// What others have counted that are gone.
    past: Option<C>,
}

impl<K, C> Default for Series<K, C> {
    fn default() -> Self {
        Series { own: BTreeSet::new(), others: BTreeMap::new(), past: None }
    }
}

impl<K: Ord + Clone, C: Counted> Series<K, C> {
    /// The objects with series of their own, up to `max` of them, and the sum of all others there ever were.
    pub fn update(&mut self, now: impl Iterator<Item = (K, C)>, max: usize) -> (Vec<C>, Option<C>) {
        let mut now: BTreeMap<K, C> = now.collect();
        self.own.retain(|key| now.contains_key(key));
        // In the order of their names.
        for key in now.keys() {
            if self.own.len() >= max {
                break;
            }
            self.own.insert(key.clone());
        }
        let own = self.own.iter().filter_map(|key| now.remove(key)).collect();
        for (key, before) in &self.others {
            if now.get(key).is_none_or(|present| present.count() < before.count()) {
                add(&mut self.past, before.of_the_past());
            }
        }
        self.others = now;
        let mut sum = self.past.clone();
        self.others.values().for_each(|counters| add(&mut sum, counters.clone()));
        (own, sum)
    }
}

fn add<C: Counted>(sum: &mut Option<C>, more: C) {
    match sum {
        Some(sum) => sum.add(&more),
        None => *sum = Some(more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter and a gauge.
    impl Counted for (u64, u64) {
        fn add(&mut self, other: &Self) {
            *self = (self.0 + other.0, self.1 + other.1);
        }

        fn of_the_past(&self) -> Self {
            (self.0, 0)
        }

        fn count(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn the_sum_of_the_others_never_falls() {
        let mut series = Series::default();
        let mut update = |now: &[(&'static str, (u64, u64))]| series.update(now.iter().copied(), 2);
        let [b, c, d] = [("b", (1, 1)), ("c", (2, 1)), ("d", (10, 1))];
        assert_eq!(update(&[b, c]), (vec![(1, 1), (2, 1)], None));
        assert_eq!(update(&[b, c, d]), (vec![(1, 1), (2, 1)], Some((10, 1))));
        // A name before the others does not take a series from them.
        assert_eq!(update(&[("a", (5, 1)), b, c, d]), (vec![(1, 1), (2, 1)], Some((15, 2))));
        assert_eq!(update(&[("a", (5, 1)), b, c]), (vec![(1, 1), (2, 1)], Some((15, 1))), "d is gone");
        assert_eq!(
            update(&[("a", (1, 1)), b, c]),
            (vec![(1, 1), (2, 1)], Some((16, 1))),
            "a has started anew"
        );
        assert_eq!(
            update(&[("a", (4, 1)), b]),
            (vec![(4, 1), (1, 1)], Some((16, 0))),
            "a has its own series"
        );
        assert_eq!(update(&[("a", (4, 1)), b, c]), (vec![(4, 1), (1, 1)], Some((18, 1))));
    }
}
