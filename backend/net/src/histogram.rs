//! A histogram of latencies over a window, which many threads record into at once: eight buckets for each doubling.
//!
//! There are two sets of buckets: the one that fills, and the one before it. A summary covers both, so between one and
//! two turns; the owner decides when to turn. A quantile is exact to an eighth. A value that is recorded while the sets
//! change places may be lost: these numbers are for people. Forgotten values still count in the totals since the start,
//! at no cost to the recording thread.
//!
//! A histogram has buckets from its first value on. A node has one for each endpoint, and most of many are idle.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

/// A doubling has `1 << SUB_BITS` buckets.
const SUB_BITS: u32 = 3;
/// Up to 2^28 µs, which is four minutes; longer latencies count as that.
const BUCKETS: usize = (28 - SUB_BITS as usize + 1) << SUB_BITS;

#[derive(Debug, Default)]
pub struct WindowedHistogram(OnceLock<Box<Buckets>>);

#[derive(Debug)]
struct Buckets {
    sets: [Box<[AtomicU32]>; 2],
    filling: AtomicUsize,
    /// What is in neither set any more.
    past: Mutex<Counts>,
}

/// Counts per bucket, which can be added up. Empty if there are no values.
#[derive(Clone, Debug, Default)]
pub struct Counts(Vec<u64>);

impl Default for Buckets {
    fn default() -> Self {
        let empty = || (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        Buckets {
            sets: [empty(), empty()],
            filling: AtomicUsize::new(0),
            past: Mutex::new(Counts(vec![0; BUCKETS])),
        }
    }
}

impl WindowedHistogram {
    pub fn record(&self, micros: u64) {
        let Buckets { sets, filling, .. } = &**self.0.get_or_init(Box::default);
        sets[filling.load(Relaxed) & 1][bucket(micros)].fetch_add(1, Relaxed);
    }

    /// Forgets values that are older than the turn before.
    pub fn turn(&self) {
        let Some(buckets) = self.0.get() else { return };
        let next = (buckets.filling.load(Relaxed) + 1) & 1;
        let mut past = buckets.past.lock().unwrap_or_else(PoisonError::into_inner);
        for (past, count) in past.0.iter_mut().zip(&buckets.sets[next]) {
            *past += u64::from(count.swap(0, Relaxed));
        }
        buckets.filling.store(next, Relaxed);
    }

    /// The values of the window.
    pub fn recent(&self) -> Counts {
        let Some(buckets) = self.0.get() else { return Counts::default() };
        let sum = |bucket: usize| buckets.sets.iter().map(|set| u64::from(set[bucket].load(Relaxed))).sum();
        Counts((0..BUCKETS).map(sum).collect())
    }

    /// All values that were ever recorded.
    pub fn total(&self) -> Counts {
        let Some(buckets) = self.0.get() else { return Counts::default() };
        // Held while the others are read, so that nothing is counted twice, or not at all.
        let past = buckets.past.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.recent();
        all.add(&past);
        all
    }
}

impl Counts {
    pub fn add(&mut self, others: &Counts) {
        if self.0.is_empty() {
            self.0.clone_from(&others.0);
            return;
        }
        for (count, other) in self.0.iter_mut().zip(&others.0) {
            *count += other;
        }
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// How many values are below each of these bounds and not below the one before, in microseconds; and how many
    /// are above all of them.
    pub fn between<const N: usize>(&self, bounds: [u64; N]) -> ([u64; N], u64) {
        if self.0.is_empty() {
            return ([0; N], 0);
        }
        let mut from = 0;
        let counts = bounds.map(|bound| {
            let to = bucket(bound).max(from);
            let count = self.0[from..to].iter().sum();
            from = to;
            count
        });
        (counts, self.0[from..].iter().sum())
    }

    /// The sum of all values, as exact as the buckets are.
    pub fn sum_micros(&self) -> u64 {
        self.0.iter().enumerate().map(|(at, count)| count * middle(at)).sum()
    }

    /// In microseconds; none where nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let rank = (self.count() as f64 * quantile).ceil().max(1.0) as u64;
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

/// Small values have a bucket each; from then on the highest bits choose.
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
            let histogram = WindowedHistogram::default();
            histogram.record(micros);
            let found = histogram.recent().quantile(0.5).unwrap();
            assert!(found.abs_diff(micros) * 8 <= micros, "{micros} was found as {found}");
        }
        assert_eq!(WindowedHistogram::default().recent().quantile(0.5), None);
    }

    #[test]
    fn a_histogram_without_values_takes_no_memory_and_adds_nothing() {
        let (idle, used) = (WindowedHistogram::default(), WindowedHistogram::default());
        idle.turn();
        assert!(idle.0.get().is_none(), "a box, and two sets of buckets");
        used.record(2_000);
        for (first, second) in [(&idle, &used), (&used, &idle)] {
            let mut counts = first.total();
            counts.add(&second.total());
            assert_eq!((counts.count(), counts.between([1_024])), (1, ([0], 1)));
        }
        let none = idle.recent();
        assert_eq!((none.count(), none.sum_micros(), none.between([1_024])), (0, 0, ([0], 0)));
    }

    #[test]
    fn values_older_than_two_turns_are_forgotten() {
        let histogram = WindowedHistogram::default();
        (0..98).for_each(|_| histogram.record(100));
        (0..2).for_each(|_| histogram.record(10_000));
        let counts = histogram.recent();
        assert!(counts.quantile(0.5).unwrap() < 120 && counts.quantile(0.99).unwrap() > 9_000);
        histogram.turn();
        assert_eq!(histogram.recent().count(), 100, "a turn is kept");
        histogram.turn();
        assert_eq!(histogram.recent().quantile(0.5), None);
        histogram.record(u64::MAX);
        assert!(histogram.recent().quantile(1.0).is_some());
    }

    #[test]
    fn forgotten_values_count_in_the_total() {
        let histogram = WindowedHistogram::default();
        for _ in 0..3 {
            [10, 2_000, 2_000_000].iter().for_each(|micros| histogram.record(*micros));
            (0..3).for_each(|_| histogram.turn());
        }
        histogram.record(10);
        let total = histogram.total();
        assert_eq!(total.between([1_024, 1_048_576]), ([4, 3], 3));
        assert!(total.sum_micros().abs_diff(6_006_040) * 8 < 6_006_040, "{}", total.sum_micros());
    }
}
