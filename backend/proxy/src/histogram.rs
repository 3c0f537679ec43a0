//! Latencies that many threads record at once: counters in buckets, eight for each doubling.
//!
//! There are two sets of buckets: the one that fills, and the one before. A summary covers both, so between one and two
//! turns. A quantile is exact to an eighth. A latency recorded while the sets are exchanged may be lost: these are
//! numbers for people. Counts that leave the window are added up, so totals since the start cost nothing to record.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

/// A doubling has `1 << SUB_BITS` buckets.
const SUB_BITS: u32 = 3;
/// Up to 2^28 µs, which is four minutes; what takes longer counts as that.
const BUCKETS: usize = (28 - SUB_BITS as usize + 1) << SUB_BITS;

#[derive(Debug)]
pub struct Histogram {
    sets: [Box<[AtomicU32]>; 2],
    filling: AtomicUsize,
    /// The counts of earlier sets.
    past: Mutex<Counts>,
}

/// Counts that can be put together.
#[derive(Clone, Debug)]
pub struct Counts(Vec<u64>);

impl Default for Histogram {
    fn default() -> Self {
        let empty = || (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        Histogram { sets: [empty(), empty()], filling: AtomicUsize::new(0), past: Mutex::new(Counts::none()) }
    }
}

impl Histogram {
    pub fn record(&self, micros: u64) {
        self.sets[self.filling.load(Relaxed) & 1][bucket(micros)].fetch_add(1, Relaxed);
    }

    /// Forgets what is older than the turn before.
    pub fn turn(&self) {
        let next = (self.filling.load(Relaxed) + 1) & 1;
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        for (past, count) in past.0.iter_mut().zip(&self.sets[next]) {
            *past += u64::from(count.swap(0, Relaxed));
        }
        self.filling.store(next, Relaxed);
    }

    pub fn counts(&self) -> Counts {
        let sum = |bucket: usize| self.sets.iter().map(|set| u64::from(set[bucket].load(Relaxed))).sum();
        Counts((0..BUCKETS).map(sum).collect())
    }

    /// Since the start.
    pub fn total(&self) -> Counts {
        // Locked while the others are read, so that each count is included once.
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.counts();
        all.add(&past);
        all
    }
}

impl Counts {
    pub fn none() -> Counts {
        Counts(vec![0; BUCKETS])
    }

    pub fn add(&mut self, others: &Counts) {
        for (count, other) in self.0.iter_mut().zip(&others.0) {
            *count += other;
        }
    }

    /// How many are below each of these bounds and not below the one before, in microseconds; and how many are above
    /// all bounds.
    pub fn between<const N: usize>(&self, bounds: [u64; N]) -> ([u64; N], u64) {
        let mut from = 0;
        let counts = bounds.map(|bound| {
            let to = bucket(bound).max(from);
            let count = self.0[from..to].iter().sum();
            from = to;
            count
        });
        (counts, self.0[from..].iter().sum())
    }

    /// The sum, as exact as the buckets are.
    pub fn total_micros(&self) -> u64 {
        self.0.iter().enumerate().map(|(at, count)| count * middle(at)).sum()
    }

    /// In microseconds; none if nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let all: u64 = self.0.iter().sum();
        let rank = (all as f64 * quantile).ceil().max(1.0) as u64;
        let mut below = 0;
        self.0
            .iter()
            .position(|count| {
                below += count;
                below >= rank
            })
            .map(middle)
    }
}

/// Small values have a bucket each; for larger ones the highest bits choose.
fn bucket(micros: u64) -> usize {
    if micros < 1 << SUB_BITS {
        return micros as usize;
    }
    let doubling = 63 - micros.leading_zeros();
    let within = (micros >> (doubling - SUB_BITS)) as usize & ((1 << SUB_BITS) - 1);
    ((((doubling - SUB_BITS + 1) as usize) << SUB_BITS) + within).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    if bucket < 1 << SUB_BITS {
        return bucket as u64;
    }
    let shift = (bucket >> SUB_BITS) as u32 - 1;
    let low = ((1 << SUB_BITS) + (bucket as u64 & ((1 << SUB_BITS) - 1))) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_exact_to_an_eighth() {
        for micros in [0, 1, 7, 8, 9, 100, 1_000, 12_345, 999_999, 60_000_000] {
            let histogram = Histogram::default();
            histogram.record(micros);
            let found = histogram.counts().quantile(0.5).unwrap();
            assert!(found.abs_diff(micros) * 8 <= micros, "{micros} was found as {found}");
        }
        assert_eq!(Histogram::default().counts().quantile(0.5), None);
    }

    #[test]
    fn quantiles_are_of_the_window() {
        let histogram = Histogram::default();
        (0..98).for_each(|_| histogram.record(100));
        (0..2).for_each(|_| histogram.record(10_000));
        let counts = histogram.counts();
        assert!(counts.quantile(0.5).unwrap() < 120 && counts.quantile(0.99).unwrap() > 9_000);
        histogram.turn();
        assert!(histogram.counts().quantile(0.5).is_some(), "a turn is kept");
        histogram.turn();
        assert_eq!(histogram.counts().quantile(0.5), None);
        histogram.record(u64::MAX);
        assert!(histogram.counts().quantile(1.0).is_some());
    }

    #[test]
    fn totals_outlive_the_window() {
        let histogram = Histogram::default();
        for _ in 0..3 {
            [10, 2_000, 2_000_000].iter().for_each(|micros| histogram.record(*micros));
            (0..3).for_each(|_| histogram.turn());
        }
        histogram.record(10);
        let total = histogram.total();
        assert_eq!(total.between([1_024, 1_048_576]), ([4, 3], 3));
        assert!(total.total_micros().abs_diff(6_006_040) * 8 < 6_006_040, "{}", total.total_micros());
    }
}
