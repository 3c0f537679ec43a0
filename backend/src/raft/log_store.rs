//! openraft's log store for one group, over the journal of the node.

use crate::{
    journal::Journal,
    raft::types::{Entry, LogId, TypeConfig, Vote},
};
use bytes::Bytes;
use openraft::{
    OptionalSend, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use ringmaster_common::id::GroupId;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, io, ops::RangeBounds, sync::Arc};

/// How many entries, and how many of their bytes, are read at a time for a follower.
const READ_ENTRIES: u64 = 512;
const READ_BYTES: usize = 4 << 20;

/// The log of one group. Cheap to clone; every clone reads the same log.
#[derive(Clone, Debug)]
pub struct LogStore {
    journal: Arc<Journal>,
    group: GroupId,
}

impl LogStore {
    pub fn new(journal: Arc<Journal>, group: GroupId) -> Self {
        LogStore { journal, group }
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    postcard::to_stdvec(value).expect("plain data encodes").into()
}

/// The journal has checked the bytes: what cannot be decoded was written by another version.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes)
        .map_err(|error| io::Error::other(format!("the log was written by another version: {error}")))
}

fn decode_if<T: DeserializeOwned>(bytes: Option<&Bytes>) -> io::Result<Option<T>> {
    bytes.map(|bytes| decode(bytes)).transpose()
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<Entry>, io::Error>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.journal.entries(self.group, range).iter().map(|(_, entry)| decode(entry)).collect()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let entries = self.journal.entries(self.group, start..end.min(start + READ_ENTRIES));
        let mut bytes = 0;
        entries
            .iter()
            .take_while(|(_, entry)| {
                // The first one is read whatever its size.
                let fits = bytes == 0 || bytes + entry.len() <= READ_BYTES;
                bytes += entry.len().max(1);
                fits
            })
            .map(|(_, entry)| decode(entry))
            .collect()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.journal.read(self.group, |log| decode_if(log.vote.as_ref()))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.journal.read(self.group, |log| {
            let purged: Option<LogId> = decode_if(log.purged.as_ref().map(|(_, id)| id))?;
            let last: Option<Entry> = decode_if(log.entries.values().next_back())?;
            Ok(LogState {
                last_purged_log_id: purged,
                last_log_id: last.map(|entry| entry.log_id()).or(purged),
            })
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.journal.save_vote(self.group, encode(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.journal.note_committed(self.group, encode(&committed)).await;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.journal.read(self.group, |log| {
            let committed: Option<LogId> = decode_if(log.committed.as_ref())?;
            // The hint is written without waiting for the disk, and may tell of what was truncated.
            let last =
                log.entries.keys().next_back().copied().or(log.purged.as_ref().map(|(index, _)| *index));
            Ok(committed.filter(|id| last.is_some_and(|last| id.index <= last)))
        })
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| (entry.index(), encode(&entry))).collect();
        self.journal.append(self.group, entries, |result| callback.io_completed(result)).await;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.journal.truncate_after(self.group, last.map(|id| id.index)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.journal.purge(self.group, upto.index, encode(&upto)).await
    }
}
