//! The messages of Raft between nodes, over peer links: a channel for each kind.
//!
//! Every body is postcard. The comment on a channel says what the body of a reply is; a request that cannot be served is
//! answered with a [`Failure`] instead.
//!
//! Most of what they hold are openraft's own types, some of which are in journals and snapshots, too. Their
//! forms are those that the test below has written down. Where a release of openraft changes one, the
//! form that is known stays: it gets a type of its own here, and the new one a new channel, or format.

use super::types::{Entry, Payload, SnapshotMeta, TypeConfig, Vote};
use bytes::Bytes;
use openraft::{EntryPayload, raft::AppendEntriesRequest};
use ringmaster_peer::{Channel, Failure, FailureCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub type Append = AppendEntriesRequest<TypeConfig>;

/// An [`Append`] with entries → `StreamAppendResult`. Served in order.
pub const APPEND: Channel = Channel(1);
/// An [`Append`] without entries → `StreamAppendResult`. Overtakes appends.
pub const HEARTBEAT: Channel = Channel(2);
/// `VoteRequest` → `VoteResponse`.
pub const VOTE: Channel = Channel(3);
/// `VoteRequest` → `VoteResponse`.
pub const PRE_VOTE: Channel = Channel(4);
/// `TransferLeaderRequest` → `TransferLeaderResponse`.
pub const TRANSFER_LEADER: Channel = Channel(5);
/// [`SnapshotMessage`] → of a `Begin`, how many bytes are there already (`u64`); of a `Finish`,
/// `SnapshotResponse`; of the others, nothing.
pub const SNAPSHOT: Channel = Channel(6);

/// Calls to the leader of a group, in MessagePack (see `group::forward`).
pub const FORWARD: Channel = Channel(16);

/// How many appends of one sender to one group may be unanswered.
pub const APPEND_WINDOW: usize = 64;
/// The largest piece of a snapshot: it must not hold up for long what is queued behind it.
pub const SNAPSHOT_PIECE_BYTES: usize = 1 << 20;

/// A snapshot travels as one `Begin`, its pieces in order, and one `Finish`. The next is sent when
/// the last was answered, so that at most one piece is on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SnapshotMessage {
    /// Continues where the same snapshot was broken off, or else replaces what had arrived for this group.
    Begin {
        transfer: u64,
        vote: Vote,
        meta: SnapshotMeta,
        bytes: u64,
    },
    Piece {
        transfer: u64,
        offset: u64,
        data: Bytes,
    },
    /// The sum is the CRC-32 of the whole snapshot. Answered when the snapshot is installed.
    Finish {
        transfer: u64,
        checksum: u32,
    },
}

/// The size of an entry beside its command, at most; of a membership, roughly.
pub const ENTRY_OVERHEAD: usize = 64;
const MEMBERSHIP_BYTES: usize = 4096;

/// How long an entry is when it is encoded, at most; roughly, where it holds a membership.
pub fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_OVERHEAD
        + match &entry.payload {
            EntryPayload::Normal(Payload(command)) => command.len(),
            EntryPayload::Blank => 0,
            EntryPayload::Membership(_) => MEMBERSHIP_BYTES,
        }
}

pub fn encode(message: &impl Serialize) -> Result<Bytes, postcard::Error> {
    encode_within(message, 0)
}

/// Encodes what takes about `bytes`: with room from the start, it need not be moved as it grows.
pub fn encode_within(message: &impl Serialize, bytes: usize) -> Result<Bytes, postcard::Error> {
    postcard::to_extend(message, Vec::with_capacity(bytes)).map(Bytes::from)
}

/// Decodes a request.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    postcard::from_bytes(body).map_err(|error| Failure::new(FailureCode::Malformed, error.to_string()))
}

/// Encodes a reply.
pub fn reply(message: &impl Serialize) -> Result<Bytes, Failure> {
    encode(message).map_err(|error| Failure::new(FailureCode::Unanswered, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LogId, StoredMembership};
    use openraft::{
        BasicNode, Membership,
        raft::{
            SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest,
            VoteResponse,
        },
        vote::leader_id_std::CommittedLeaderId,
    };
    use ringmaster_common::id::NodeId;
    use std::collections::{BTreeMap, BTreeSet};

    fn log_id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(3), index)
    }

    fn check(message: &impl Serialize, expected: &[&[u8]]) {
        let form = encode(message).unwrap();
        assert_eq!(form, expected.concat(), "of {}", std::any::type_name_of_val(message));
    }

    #[test]
    fn the_forms_of_openraft_are_those_that_other_versions_know() {
        let vote = Vote::new_committed(3, NodeId(2));
        let voters = BTreeSet::from([NodeId(1), NodeId(2)]);
        let nodes: BTreeMap<_, _> = [1, 2, 3].map(|id| (NodeId(id), BasicNode::new(format!("n{id}")))).into();
        let membership = Membership::new(vec![voters], nodes).unwrap();
        let entry = |payload| Entry { log_id: log_id(300), payload };
        let command = entry(EntryPayload::Normal(Payload(Bytes::from_static(b"put"))));

        const ID: &[u8] = &[3, 0xac, 2];
        const VOTE: &[u8] = &[3, 1, 2, 1];
        const SOME: &[u8] = &[1];
        const COMMAND: &[u8] = &[3, 0xac, 2, 1, 3, b'p', b'u', b't'];
        const MEMBERSHIP: &[u8] = &[1, 2, 1, 2, 3, 1, 2, b'n', b'1', 2, 2, b'n', b'2', 3, 2, b'n', b'3'];
        check(&log_id(300), &[ID]);
        check(&vote, &[VOTE]);
        check(&entry(EntryPayload::Blank), &[ID, &[0]]);
        check(&command, &[COMMAND]);
        check(&entry(EntryPayload::Membership(membership.clone())), &[ID, &[2], MEMBERSHIP]);
        let last_membership = StoredMembership::new(Some(log_id(7)), membership);
        let meta = SnapshotMeta { last_log_id: Some(log_id(300)), last_membership };
        check(&meta, &[SOME, ID, SOME, &[3, 7], MEMBERSHIP, &[0]]);

        let append =
            Append { vote, prev_log_id: Some(log_id(300)), entries: vec![command], leader_commit: None };
        check(&append, &[VOTE, SOME, ID, &[1], COMMAND, &[0]]);
        let appended = |result: StreamAppendResult<TypeConfig>| result;
        check(&appended(Ok(Some(log_id(300)))), &[&[0], SOME, ID]);
        check(&appended(Err(StreamAppendError::Conflict(log_id(300)))), &[&[1, 0], ID]);
        check(&appended(Err(StreamAppendError::HigherVote(vote))), &[&[1, 1], VOTE]);
        check(&VoteRequest::<TypeConfig>::new(vote, Some(log_id(300))), &[VOTE, SOME, ID, &[0]]);
        check(&VoteResponse::<TypeConfig>::new(vote, Some(log_id(300)), true), &[VOTE, &[1], SOME, ID]);
        check(&TransferLeaderRequest::<TypeConfig>::new(vote, NodeId(9), None), &[VOTE, &[9, 0]]);
        check(&SnapshotResponse::<TypeConfig>::new(vote), &[VOTE]);
    }
}
