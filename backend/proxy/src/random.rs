//! Numbers that nobody can foresee who does not see them: for drawing lots and for request ids.

/// SplitMix64, seeded by the system. One for each connection, so that none waits for another.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn seeded() -> Random {
        Random(rand::random())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        super::pick::mix(self.0)
    }
}
