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
use futures::{Stream, TryStreamExt, stream};
use openraft::{
    OptionalSend, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use ringmaster_common::id::GroupId;
use ringmaster_storage::journal::{Entries, GroupLog, Journal};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::task::spawn_blocking;

/// How many entries are read at a time for a follower, and how many bytes of them at a time for anything. One entry is
/// always read, whatever its size.
const READ_ENTRIES: u64 = 512;
const READ_BYTES: usize = 4 << 20;

/// The log of one group. Cheap to clone; all clones are of the same log.
#[derive(Clone, Debug)]
pub struct LogStore {
    journal: Arc<Journal>,
    group: GroupId,
    durable: Arc<AtomicU64>,
}

impl LogStore {
    pub fn new(journal: Arc<Journal>, group: GroupId) -> Self {
        let next = journal.read(group, GroupLog::next_index).unwrap_or(0);
        LogStore { journal, group, durable: Arc::new(AtomicU64::new(next.saturating_sub(1))) }
    }

    /// The last index that has been on disk. A leader may have applied more: a majority of the others has that.
    pub fn durable_index(&self) -> u64 {
        self.durable.load(Ordering::Relaxed)
    }

    /// The entries up to `through` are applied: they need not be in memory any more.
    pub fn release(&self, through: u64) {
        self.journal.release(self.group, through);
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

/// Reads entries on a thread of its own, if they are on disk.
async fn load(entries: Entries) -> io::Result<Vec<Bytes>> {
    if entries.are_on_disk() {
        spawn_blocking(move || entries.read()).await.map_err(io::Error::other)?
    } else {
        entries.read()
    }
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
        let entries = self.journal.read(self.group, |log| log.entries(indexes(&range)));
        load(entries).await?.iter().map(decode).collect()
    }

    /// Reads some at a time, and decodes one at a time: a range that is being applied may be long.
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (log, Range { start, end }) = (self.clone(), indexes(&range));
        let end = end.min(log.journal.read(log.group, GroupLog::next_index).unwrap_or(0));
        let chunks = stream::try_unfold(start, move |start| {
            let log = log.clone();
            async move {
                let (first, entries) = log
                    .journal
                    .read(log.group, |log| (log.first_index(), log.entries_within(start..end, READ_BYTES)));
                if entries.is_empty() {
                    return io::Result::Ok(None);
                }
                let next = start.max(first.unwrap_or(start)) + entries.len() as u64;
                let entries = load(entries).await?.into_iter().map(|entry| decode::<Entry>(&entry));
                Ok(Some((stream::iter(entries), next)))
            }
        });
        Box::pin(chunks.try_flatten())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let chunk = start..end.min(start.saturating_add(READ_ENTRIES));
        let (first, entries) =
            self.journal.read(self.group, |log| (log.first_index(), log.entries_within(chunk, READ_BYTES)));
        if start < end && first.is_some_and(|first| start < first) {
            // A follower would be sent entries with a hole before them.
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("entry {start} is purged")));
        }
        load(entries).await?.iter().map(decode).collect()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.journal.read(self.group, |log| log.vote.as_ref().map(decode).transpose())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let (purged, last) = self.journal.read(self.group, |log| {
            let next = log.next_index().unwrap_or(0);
            (log.purged.clone(), log.entries(next.saturating_sub(1)..next))
        });
        let purged = purged.map(|(_, id)| decode::<LogId>(&id)).transpose()?;
        let last = load(last).await?.first().map(decode::<Entry>).transpose()?;
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.map(|entry| entry.log_id()).or(purged) })
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
        let (durable, last) = (self.durable.clone(), (first + entries.len() as u64).saturating_sub(1));
        let completed = move |result: io::Result<()>| {
            if result.is_ok() {
                durable.fetch_max(last, Ordering::Relaxed);
            }
            callback.io_completed(result);
        };
        self.journal.append(self.group, first, entries, completed).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.journal.truncate(self.group, last.map_or(0, |last| last.index + 1)).await?;
        // Appends before it are completed before it.
        self.durable.fetch_min(last.map_or(0, |last| last.index), Ordering::Relaxed);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.journal.purge(self.group, upto.index, encode(&upto)?).await?;
        // A snapshot that was installed reaches further than the log before it.
        self.durable.fetch_max(upto.index, Ordering::Relaxed);
        Ok(())
    }
}
