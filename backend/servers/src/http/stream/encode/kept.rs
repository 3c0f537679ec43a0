//! Values that are kept for a while, within a bound on their number and one on their bytes.

use super::Messages;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A value whose size is known.
pub trait ByteSize {
    fn bytes(&self) -> usize;
}

impl ByteSize for Messages {
    fn bytes(&self) -> usize {
        self.iter().map(|encoded| encoded.message.len()).sum()
    }
}

#[derive(Debug)]
pub struct Kept<K, V> {
    values: BTreeMap<K, V>,
    bytes: usize,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Kept { values: BTreeMap::new(), bytes: 0 }
    }
}

impl<K: Ord, V: ByteSize> Kept<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    /// Adds a value, and drops those with the lowest keys that go beyond the bounds.
    pub fn put(&mut self, key: K, value: V, max: usize, max_bytes: usize) {
        self.bytes += value.bytes();
        if let Some(replaced) = self.values.insert(key, value) {
            self.bytes -= replaced.bytes();
        }
        while self.values.len() > max || self.bytes > max_bytes {
            let Some((_, dropped)) = self.values.pop_first() else { return };
            self.bytes -= dropped.bytes();
        }
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ByteSize for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    #[test]
    fn the_lowest_keys_are_dropped_beyond_either_bound() {
        let mut kept = Kept::default();
        let keys = |kept: &Kept<u32, usize>| kept.values.keys().copied().collect::<Vec<_>>();
        (1..=4).for_each(|key| kept.put(key, 10, 3, 100));
        assert_eq!(keys(&kept), [2, 3, 4]);
        kept.put(4, 60, 3, 100);
        assert_eq!((keys(&kept), kept.bytes), (vec![2, 3, 4], 80));
        kept.put(5, 35, 3, 100);
        assert_eq!((keys(&kept), kept.bytes), (vec![4, 5], 95));
        kept.put(6, 101, 3, 100);
        assert_eq!((keys(&kept), kept.bytes), (vec![], 0), "one that is too large alone is not kept");
    }
}
