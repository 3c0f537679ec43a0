//! The journal: one write-ahead log for a node, shared by all its Raft groups.
//!
//! All that a group must not lose (its vote, its entries, its truncations and purges) is a record here.
//! One thread writes: it takes all that is queued, for whichever group, puts it into one frame, and
//! makes that durable with a single fdatasync. So 64 groups cost the disk no more than one does.
//!
//! What always holds:
//! - What was confirmed is on disk. Records become durable in the order in which they were queued, and
//!   those of one frame together: no entry without the truncation before it, no commit hint without
//!   the entries that it speaks of.
//! - A write that a crash cut short was never confirmed; it is cut off when the journal is opened.
//!   Damage that has something whole behind it refuses to open: what was confirmed must not vanish
//!   silently. (Where the node did not stop in order, damage to the very last frame cannot be distinguished from a write
//!   that was cut short.)
//! - After an error of the disk nothing is confirmed any more, and no fsync is tried again.
//!
//! An entry can be read at once after `append` returns, from memory. Once it is on disk and released, because it was
//! applied, the journal keeps its position in memory and reads it from disk ([`Entries`]); the last
//! [`KEPT_BYTES`] of each group stay in memory, because followers are sent those.
//!
//! On disk the journal is a directory of segments. Each begins with a checkpoint, which survives the deletion of
//! older segments: the node that the journal is of, every group's vote, purge point and commit hint, and which entries it
//! has. So the loss of any segment is noticed: of an older one by the entries that a checkpoint says are there, of a newer
//! one by the seal of the one before it. The oldest is deleted when its entries are purged. A group that is never written to, and so never purges, would keep all segments since
//! its last entry; beyond [`SEGMENTS`] its entries are copied into the newest.
//!
//! Deliberately absent: locking (see `data_dir`), and any knowledge of what the bytes mean.

mod closed;
mod frame;
mod hints;
mod image;
mod position;
mod record;
mod replay;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use self::{
    hints::Hints,
    image::{Image, Place},
    record::Record,
    segment::Segment,
    writer::{Completion, Failure, Measured, Write, Writer},
};
pub use self::{image::GroupLog, position::Entries, record::Owner};
use crate::{atomic_file, layout::JOURNAL as DIRECTORY};
use bytes::Bytes;
use prometheus_client::metrics::histogram::Histogram;
use ringmaster_common::id::GroupId;
use ringmaster_net::supervisor::Supervisor;
use std::{
    fmt, fs, io, iter,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};
use tokio::sync::{Semaphore, oneshot};

/// How large a segment grows, besides its checkpoint, before the next one is begun.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// How many segments there are at the most.
pub const SEGMENTS: usize = 8;
/// The largest entry.
pub const ENTRY_BYTES: usize = 64 << 20;
/// How many bytes of the entries of a group stay in memory although they are on disk and applied.
pub const KEPT_BYTES: usize = 1 << 20;
/// How many bytes may be queued; further writes wait.
const QUEUE_BYTES: u32 = 64 << 20;

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal at {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "there is no journal at {}, and with it this node has lost its votes and entries. Restore the directory, or \
         remove the node from the cluster and let it join again with an empty data directory and a new id",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error(
        "{} is damaged at byte {offset}: {what}. Entries that were acknowledged may be lost, so this node does not \
         start. Remove it from the cluster, and let it join again with an empty data directory and a new id; if most \
         nodes are damaged, see docs/recovery.md",
        path.display()
    )]
    Damaged { path: PathBuf, offset: u64, what: String },
    #[error(
        "{} has format {found}, and this version reads format {supported}: run the version that wrote it",
        path.display()
    )]
    Format { path: PathBuf, found: u32, supported: u32 },
    #[error(
        "the journal at {} is that of {held}, and the directory belongs to {asked}: its votes and entries are not this \
         node's, so the node does not start. Restore the journal or identity.json, or remove the node from the cluster \
         and let it join again with an empty data directory and a new id",
        path.display()
    )]
    Foreign { path: PathBuf, held: Owner, asked: Owner },
}

/// How large a journal gets on disk, apart from entries that are not purged, and in memory, apart from those that are not
/// released.
#[derive(Clone, Copy, Debug)]
struct Limits {
    segment_bytes: u64,
    segments: usize,
    kept_bytes: usize,
}

const LIMITS: Limits = Limits { segment_bytes: SEGMENT_BYTES, segments: SEGMENTS, kept_bytes: KEPT_BYTES };

/// The journal of a node, open.
pub struct Journal {
    /// The state after all records, with those that are still queued.
    image: Arc<Mutex<Image>>,
    kept_bytes: usize,
    /// The serial of the next entry.
    next_serial: AtomicU64,
    hints: Arc<Hints>,
    /// None while it is being dropped.
    queue: Option<mpsc::Sender<Write>>,
    room: Arc<Semaphore>,
    measured: Measured,
    failure: Arc<OnceLock<Failure>>,
    writer: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Journal {
    /// Creates the journal in the data directory `dir`, unless it is there: once, for a node that has
    /// no past. Later a missing journal is an error, because a node that forgot its votes may vote
    /// twice.
    pub fn create(dir: &Path) -> Result<(), JournalError> {
        let path = dir.join(DIRECTORY);
        match replay::replay(&path) {
            Ok(_) => Ok(()),
            Err(JournalError::Missing { .. }) => atomic_file::create_dir(&path)
                .and_then(|()| segment::create(&Segment::path(&path, 0), 0, iter::empty()))
                .map(drop)
                .map_err(|source| JournalError::Io { path, source }),
            Err(error) => Err(error),
        }
    }

    /// Whether the data directory `dir` has a journal that a node has used.
    pub fn is_used(dir: &Path) -> bool {
        replay::is_used(&dir.join(DIRECTORY))
    }

    /// The log of a group in the data directory `dir`, of a node that does not run. Changes nothing on disk; entries
    /// that were cut short by a crash are left out.
    pub fn read_stopped(dir: &Path, group: GroupId) -> Result<GroupLog, JournalError> {
        Ok(replay::read(&dir.join(DIRECTORY))?.groups.remove(&group).unwrap_or_default())
    }

    /// Opens the journal in the data directory `dir`, and replays it.
    pub fn open(dir: &Path) -> Result<Arc<Journal>, JournalError> {
        Journal::start(dir, LIMITS, None, &Supervisor::new())
    }

    /// The same, as the journal of one node: that of another one is refused. The thread that writes is one of the
    /// supervisor's.
    pub fn open_supervised(
        dir: &Path,
        owner: Owner,
        supervisor: &Supervisor,
    ) -> Result<Arc<Journal>, JournalError> {
        Journal::start(dir, LIMITS, Some(owner), supervisor)
    }

    #[cfg(test)]
    fn open_within(dir: &Path, limits: Limits) -> Result<Arc<Journal>, JournalError> {
        Journal::start(dir, limits, None, &Supervisor::new())
    }

    fn start(
        dir: &Path,
        limits: Limits,
        owner: Option<Owner>,
        supervisor: &Supervisor,
    ) -> Result<Arc<Journal>, JournalError> {
        let path = dir.join(DIRECTORY);
        let mut replayed = replay::replay(&path)?;
        if let Some(owner) = owner {
            replayed.check_owner(&path, owner)?;
        }
        let image = Arc::new(Mutex::new(replayed.image.clone()));
        let (measured, failure, hints) = (Measured::default(), Arc::default(), Arc::<Hints>::default());
        let writer = Writer::new(
            path.clone(),
            limits,
            replayed,
            Arc::clone(&image),
            measured.clone(),
            Arc::clone(&hints),
            Arc::clone(&failure),
        );
        let (queue, queued) = mpsc::channel();
        let writer = supervisor
            .spawn_thread("journal", move || writer.run(&queued))
            .map_err(|source| JournalError::Io { path: path.clone(), source })?;
        Ok(Arc::new(Journal {
            image,
            kept_bytes: limits.kept_bytes,
            next_serial: AtomicU64::new(1),
            hints,
            queue: Some(queue),
            room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)),
            measured,
            failure,
            writer: Some(writer),
            path,
        }))
    }

    /// How many fsyncs of frames there were since the journal was opened.
    pub fn fsyncs(&self) -> u64 {
        self.measured.fsyncs.load(Ordering::Relaxed)
    }

    /// How long they took, in seconds.
    pub fn fsync_seconds(&self) -> &Histogram {
        &self.measured.seconds
    }

    /// How large each segment is on disk.
    pub fn segment_bytes(&self) -> io::Result<Vec<u64>> {
        let mut sizes = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name() != closed::FILE {
                sizes.push(entry.metadata()?.len());
            }
        }
        Ok(sizes)
    }

    /// The entries of a group up to `through` are applied: they need not be in memory any more.
    pub fn release(&self, group: GroupId, through: u64) {
        if let Some(log) = self.image().groups.get_mut(&group) {
            log.release(through, self.kept_bytes);
        }
    }

    /// Whether any group has a log or a vote: whether this node has taken part in one before.
    pub fn has_past(&self) -> bool {
        let image = self.image();
        image.groups.values().any(|log| log.vote.is_some() || log.next_index().is_some())
    }

    /// Reads of a group's log. Nothing is appended meanwhile, so `read` should be short.
    pub fn read<T>(&self, group: GroupId, read: impl FnOnce(&GroupLog) -> T) -> T {
        match self.image().groups.get(&group) {
            Some(log) => read(log),
            None => read(&GroupLog::default()),
        }
    }

    /// Appends entries, the first of which has the index `first`. They can be read when this returns;
    /// `done` is called when they are durable, on the writer's thread, and must not block.
    pub async fn append(
        &self,
        group: GroupId,
        first: u64,
        entries: Vec<Bytes>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        if let Some(entry) = entries.iter().find(|entry| entry.len() > ENTRY_BYTES) {
            let text = format!("an entry of {} bytes is larger than {ENTRY_BYTES}", entry.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let record = |(index, entry)| Record::Append { group, index, entry };
        let records = (first..).zip(entries).map(record).collect();
        self.submit(records, true, Completion::new(done)).await
    }

    /// Saves a group's vote, and returns when it is durable.
    pub async fn save_vote(&self, group: GroupId, vote: Bytes) -> io::Result<()> {
        self.submit_and_wait(Record::Vote { group, vote }).await
    }

    /// Removes the entries from `from` on, and returns when that is durable: a snapshot that replaces
    /// them must not become durable first.
    pub async fn truncate(&self, group: GroupId, from: u64) -> io::Result<()> {
        self.submit_and_wait(Record::Truncate { group, from }).await
    }

    /// Removes the entries up to `through`, which has the log id `id`. It does not wait until that is durable: entries
    /// that come back are purged again.
    pub async fn purge(&self, group: GroupId, through: u64, id: Bytes) -> io::Result<()> {
        self.submit(vec![Record::Purge { group, through, id }], false, Completion::new(drop)).await
    }

    /// Removes all of a group but its vote, which a replica that comes back must know, and returns when that is durable.
    pub async fn drop_group(&self, group: GroupId) -> io::Result<()> {
        self.hints.forget(group);
        self.submit_and_wait(Record::Drop { group }).await
    }

    /// Notes how far the group has committed. It becomes durable with the next write, or soon.
    pub async fn note_committed(&self, group: GroupId, committed: Bytes) -> io::Result<()> {
        if let Some(failure) = self.failure.get() {
            return Err(failure.error());
        }
        let hint = Record::Committed { group, committed: committed.clone() };
        self.image().apply(&hint, |_| unreachable!("a hint appends nothing")).map_err(io::Error::other)?;
        if self.hints.note(group, committed) {
            // Only to wake the writer.
            self.submit(Vec::new(), false, Completion::new(drop)).await?;
        }
        Ok(())
    }

    async fn submit_and_wait(&self, record: Record) -> io::Result<()> {
        let (sender, result) = oneshot::channel();
        let done = Completion::new(|result| {
            // The caller may have gone away.
            let _ = sender.send(result);
        });
        self.submit(vec![record], true, done).await?;
        result.await.expect("a completion always reports")
    }

    /// Queues records. When this returns, readers see them.
    async fn submit(&self, records: Vec<Record>, urgent: bool, done: Completion) -> io::Result<()> {
        let bytes: usize = records.iter().map(Record::size).sum();
        let share = u32::try_from(bytes).unwrap_or(QUEUE_BYTES).min(QUEUE_BYTES);
        let room = self.room.clone().acquire_many_owned(share).await.expect("the queue is never closed");
        if let Some(failure) = self.failure.get() {
            return Err(failure.error());
        }
        // In one step, so that readers see the order in which it is written.
        let mut image = self.image();
        if let Some(Record::Append { group, index, .. }) = records.first()
            && let Some(next) = image.groups.get(group).and_then(GroupLog::next_index)
            && next != *index
        {
            let text = format!("entry {index} of group {group} is appended where {next} is next");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let appends = records.iter().filter(|record| matches!(record, Record::Append { .. })).count() as u64;
        let first_serial = self.next_serial.fetch_add(appends, Ordering::Relaxed);
        let mut serial = first_serial;
        for record in &records {
            let queued = |_: &Bytes| {
                serial += 1;
                Place::Queue { serial: serial - 1 }
            };
            image.apply(record, queued).map_err(io::Error::other)?;
        }
        let queue = self.queue.as_ref().expect("it is there until the journal is dropped");
        // If the writer is gone, dropping the write reports that it failed.
        let _ = queue.send(Write { records, first_serial, urgent, done, room });
        Ok(())
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        // Nothing panics halfway through a change of the image.
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    /// Waits until all that is queued is written, so that the directory can be opened again.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has reported every write as failed.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("fsyncs", &self.fsyncs()).finish_non_exhaustive()
    }
}
