//! The one thread that writes.

use super::{
    record::Record,
    segment::{FILE_HEADER_BYTES, Segment, file_header},
    sync_dir,
};
use ringmaster_common::id::GroupId;
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

/// How many bytes go into one write, roughly.
const WRITE_BYTES: usize = 4 << 20;

pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Records that become durable together.
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    /// Whether somebody waits for the disk.
    pub(super) sync: bool,
    pub(super) done: Done,
}

pub(super) type Heads = BTreeMap<GroupId, Head>;

/// The latest record of each kind that there is one of for a group.
#[derive(Debug, Default)]
pub(super) struct Head {
    vote: Option<Record>,
    purge: Option<Record>,
    committed: Option<Record>,
}

impl Head {
    pub(super) fn note(&mut self, record: &Record) {
        let slot = match record {
            Record::Vote { .. } => &mut self.vote,
            Record::Purge { .. } => &mut self.purge,
            Record::Committed { .. } => &mut self.committed,
            Record::Append { .. } | Record::TruncateAfter { .. } => return,
        };
        *slot = Some(record.clone());
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        [&self.vote, &self.purge, &self.committed].into_iter().flatten()
    }

    fn purged(&self) -> Option<u64> {
        match self.purge {
            Some(Record::Purge { index, .. }) => Some(index),
            _ => None,
        }
    }
}

pub(super) struct Writer {
    folder: PathBuf,
    /// Oldest first; the last one is written to.
    segments: Vec<Segment>,
    file: File,
    segment_bytes: u64,
    /// Vote, purge point and commit hint of each group, as far as they are written.
    heads: Heads,
    syncs: Arc<AtomicU64>,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn open(
        folder: PathBuf,
        mut segments: Vec<Segment>,
        segment_bytes: u64,
        heads: Heads,
        syncs: Arc<AtomicU64>,
    ) -> io::Result<Writer> {
        let file = match segments.last() {
            Some(last) => OpenOptions::new().append(true).open(&last.path)?,
            None => {
                let (segment, file) = create(&folder, 1, &[])?;
                segments.push(segment);
                file
            }
        };
        Ok(Writer { folder, segments, file, segment_bytes, heads, syncs, buffer: Vec::new() })
    }

    pub(super) fn run(mut self, mut batches: mpsc::Receiver<Batch>) {
        while let Some(first) = batches.blocking_recv() {
            let mut waiting = vec![first];
            let mut size = 0;
            while size < WRITE_BYTES
                && let Ok(next) = batches.try_recv()
            {
                size += next.records.iter().map(Record::size_hint).sum::<usize>();
                waiting.push(next);
            }
            if let Err(error) = self.write(&waiting) {
                tracing::error!(%error, "the journal cannot be written; nothing is confirmed any more");
                fail(waiting, &error);
                // Whoever comes now is told the same.
                while let Some(late) = batches.blocking_recv() {
                    fail(vec![late], &error);
                }
                return;
            }
            for batch in waiting {
                (batch.done)(Ok(()));
            }
            self.delete_spent();
        }
    }

    fn write(&mut self, batches: &[Batch]) -> io::Result<()> {
        self.buffer.clear();
        for record in batches.iter().flat_map(|batch| &batch.records) {
            record.write_to(&mut self.buffer);
        }
        if self.current().bytes + self.buffer.len() as u64 > self.segment_bytes
            && self.current().bytes > FILE_HEADER_BYTES as u64
        {
            self.rotate()?;
        }
        for record in batches.iter().flat_map(|batch| &batch.records) {
            self.current().note(record);
            self.heads.entry(record.group()).or_default().note(record);
        }
        self.file.write_all(&self.buffer)?;
        let written = self.buffer.len() as u64;
        self.current().bytes += written;
        if batches.iter().any(|batch| batch.sync) {
            self.file.sync_data()?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn current(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("there is always one segment")
    }

    /// Begins the next segment, with what must survive the deletion of older ones.
    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let checkpoint: Vec<_> = self.heads.values().flat_map(Head::records).cloned().collect();
        let number = self.current().number + 1;
        let (segment, file) = create(&self.folder, number, &checkpoint)?;
        self.segments.push(segment);
        self.file = file;
        Ok(())
    }

    fn delete_spent(&mut self) {
        while let [oldest, _, ..] = self.segments.as_slice()
            && oldest.is_spent(|group| self.heads.get(&group).and_then(Head::purged))
        {
            let oldest = self.segments.remove(0);
            if let Err(error) = fs::remove_file(&oldest.path).and_then(|()| sync_dir(&self.folder)) {
                // It is in the way of nothing; the next start sees it again.
                tracing::warn!(path = %oldest.path.display(), %error, "a spent segment could not be removed");
                return;
            }
        }
    }
}

/// Creates a segment, durable with its first records.
fn create(folder: &Path, number: u64, records: &[Record]) -> io::Result<(Segment, File)> {
    let mut segment = Segment::new(folder, number);
    let mut bytes = file_header().to_vec();
    for record in records {
        record.write_to(&mut bytes);
    }
    let mut file = OpenOptions::new().create_new(true).append(true).open(&segment.path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    sync_dir(folder)?;
    segment.bytes = bytes.len() as u64;
    Ok((segment, file))
}

fn fail(batches: Vec<Batch>, error: &io::Error) {
    for batch in batches {
        (batch.done)(Err(io::Error::new(error.kind(), error.to_string())));
    }
}
