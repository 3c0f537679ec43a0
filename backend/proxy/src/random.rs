//! Unpredictable numbers, for random choices and for request ids.

use crate::hash::mix;

/// SplitMix64, seeded by the system. Each connection has its own, so connections share no state.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn seeded() -> Random {
        Random(rand::random())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}
