//! openraft's log store for one group, over the journal of the node.
//!
//! The journal keeps the order: what is submitted first becomes durable first, so completions come in
//! the order of the appends, and an append is never durable without the truncation before it.

#[cfg(test)]
mod tests;

use crate::{
    types::{Entry, LogId, TypeConfig, Vote},
    wire,
};
use bytes::Bytes;
use futures::{Stream, stream};
use openraft::{
    OptionalSend, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use ringmaster_common::id::GroupId;
use ringmaster_storage::journal::Journal;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    sync::Arc,
};

/// How many entries, and how many of their bytes, are read at a time for a follower. One entry is
/// always read, whatever its size.
const READ_ENTRIES: u64 = 512;
const READ_BYTES: usize = 4 << 20;

/// The log of one group. Cheap to clone; all clones are of the same log.
#[derive(Clone, Debug)]
pub struct LogStore {
    journal: Arc<Journal>,
    group: GroupId,
}

impl LogStore {
    pub fn new(journal: Arc<Journal>, group: GroupId) -> Self {
        LogStore { journal, group }
    }

    /// The encoded entries of a range, as far as the log has them, at one moment.
    fn encoded(&self, range: Range<u64>) -> Vec<Bytes> {
        self.journal.read(self.group, |log| log.entries(range).cloned().collect())
    }
}

fn encode(value: &impl Serialize) -> io::Result<Bytes> {
    wire::encode(value).map_err(io::Error::other)
}

/// The journal has checked the bytes: what cannot be decoded was written by another version.
fn decode<T: DeserializeOwned>(bytes: &Bytes) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| {
        let text =
            format!("the log holds what this version cannot read ({error}): run the version that wrote it");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// The indexes of a range, as those from the first to before the last.
fn indexes(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<Entry>, io::Error>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.encoded(indexes(&range)).iter().map(decode).collect()
    }

    /// Decodes one at a time: a range that is being applied may be long.
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        stream::iter(self.encoded(indexes(&range)).into_iter().map(|entry| decode(&entry)))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let chunk = start..end.min(start.saturating_add(READ_ENTRIES));
        let (first, entries) = self.journal.read(self.group, |log| {
            let mut bytes = 0;
            let fits = |entry: &&Bytes| {
                let fits = bytes == 0 || bytes + entry.len() <= READ_BYTES;
                bytes += entry.len();
                fits
            };
            (log.first_index(), log.entries(chunk).take_while(fits).cloned().collect::<Vec<_>>())
        });
        if start < end && first.is_some_and(|first| start < first) {
            // A follower would be sent entries with a hole before them.
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("entry {start} is purged")));
        }
        entries.iter().map(decode).collect()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.journal.read(self.group, |log| log.vote.as_ref().map(decode).transpose())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.journal.read(self.group, |log| {
            let purged = log.purged.as_ref().map(|(_, id)| decode::<LogId>(id)).transpose()?;
            let last = log.last_entry().map(decode::<Entry>).transpose()?;
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
        self.journal.save_vote(self.group, encode(vote)?).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        match committed {
            Some(committed) => self.journal.note_committed(self.group, encode(&committed)?).await,
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.journal.read(self.group, |log| log.committed.as_ref().map(decode).transpose())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut entries = entries.into_iter().peekable();
        let first = entries.peek().map_or(0, RaftEntry::index);
        let entries = entries
            .map(|entry| wire::encode_within(&entry, wire::entry_bytes(&entry)).map_err(io::Error::other))
            .collect::<io::Result<Vec<_>>>()?;
        self.journal.append(self.group, first, entries, |result| callback.io_completed(result)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.journal.truncate(self.group, last.map_or(0, |last| last.index + 1)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.journal.purge(self.group, upto.index, encode(&upto)?).await
    }
}
