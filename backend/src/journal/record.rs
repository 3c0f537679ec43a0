//! Records: what the journal holds, and how one lies in a file.
//!
//! ```text
//! offset  size  field
//!      0     4  magic
//!      4     4  length of the body
//!      8     4  CRC-32 of length and body
//!     12     …  body, in postcard
//! ```
//!
//! Integers are little endian. The magic lets a reader find the next record behind a damaged one,
//! and so tell damage from a torn tail.

use super::{Index, MAX_RECORD_BYTES};
use bytes::Bytes;
use ringmaster_common::id::GroupId;
use serde::{Deserialize, Serialize};

pub(super) const MAGIC: [u8; 4] = *b"RMj\x01";
pub(super) const HEADER_BYTES: usize = 12;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    Vote { group: GroupId, vote: Bytes },
    Committed { group: GroupId, committed: Bytes },
    Append { group: GroupId, index: u64, entry: Bytes },
    TruncateAfter { group: GroupId, index: Option<u64> },
    Purge { group: GroupId, index: u64, id: Bytes },
}

impl Record {
    pub(super) fn group(&self) -> GroupId {
        match self {
            Record::Vote { group, .. }
            | Record::Committed { group, .. }
            | Record::Append { group, .. }
            | Record::TruncateAfter { group, .. }
            | Record::Purge { group, .. } => *group,
        }
    }

    /// What it takes in a file, roughly.
    pub(super) fn size_hint(&self) -> usize {
        HEADER_BYTES
            + match self {
                Record::Vote { vote: bytes, .. }
                | Record::Committed { committed: bytes, .. }
                | Record::Append { entry: bytes, .. }
                | Record::Purge { id: bytes, .. } => bytes.len(),
                Record::TruncateAfter { .. } => 0,
            }
    }

    pub(super) fn apply_to(&self, groups: &mut Index) {
        let log = groups.entry(self.group()).or_default();
        match self {
            Record::Vote { vote, .. } => log.vote = Some(vote.clone()),
            Record::Committed { committed, .. } => log.committed = Some(committed.clone()),
            Record::Append { index, entry, .. } => {
                log.entries.insert(*index, entry.clone());
            }
            Record::TruncateAfter { index, .. } => match index {
                Some(index) => drop(log.entries.split_off(&(index + 1))),
                None => log.entries.clear(),
            },
            Record::Purge { index, id, .. } => {
                log.entries = log.entries.split_off(&(index + 1));
                log.purged = Some((*index, id.clone()));
            }
        }
    }

    pub(super) fn write_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 8]);
        *out = postcard::to_extend(self, std::mem::take(out)).expect("plain data encodes");
        let length = u32::try_from(out.len() - start - HEADER_BYTES).expect("records are bounded");
        out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
        let crc = checksum(&out[start + 4..start + 8], &out[start + HEADER_BYTES..]);
        out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
    }

    /// The record at the start of `bytes` and its length in the file, or why there is none.
    pub(super) fn read_from(bytes: &[u8]) -> Result<(Record, usize), &'static str> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or("the header is cut off")?;
        if header[..4] != MAGIC {
            return Err("there is no record");
        }
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let length = word(4) as usize;
        if length > MAX_RECORD_BYTES {
            return Err("the length is impossible");
        }
        let body = rest.get(..length).ok_or("the body is cut off")?;
        if checksum(&header[4..8], body) != word(8) {
            return Err("the checksum differs");
        }
        let record = postcard::from_bytes(body).map_err(|_| "the body has no meaning")?;
        Ok((record, HEADER_BYTES + length))
    }
}

fn checksum(length: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(body);
    hasher.finalize()
}
