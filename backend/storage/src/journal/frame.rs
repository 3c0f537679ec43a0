//! Frames: the unit that one fsync makes durable.
//!
//! ```text
//! offset  size  field
//!      0     8  mark of the segment
//!      8     4  length of the payload
//!     12     4  CRC-32 of length and payload
//!     16     …  payload: records, in postcard, one after the other
//! ```
//!
//! Integers are little endian. The next frame is written when the one before it is durable. So a frame that is not
//! whole, with nothing behind it, was cut short by a crash and never confirmed; and the beginning of a frame behind a
//! broken one proves that the broken one was durable once, and is damaged. To see the difference, the journal looks for
//! the segment's mark. It is random, so no entry can hold what looks like the beginning of a frame.

use super::record::Record;

pub(super) const HEADER_BYTES: usize = 16;

/// A frame in the making.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    pub(super) fn new() -> Self {
        Frame { bytes: vec![0; HEADER_BYTES] }
    }

    pub(super) fn push(&mut self, record: &Record) {
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(record, bytes).expect("memory takes what is written to it");
    }

    /// The length in the file.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == HEADER_BYTES
    }

    pub(super) fn clear(&mut self) {
        self.bytes.truncate(HEADER_BYTES);
    }

    /// Completes the header.
    pub(super) fn seal(&mut self, mark: u64) -> &[u8] {
        let length =
            u32::try_from(self.bytes.len() - HEADER_BYTES).expect("frames are bounded").to_le_bytes();
        let crc = checksum(length, &self.bytes[HEADER_BYTES..]);
        self.bytes[0..8].copy_from_slice(&mark.to_le_bytes());
        self.bytes[8..12].copy_from_slice(&length);
        self.bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }
}

/// The payload of the frame that `bytes` begin with, or why there is none.
pub(super) fn read(bytes: &[u8], mark: u64) -> Result<&[u8], &'static str> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or("a frame's header is cut off")?;
    let word = |at: usize| <[u8; 4]>::try_from(&header[at..at + 4]).expect("four bytes are four");
    if header[..8] != mark.to_le_bytes() {
        return Err("there is no frame");
    }
    let length = usize::try_from(u32::from_le_bytes(word(8))).map_err(|_| "a frame is too long")?;
    let payload = rest.get(..length).ok_or("a frame is cut off")?;
    if checksum(word(8), payload).to_le_bytes() != word(12) {
        return Err("a frame's checksum differs");
    }
    Ok(payload)
}

/// Where the next frame begins, at or behind `from`, whole or not.
pub(super) fn find(bytes: &[u8], from: usize, mark: u64) -> Option<usize> {
    let mark = mark.to_le_bytes();
    let found = bytes.get(from..)?.windows(mark.len()).position(|window| window == mark);
    found.map(|at| from + at)
}

/// The records of a payload, each with where it ends there.
pub(super) fn records(payload: &[u8]) -> impl Iterator<Item = Result<(Record, usize), postcard::Error>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = postcard::take_from_bytes(rest);
        // Behind a record that makes no sense nothing makes sense.
        rest = record.as_ref().map_or(&[], |(_, rest)| *rest);
        Some(record.map(|(record, rest)| (record, payload.len() - rest.len())))
    })
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}
