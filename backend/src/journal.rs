//! The journal: one write-ahead log for a node, shared by all its Raft groups.
//!
//! Whatever any group must not lose (votes, entries, truncations, purges) is a record here. One
//! thread writes: it takes all that is queued, writes it at once, and makes it durable with a single
//! fdatasync for all groups. So many groups cost one disk no more than one does.
//!
//! What always holds:
//! - What was confirmed is on disk. Records take effect in the order in which they were queued.
//! - A torn tail, which a crash leaves behind what was never confirmed, is cut off when the journal
//!   is opened. Damage anywhere else refuses to open: what was confirmed must not vanish silently.
//! - After an error of the disk nothing is confirmed any more. An fsync is never tried again: the
//!   kernel may have dropped what the first one did not write.
//!
//! The entries that are not purged yet are in memory too, and are read from there; how many there
//! are is bounded by how often the groups take snapshots. The journal knows nothing of what the
//! bytes mean.
//!
//! Segments are files of records, named by their number. A new one begins with what must survive the
//! deletion of older ones: each group's vote, purge point and commit hint. The oldest segment is
//! deleted when every entry in it is purged.

mod record;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use self::{
    record::Record,
    segment::replay,
    writer::{Batch, Done, Heads, Writer},
};
use bytes::Bytes;
use ringmaster_common::id::GroupId;
use std::{
    collections::BTreeMap,
    fs, io,
    ops::{Bound, RangeBounds},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

/// How large a segment grows before the next one is begun.
pub const SEGMENT_BYTES: u64 = 32 << 20;
/// How many batches may wait to be written.
const QUEUED_BATCHES: usize = 1024;
/// The largest record.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal at {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{} is damaged at byte {offset}: {what}. What was acknowledged may be lost here, so this node does not \
         start. Remove it from the cluster, and let it join again with an empty data directory and a new id",
        path.display()
    )]
    Damaged { path: PathBuf, offset: u64, what: String },
    #[error(
        "{} has format {found}, and this version reads format {}; run the newer version",
        path.display(),
        segment::FORMAT
    )]
    Format { path: PathBuf, found: u16 },
}

/// The journal of a node.
#[derive(Debug)]
pub struct Journal {
    index: Arc<Mutex<Index>>,
    queue: mpsc::Sender<Batch>,
    fsyncs: Arc<AtomicU64>,
}

/// What the records amount to.
type Index = BTreeMap<GroupId, GroupLog>;

/// The log of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLog {
    pub vote: Option<Bytes>,
    /// A hint: it may be behind what was really committed.
    pub committed: Option<Bytes>,
    /// The last index that was purged, and its id.
    pub purged: Option<(u64, Bytes)>,
    pub entries: BTreeMap<u64, Bytes>,
}

impl Journal {
    /// Opens the journal below `dir`, and replays it.
    pub fn open(dir: &Path) -> Result<Arc<Journal>, JournalError> {
        Journal::with_segments_of(dir, SEGMENT_BYTES)
    }

    fn with_segments_of(dir: &Path, segment_bytes: u64) -> Result<Arc<Journal>, JournalError> {
        let folder = dir.join("journal");
        let failed = |error| JournalError::Io { path: folder.clone(), error };
        fs::create_dir_all(&folder).map_err(failed)?;
        sync_dir(dir).map_err(failed)?;
        let (mut index, mut heads) = (Index::default(), Heads::default());
        let segments = replay(&folder, &mut index, &mut heads)?;
        check_whole(&folder, &index)?;
        let index = Arc::new(Mutex::new(index));
        let fsyncs = Arc::new(AtomicU64::new(0));
        let (queue, batches) = mpsc::channel(QUEUED_BATCHES);
        let writer =
            Writer::open(folder.clone(), segments, segment_bytes, heads, fsyncs.clone()).map_err(failed)?;
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(batches))
            .map_err(failed)?;
        Ok(Arc::new(Journal { index, queue, fsyncs }))
    }

    /// How often the journal has waited for the disk.
    pub fn fsyncs(&self) -> u64 {
        self.fsyncs.load(Ordering::Relaxed)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    /// Reads of a group's log.
    pub fn read<T>(&self, group: GroupId, read: impl FnOnce(&GroupLog) -> T) -> T {
        match self.index().get(&group) {
            Some(log) => read(log),
            None => read(&GroupLog::default()),
        }
    }

    /// The entries of a range, as far as they are there.
    pub fn entries(&self, group: GroupId, range: impl RangeBounds<u64>) -> Vec<(u64, Bytes)> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        if is_empty(bounds) {
            return Vec::new();
        }
        self.read(group, |log| {
            log.entries.range(bounds).map(|(index, entry)| (*index, entry.clone())).collect()
        })
    }

    /// Appends entries. They can be read when this returns; `done` is told when they are durable.
    pub async fn append(
        &self,
        group: GroupId,
        entries: Vec<(u64, Bytes)>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let records =
            entries.into_iter().map(|(index, entry)| Record::Append { group, index, entry }).collect();
        self.submit(records, true, Box::new(done)).await;
    }

    /// Saves a vote, and returns when it is durable.
    pub async fn save_vote(&self, group: GroupId, vote: Bytes) -> io::Result<()> {
        self.durable(Record::Vote { group, vote }).await
    }

    /// Notes what is committed. It becomes durable with whatever comes next.
    pub async fn note_committed(&self, group: GroupId, committed: Bytes) {
        self.submit(vec![Record::Committed { group, committed }], false, Box::new(drop)).await;
    }

    /// Removes the entries behind `index`, or all; returns when that is durable.
    pub async fn truncate_after(&self, group: GroupId, index: Option<u64>) -> io::Result<()> {
        self.durable(Record::TruncateAfter { group, index }).await
    }

    /// Removes the entries up to `index`, whose id is `id`; returns when that is durable.
    pub async fn purge(&self, group: GroupId, index: u64, id: Bytes) -> io::Result<()> {
        self.durable(Record::Purge { group, index, id }).await
    }

    async fn durable(&self, record: Record) -> io::Result<()> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let done = move |result| {
            // Whoever asked may have gone away.
            let _ = tell.send(result);
        };
        self.submit(vec![record], true, Box::new(done)).await;
        told.await.unwrap_or_else(|_| Err(io::Error::other("the journal has stopped")))
    }

    async fn submit(&self, records: Vec<Record>, sync: bool, done: Done) {
        // Room first: what is in the index is on its way to the disk.
        match self.queue.reserve().await {
            Ok(room) => {
                let mut index = self.index();
                for record in &records {
                    record.apply_to(&mut index);
                }
                room.send(Batch { records, sync, done });
            }
            Err(_) => done(Err(io::Error::other("the journal has stopped"))),
        }
    }
}

/// The entries of each group go on from its purge point without a hole.
fn check_whole(folder: &Path, index: &Index) -> Result<(), JournalError> {
    for (group, log) in index {
        let first = log.entries.keys().next().copied();
        let expected = log.purged.as_ref().map(|(purged, _)| purged + 1).or(first);
        for (expected, found) in (expected.unwrap_or(0)..).zip(log.entries.keys()) {
            if expected != *found {
                return Err(JournalError::Damaged {
                    path: folder.to_owned(),
                    offset: 0,
                    what: format!("entry {expected} of group {group} is missing, and {found} is there"),
                });
            }
        }
    }
    Ok(())
}

/// Whether a range holds nothing; a map would panic where its start lies behind its end.
fn is_empty(range: (Bound<u64>, Bound<u64>)) -> bool {
    let start = match range.0 {
        Bound::Included(start) => start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.1 {
        Bound::Included(end) => start > end,
        Bound::Excluded(end) => start >= end,
        Bound::Unbounded => false,
    }
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    // Nothing panics halfway through a change of the index.
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the names in a directory durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}
