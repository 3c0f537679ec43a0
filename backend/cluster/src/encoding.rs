//! The encoding of records, answers and the state: MessagePack with named fields.

use bytes::Bytes;
use serde::Serialize;
use std::io;

#[derive(Default)]
struct Counter(u64);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The size of a value in bytes of its encoding, by which tables are bounded beside their counts. All versions of a
/// cluster count alike, because what they hold at one feature level is encoded alike ([`crate::digest`]). The
/// words of refusals are the exception, so a refusal has a fixed size ([`Limits::refusal_bytes`]).
///
/// [`Limits::refusal_bytes`]: crate::limits::Limits::refusal_bytes
pub fn encoded_len(value: &impl Serialize) -> u64 {
    let mut counter = Counter::default();
    rmp_serde::encode::write_named(&mut counter, value).expect("plain data encodes");
    counter.0
}

/// Room for most of what is encoded, so that it need not be moved as it grows.
const USUAL_BYTES: usize = 1024;

pub fn encode(value: &impl Serialize) -> Bytes {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    rmp_serde::encode::write_named(&mut bytes, value).expect("plain data encodes");
    bytes.into()
}
