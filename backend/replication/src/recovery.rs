//! What a stopped node has of a group, and a new beginning of the group from it: for a group that has lost its quorum.
//!
//! The new beginning is a snapshot and an empty log behind it. This node is the only member, so it elects itself when it is
//! started. Its term is higher than any that this node had seen.
//!
//! What always holds: all entries that this node has are in the state, those beyond the last one that it knew to be
//! committed, too. A majority may have acknowledged them.

use crate::{
    application::{Application, Body, Entry as ApplicationEntry},
    snapshot_store::{MAX_SNAPSHOT_BYTES, SnapshotStore},
    types::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote},
    wire,
};
use openraft::{
    BasicNode, EntryPayload, Membership, alias::CommittedLeaderIdOf, entry::RaftEntry, vote::RaftLeaderId,
};
use ringmaster_common::id::{GroupId, NodeId};
use ringmaster_net::supervisor::Supervisor;
use ringmaster_storage::{
    data_dir::DataDir,
    journal::{GroupLog, Journal, Owner},
};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

/// How many bytes of entries are read at a time.
const READ_BYTES: usize = 4 << 20;

/// The last entry of a log, or another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

/// What a node has on disk of a group.
#[derive(Clone, Debug)]
pub struct Remains<S> {
    /// The last entry. Of several nodes, the one with the highest has the most.
    pub last: Position,
    /// The term of the last vote, and the candidate that it was for.
    pub voted: Option<(u64, NodeId)>,
    /// The last entry that the node knew to be committed; a later one may have been.
    pub committed: u64,
    /// The last entry that the snapshot holds; 0 where there is none.
    pub snapshot: u64,
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// The state after all entries.
    pub state: S,
}

/// Reads what a node that does not run has of a group.
pub fn read<A: Application>(dir: &DataDir, group: GroupId, application: &A) -> io::Result<Remains<A::State>> {
    let log = Journal::read_stopped(dir.path(), group).map_err(io::Error::other)?;
    let snapshots = SnapshotStore::open(dir.path(), group, MAX_SNAPSHOT_BYTES)?;
    snapshots.check_covers(log.purged.as_ref().map(|(index, _)| *index))?;
    let mut remains = Remains {
        last: Position::default(),
        voted: None,
        committed: 0,
        snapshot: 0,
        voters: BTreeSet::new(),
        learners: BTreeSet::new(),
        state: A::State::default(),
    };
    if let Some((meta, body)) = snapshots.load()? {
        remains.state = application.read_snapshot(&mut body.reader())?;
        remains.set_membership(meta.last_membership.membership());
        remains.last = meta.last_log_id.map(Position::of).unwrap_or_default();
        remains.snapshot = remains.last.index;
    }
    remains.apply(&log, application)?;
    if let Some(vote) = &log.vote {
        let vote: Vote = decode(vote)?;
        remains.voted = Some((vote.leader_id().term(), *vote.leader_id().node_id()));
    }
    let committed: Option<LogId> = log.committed.as_deref().map(decode).transpose()?;
    remains.committed = committed.map_or(0, |id| id.index).max(remains.snapshot).min(remains.last.index);
    Ok(remains)
}

/// Writes the new beginning of a group into the data directory `dir`, which is empty: `state` as of the entry `at`, and
/// this node as the only voter.
pub fn write<A: Application>(
    dir: &Path,
    group: GroupId,
    owner: Owner,
    peer_addr: &str,
    application: &A,
    (state, at): (&A::State, Position),
) -> io::Result<()> {
    let node = owner.node_id;
    let log_id = LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(at.term), at.index);
    let members = BTreeMap::from([(node, BasicNode::new(peer_addr))]);
    let membership = Membership::new(vec![[node].into()], members).map_err(io::Error::other)?;
    let meta = SnapshotMeta {
        last_log_id: Some(log_id),
        last_membership: StoredMembership::new(Some(log_id), membership),
    };
    let snapshots = SnapshotStore::open(dir, group, MAX_SNAPSHOT_BYTES)?;
    snapshots.save(&meta, |to| application.write_snapshot(state, to)).map_err(io::Error::other)?;
    Journal::create(dir).map_err(io::Error::other)?;
    let journal = Journal::open_supervised(dir, owner, &Supervisor::new()).map_err(io::Error::other)?;
    let (id, vote) = (wire::encode(&log_id), wire::encode(&Vote::new(at.term, node)));
    let (id, vote) = (id.map_err(io::Error::other)?, vote.map_err(io::Error::other)?);
    // In the order of the journal: when the vote is durable, so is the purge.
    futures::executor::block_on(async {
        journal.purge(group, at.index, id).await?;
        journal.save_vote(group, vote).await
    })
}

impl Position {
    fn of(id: LogId) -> Position {
        Position { term: id.leader_id.term, index: id.index }
    }
}

impl<S> Remains<S> {
    /// The highest term that the node has seen.
    pub fn term(&self) -> u64 {
        self.last.term.max(self.voted.map_or(0, |(term, _)| term))
    }

    fn set_membership(&mut self, membership: &Membership<NodeId, BasicNode>) {
        self.voters = membership.voter_ids().collect();
        self.learners = membership.learner_ids().collect();
    }

    fn apply<A: Application<State = S>>(&mut self, log: &GroupLog, application: &A) -> io::Result<()> {
        let end = log.next_index().unwrap_or(0);
        // The log may still have entries that the snapshot holds.
        let behind_snapshot = if self.snapshot > 0 { self.snapshot + 1 } else { 0 };
        let mut next = log.first_index().unwrap_or(end).max(behind_snapshot);
        while next < end {
            for bytes in log.entries_within(next..end, READ_BYTES).read()? {
                let entry: Entry = decode(&bytes)?;
                self.last = Position::of(entry.log_id());
                if self.last.index != next {
                    let text = format!("the log has entry {} where {next} is next", self.last.index);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                let body = match &entry.payload {
                    EntryPayload::Blank => Body::Blank,
                    EntryPayload::Normal(payload) => Body::Command(&payload.0),
                    EntryPayload::Membership(membership) => {
                        self.set_membership(membership);
                        Body::Membership { voters: self.voters.clone(), learners: self.learners.clone() }
                    }
                };
                application.apply(&mut self.state, ApplicationEntry { index: next, body })?;
                next += 1;
            }
        }
        Ok(())
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| {
        let text =
            format!("the log holds what this version cannot read ({error}): run the version that wrote it");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}
