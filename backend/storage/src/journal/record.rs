//! Records: the content of the journal.

use bytes::Bytes;
use ringmaster_common::id::{GroupId, NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;

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
    /// The group leaves this node: of it all is removed but its vote. A replica that comes back must not vote
    /// twice.
    Drop {
        group: GroupId,
    },
    /// In a checkpoint: the group has the entries from `first` to before `next`, here or in older segments.
    Holds {
        group: GroupId,
        first: u64,
        next: u64,
    },
    /// In a frame of its own at the end of a segment: the next segment was begun. So the loss of the newest ones is
    /// noticed.
    Sealed,
    /// The node that the journal is of.
    Owner(Owner),
}

/// The node that a journal is of: one node of one cluster, for ever. Votes and entries mean nothing to another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub cluster_id: String,
    pub node_id: NodeId,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {}", self.node_id, self.cluster_id)
    }
}

/// The size of a record besides its bytes, at the most: its kind and three integers.
const OVERHEAD_BYTES: usize = 31;

impl Record {
    /// An upper bound of the encoded length.
    pub(super) fn size(&self) -> usize {
        let bytes = match self {
            Record::Vote { vote: bytes, .. }
            | Record::Append { entry: bytes, .. }
            | Record::Purge { id: bytes, .. }
            | Record::Committed { committed: bytes, .. } => bytes.len(),
            Record::Owner(owner) => owner.cluster_id.len(),
            Record::Truncate { .. }
            | Record::CheckpointEnd
            | Record::Drop { .. }
            | Record::Holds { .. }
            | Record::Sealed => 0,
        };
        OVERHEAD_BYTES + bytes
    }
}
