//! The one thread that writes.

use super::{
    Limits,
    frame::Frame,
    hints::Hints,
    image::{Image, Place},
    position::{Entries, Part, Position},
    record::Record,
    replay::Replayed,
    segment::{self, Created, Segment, Segments, Tail},
};
use crate::atomic_file;
use bytes::Bytes;
use prometheus_client::metrics::histogram::Histogram;
use ringmaster_common::id::GroupId;
use ringmaster_net::clock;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};
use tokio::sync::OwnedSemaphorePermit;

/// How large a frame grows, roughly: further records wait for the next fsync.
const FRAME_BYTES: usize = 4 << 20;
/// How long records that no caller waits for may stay in memory before they get a frame of their own.
const LAZY_FLUSH_AFTER: Duration = Duration::from_millis(50);
/// Upper bounds of the buckets for fsyncs, in seconds.
const FSYNC_BUCKETS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.1, 0.5, 2.0];

/// Records to be written in one piece.
pub(super) struct Write {
    pub(super) records: Vec<Record>,
    /// The serial of the first entry that it appends; the others follow.
    pub(super) first_serial: u64,
    /// Whether a caller waits. If not, the records are written together with the next ones for which a caller does.
    pub(super) urgent: bool,
    pub(super) done: Completion,
    /// Its share of the queue, given back when it is written.
    pub(super) room: OwnedSemaphorePermit,
}

/// Reports how a write ended: exactly once, even if it is never written.
pub(super) struct Completion(Option<Box<dyn FnOnce(io::Result<()>) + Send>>);

impl Completion {
    pub(super) fn new(report: impl FnOnce(io::Result<()>) + Send + 'static) -> Self {
        Completion(Some(Box::new(report)))
    }

    fn complete(mut self, result: io::Result<()>) {
        if let Some(report) = self.0.take() {
            report(result);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(report) = self.0.take() {
            report(Err(io::Error::other("the journal did not write it")));
        }
    }
}

/// Why nothing is written any more.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: io::ErrorKind,
    text: String,
}

impl Failure {
    pub(super) fn new(dir: &Path, error: &io::Error) -> Self {
        let text = format!("the journal cannot be written to {}: {error}", dir.display());
        Failure { kind: error.kind(), text }
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}

/// Measurements of the disk: how many fsyncs of frames there were, and how long each took.
#[derive(Clone)]
pub(super) struct Measured {
    pub(super) fsyncs: Arc<AtomicU64>,
    pub(super) seconds: Histogram,
}

impl Default for Measured {
    fn default() -> Self {
        Measured { fsyncs: Arc::default(), seconds: Histogram::new(FSYNC_BUCKETS) }
    }
}

pub(super) struct Writer {
    dir: PathBuf,
    limits: Limits,
    /// The image that a replay of the files would give, once the current frame is written.
    image: Image,
    /// The image of the readers. The writer adds the positions of entries on disk.
    front: Arc<Mutex<Image>>,
    segments: Segments,
    tail: Tail,
    frame: Frame,
    /// The entries in the current frame.
    appended: Vec<Appended>,
    /// The groups that were dropped in the current frame.
    dropped: BTreeSet<GroupId>,
    /// The writes in the current frame, in the order in which they came.
    waiting: Vec<(Completion, OwnedSemaphorePermit)>,
    urgent: bool,
    measured: Measured,
    hints: Arc<Hints>,
    failure: Arc<OnceLock<Failure>>,
}

/// An entry, and where it is on disk once its frame is written.
struct Appended {
    group: GroupId,
    index: u64,
    serial: u64,
    position: Position,
}

impl Writer {
    pub(super) fn new(
        dir: PathBuf,
        limits: Limits,
        replayed: Replayed,
        front: Arc<Mutex<Image>>,
        measured: Measured,
        hints: Arc<Hints>,
        failure: Arc<OnceLock<Failure>>,
    ) -> Self {
        let Replayed { image, segments, tail } = replayed;
        Writer {
            dir,
            limits,
            image,
            front,
            segments,
            tail,
            frame: Frame::new(),
            appended: Vec::new(),
            dropped: BTreeSet::new(),
            waiting: Vec::new(),
            urgent: false,
            measured,
            hints,
            failure,
        }
    }

    /// Writes the queue until its senders are gone.
    pub(super) fn run(mut self, queue: &Receiver<Write>) {
        let mut rests = false;
        loop {
            let next = if rests {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(LAZY_FLUSH_AFTER)
            };
            // Before the queue is drained: the entries that the hints speak of are in it by now.
            let mut hints = self.hints.take();
            let due = next.is_err();
            match next {
                Ok(write) => self.take(write),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.take_hints(hints);
                    self.flush();
                    return self.trim();
                }
            }
            let mut drained = false;
            while self.frame.len() < FRAME_BYTES && !drained {
                match queue.try_recv() {
                    Ok(write) => self.take(write),
                    Err(_) => drained = true,
                }
            }
            // The hint of a group from before it was dropped means nothing any more.
            for group in std::mem::take(&mut self.dropped) {
                hints.remove(&group);
            }
            if drained {
                self.take_hints(hints);
            } else {
                self.hints.put_back(hints);
            }
            if due || self.urgent || self.frame.len() >= FRAME_BYTES {
                self.flush();
            }
            rests = due && self.hints.rest();
        }
    }

    fn take_hints(&mut self, hints: BTreeMap<GroupId, Bytes>) {
        for (group, committed) in hints {
            self.put(&Record::Committed { group, committed }, 0);
        }
    }

    /// Puts records into the current frame. Where they do not fit, they get further ones.
    fn take(&mut self, write: Write) {
        let mut serial = write.first_serial;
        for record in &write.records {
            if !self.frame.is_empty() && self.frame.len() + record.size() > FRAME_BYTES {
                self.flush();
            }
            self.put(record, serial);
            serial += u64::from(matches!(record, Record::Append { .. }));
        }
        self.urgent |= write.urgent;
        self.waiting.push((write.done, write.room));
    }

    /// Puts a record into the current frame, which will be written to the end of the file.
    fn put(&mut self, record: &Record, serial: u64) {
        self.frame.push(record);
        let (end, readable) = (self.tail.end + self.frame.len() as u64, &self.tail.readable);
        let appended = &mut self.appended;
        let place = |entry: &Bytes| {
            // An entry is the end of its record.
            let position = Position::new(Arc::clone(readable), end - entry.len() as u64, entry);
            if let Record::Append { group, index, .. } = record {
                appended.push(Appended { group: *group, index: *index, serial, position: position.clone() });
            }
            Place::Disk(position)
        };
        self.image.apply(record, place).expect("what is queued was checked");
        self.segments.note(record);
        if let Record::Drop { group } = record {
            self.dropped.insert(*group);
        }
    }

    /// Makes the current frame durable, and completes the writes in it.
    fn flush(&mut self) {
        let failed = match self.failure.get() {
            Some(failure) => Some(failure.clone()),
            None => self.write_frame().err().map(|error| self.fail(&error)),
        };
        self.frame.clear();
        self.urgent = false;
        let appended = std::mem::take(&mut self.appended);
        if failed.is_none() && !appended.is_empty() {
            let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
            let mut groups = BTreeSet::new();
            for Appended { group, index, serial, position } in appended {
                front.log(group).written(index, serial, position);
                groups.insert(group);
            }
            for group in groups {
                front.log(group).evict(self.limits.kept_bytes);
            }
        }
        for (done, _) in self.waiting.drain(..) {
            done.complete(failed.as_ref().map_or(Ok(()), |failure| Err(failure.error())));
        }
        if failed.is_some() {
            return;
        }
        if self.tail.written() >= self.limits.segment_bytes
            && let Err(error) = self.begin_segment()
        {
            self.fail(&error);
        }
        self.delete_spent();
    }

    fn write_frame(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        self.measured.fsyncs.fetch_add(1, Ordering::Relaxed);
        let started = clock::now();
        let ahead = self.limits.segment_bytes.saturating_sub(self.tail.written());
        self.tail.append(&mut self.frame, ahead)?;
        self.measured.seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// From now on all writes fail. The fsync is not tried again: the kernel may have dropped what
    /// the first one did not write, and would report success.
    fn fail(&self, error: &io::Error) -> Failure {
        tracing::error!(%error, journal = %self.dir.display(), "the journal cannot be written; nothing is confirmed any more");
        self.failure.get_or_init(|| Failure::new(&self.dir, error)).clone()
    }

    /// The file ends where its frames do, unless the process crashes.
    fn trim(&mut self) {
        if let Err(error) = self.tail.trim() {
            tracing::debug!(%error, journal = %self.dir.display(), "zeros are left behind the last frame");
        }
    }

    /// Begins a new segment. Groups whose entries would keep too many old ones are copied.
    fn begin_segment(&mut self) -> io::Result<()> {
        let copied = self.segments.stragglers(self.limits.segments - 1, &self.image);
        let path = Segment::path(&self.dir, self.tail.sequence);
        self.trim();
        let Created { tail, entries } =
            segment::create(&path, self.tail.sequence, checkpoint(&self.image, &copied))?;
        self.tail = tail;
        self.segments.begin(path, &entries);
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        for (group, index, position) in entries {
            front.log(group).moved(index, position.clone());
            self.image.log(group).moved(index, position);
        }
        Ok(())
    }

    fn delete_spent(&mut self) {
        while self.segments.oldest_is_spent(&self.image) {
            let path = &self.segments.list[0].path;
            // One after the other: a gap between segments would look like a loss.
            if let Err(error) = fs::remove_file(path).and_then(|()| atomic_file::sync_dir(&self.dir)) {
                tracing::warn!(segment = %path.display(), %error, "a spent segment could not be removed");
                return;
            }
            self.segments.list.remove(0);
        }
    }
}

/// The records at the beginning of a segment: of every group all but its entries, and of some groups these, too. They
/// are ordinary records: a replay that comes from older segments finds nothing new in them.
pub(super) fn checkpoint<'a>(
    image: &'a Image,
    copied: &'a BTreeSet<GroupId>,
) -> impl Iterator<Item = io::Result<Record>> + 'a {
    image.groups.iter().flat_map(|(group, log)| {
        let group = *group;
        let vote = log.vote.clone().map(|vote| Record::Vote { group, vote });
        let purge = log.purged.clone().map(|(through, id)| Record::Purge { group, through, id });
        let committed = log.committed.clone().map(|committed| Record::Committed { group, committed });
        let first = log.first_index().filter(|_| copied.contains(&group));
        let clear = first.map(|_| Record::Truncate { group, from: 0 });
        let entries = first.into_iter().flat_map(move |_| {
            log.positions().map(move |(index, position)| {
                let entry = Entries::new(vec![Part::OnDisk(position.clone())]).read()?.remove(0);
                io::Result::Ok(Record::Append { group, index, entry })
            })
        });
        let before = [vote, purge, clear].into_iter().flatten().map(Ok);
        let holds = log.first_index().zip(log.next_index());
        let holds = holds.map(|(first, next)| Record::Holds { group, first, next });
        before.chain(entries).chain(holds.map(Ok)).chain(committed.map(Ok))
    })
}
