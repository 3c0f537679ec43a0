//! Records: what the journal holds of its groups.

use bytes::Bytes;
use ringmaster_common::id::GroupId;
use serde::{Deserialize, Serialize};

/// One change of one group's log. New kinds go to the end and raise the format of segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    Vote {
        group: GroupId,
        vote: Bytes,
    },
    Append {
        group: GroupId,
        index: u64,
        entry: Bytes,
    },
    /// Removes the entries from `from` on.
    Truncate {
        group: GroupId,
        from: u64,
    },
    /// Removes the entries up to `through`, whose log id is `id`.
    Purge {
        group: GroupId,
        through: u64,
        id: Bytes,
    },
    Committed {
        group: GroupId,
        committed: Bytes,
    },
    /// The segment holds all that it must begin with.
    CheckpointEnd,
}

/// What a record takes besides its bytes, at the most: its kind and three integers.
const OVERHEAD_BYTES: usize = 31;

impl Record {
    /// An upper bound of the encoded length.
    pub(super) fn size(&self) -> usize {
        let bytes = match self {
            Record::Vote { vote: bytes, .. }
            | Record::Append { entry: bytes, .. }
            | Record::Purge { id: bytes, .. }
            | Record::Committed { committed: bytes, .. } => bytes.len(),
            Record::Truncate { .. } | Record::CheckpointEnd => 0,
        };
        OVERHEAD_BYTES + bytes
    }
}
