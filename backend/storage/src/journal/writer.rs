//! The one thread that writes.

use super::{
    Limits,
    frame::Frame,
    hints::Hints,
    image::Image,
    record::Record,
    replay::Replayed,
    segment::{self, Segment, Segments, Tail},
};
use crate::atomic_file;
use bytes::Bytes;
use prometheus_client::metrics::histogram::Histogram;
use ringmaster_common::id::GroupId;
use ringmaster_net::clock;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};
use tokio::sync::OwnedSemaphorePermit;

/// How large a frame grows, roughly: what is queued beyond this waits for the next fsync.
const FRAME_BYTES: usize = 4 << 20;
/// How long records that nobody waits for may stay in memory before they get a frame of their own.
const LAZY_FLUSH_AFTER: Duration = Duration::from_millis(50);
/// Upper bounds of the buckets for fsyncs, in seconds.
const FSYNC_BUCKETS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.1, 0.5, 2.0];

/// Records to be written in one piece.
pub(super) struct Write {
    pub(super) records: Vec<Record>,
    /// Whether somebody waits. If not, the records ride along with the next ones for which somebody
    /// does.
    pub(super) urgent: bool,
    pub(super) done: Completion,
    /// Its share of the queue, given back when it is written.
    pub(super) room: OwnedSemaphorePermit,
}

/// Tells whoever waits how a write ended: exactly once, even where it never came to be written.
pub(super) struct Completion(Option<Box<dyn FnOnce(io::Result<()>) + Send>>);

impl Completion {
    pub(super) fn new(tell: impl FnOnce(io::Result<()>) + Send + 'static) -> Self {
        Completion(Some(Box::new(tell)))
    }

    fn complete(mut self, result: io::Result<()>) {
        if let Some(tell) = self.0.take() {
            tell(result);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Err(io::Error::other("the journal did not write it")));
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
    pub(super) fn new(error: &io::Error) -> Self {
        Failure { kind: error.kind(), text: format!("the journal cannot be written: {error}") }
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}

/// What is told of the disk: how many fsyncs of frames there were, and how long each took.
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
    /// What a replay of the files would give, once the current frame is written.
    image: Image,
    segments: Segments,
    tail: Tail,
    frame: Frame,
    /// Whose records are in the current frame, in the order in which they came.
    waiting: Vec<(Completion, OwnedSemaphorePermit)>,
    urgent: bool,
    measured: Measured,
    hints: Arc<Hints>,
    failure: Arc<OnceLock<Failure>>,
}

impl Writer {
    pub(super) fn new(
        dir: PathBuf,
        limits: Limits,
        replayed: Replayed,
        measured: Measured,
        hints: Arc<Hints>,
        failure: Arc<OnceLock<Failure>>,
    ) -> Self {
        let Replayed { image, segments, tail } = replayed;
        Writer {
            dir,
            limits,
            image,
            segments,
            tail,
            frame: Frame::new(),
            waiting: Vec::new(),
            urgent: false,
            measured,
            hints,
            failure,
        }
    }

    /// Writes what is queued until nobody can queue any more.
    pub(super) fn run(mut self, queue: &Receiver<Write>) {
        let mut rests = false;
        loop {
            let next = if rests {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(LAZY_FLUSH_AFTER)
            };
            // Before the queue is drained: what the hints speak of is in it by now.
            let hints = self.hints.take();
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
            let hint = Record::Committed { group, committed };
            self.frame.push(&hint);
            self.fold(&hint);
        }
    }

    /// Puts records into the current frame. Where they do not fit, they get further ones.
    fn take(&mut self, write: Write) {
        for record in &write.records {
            if !self.frame.is_empty() && self.frame.len() + record.size() > FRAME_BYTES {
                self.flush();
            }
            self.frame.push(record);
            self.fold(record);
        }
        self.urgent |= write.urgent;
        self.waiting.push((write.done, write.room));
    }

    fn fold(&mut self, record: &Record) {
        self.image.apply(record).expect("what is queued was checked");
        self.segments.note(record);
    }

    /// Makes the current frame durable, and tells those who wait for it.
    fn flush(&mut self) {
        let failed = match self.failure.get() {
            Some(failure) => Some(failure.clone()),
            None => self.write_frame().err().map(|error| self.fail(&error)),
        };
        self.frame.clear();
        self.urgent = false;
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
        self.failure.get_or_init(|| Failure::new(error)).clone()
    }

    /// The file ends where its frames do, unless the process crashes.
    fn trim(&mut self) {
        if let Err(error) = self.tail.trim() {
            tracing::debug!(%error, journal = %self.dir.display(), "zeros are left behind the last frame");
        }
    }

    /// Goes on in a new segment. Groups whose entries would keep too many old ones are copied.
    fn begin_segment(&mut self) -> io::Result<()> {
        let copied = self.segments.stragglers(self.limits.segments - 1, &self.image);
        let path = Segment::path(&self.dir, self.tail.sequence);
        self.trim();
        self.tail = segment::create(&path, self.tail.sequence, checkpoint(&self.image, &copied))?;
        self.segments.begin(path);
        for record in checkpoint(&self.image, &copied) {
            self.segments.note(&record);
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

/// What a segment begins with: of every group all but its entries, and of some these, too. They are
/// ordinary records: a replay that comes from older segments finds nothing new in them.
pub(super) fn checkpoint<'a>(
    image: &'a Image,
    copied: &'a BTreeSet<GroupId>,
) -> impl Iterator<Item = Record> + 'a {
    image.groups.iter().flat_map(|(group, log)| {
        let group = *group;
        let vote = log.vote.clone().map(|vote| Record::Vote { group, vote });
        let purge = log.purged.clone().map(|(through, id)| Record::Purge { group, through, id });
        let committed = log.committed.clone().map(|committed| Record::Committed { group, committed });
        let first = log.first_index().filter(|_| copied.contains(&group));
        let clear = first.map(|_| Record::Truncate { group, from: 0 });
        let entries = first.into_iter().flat_map(move |first| {
            let append = move |(index, entry): (u64, &bytes::Bytes)| Record::Append {
                group,
                index,
                entry: entry.clone(),
            };
            (first..).zip(log.entries(0..u64::MAX)).map(append)
        });
        [vote, purge, clear].into_iter().flatten().chain(entries).chain(committed)
    })
}
