//! A digest of the whole state, to compare nodes that have applied the same entries.
//!
//! It is the SHA-256 of the canonical encoding: MessagePack with named fields, as a snapshot is written, in which every
//! collection has one order. A version that adds a field leaves it out of the encoding while it has its default.
//!
//! The answers to requests are a part of the state, and with them the words of refusals: a version that words a refusal
//! in another way has another digest as soon as it has refused something in that way. So digests of nodes are compared
//! among those of one version.

use crate::State;
use sha2::{Digest, Sha256};
use std::io;

struct Hasher(Sha256);

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn of(state: &State) -> String {
    let mut hasher = Hasher(Sha256::new());
    rmp_serde::encode::write_named(&mut hasher, state).expect("plain data encodes");
    hasher.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
