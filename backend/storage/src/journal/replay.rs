//! Reading the journal back when it is opened: a torn tail is cut off, and damage before the tail is an error.

use super::{
    JournalError, frame,
    image::{GroupLog, Image, Place},
    position::Position,
    record::Record,
    segment::{BadHeader, FORMAT, HEADER_BYTES, Header, Segment, Segments, Tail},
};
use crate::atomic_file;
use bytes::Bytes;
use ringmaster_common::id::GroupId;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The content of the files.
pub(super) struct Replayed {
    pub(super) image: Image,
    pub(super) segments: Segments,
    pub(super) tail: Tail,
}

/// Reads all segments in order, and makes the journal ready for more.
pub(super) fn replay(dir: &Path) -> Result<Replayed, JournalError> {
    let failed = |source| JournalError::Io { path: dir.to_owned(), source };
    if !dir.is_dir() {
        return Err(JournalError::Missing { path: dir.to_owned() });
    }
    atomic_file::remove_unfinished(dir).map_err(failed)?;
    let mut sequences = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let sequence = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok());
        sequences.extend(sequence);
    }
    sequences.sort_unstable();
    let Some((newest, older)) = sequences.split_last() else {
        return Err(JournalError::Missing { path: dir.to_owned() });
    };
    let mut replay = Replay {
        dir,
        image: Image::default(),
        segments: Segments::default(),
        held: Held::default(),
        expected: None,
    };
    for sequence in older {
        let read = replay.read(*sequence)?;
        if let Some(broken) = read.broken {
            return Err(read.damaged(broken.at, format!("{}, and later segments follow", broken.what)));
        }
    }
    let read = replay.read(*newest)?;
    let Replay { image, segments, held, .. } = replay;
    if let Some(gap) = image.find_gap() {
        return Err(read.damaged(read.end, gap.to_string()));
    }
    if let Some((group, range)) = held.find_missing(&image) {
        let what = format!("entries {range:?} of group {group} are missing, and with them older segments");
        return Err(read.damaged(read.end, what));
    }
    let tail = read.into_tail()?;
    // A rename may not have become durable before the last process ended.
    atomic_file::sync_dir(dir).map_err(failed)?;
    Ok(Replayed { image, segments, tail })
}

struct Replay<'a> {
    dir: &'a Path,
    image: Image,
    segments: Segments,
    held: Held,
    /// The sequence at which the next segment must begin.
    expected: Option<u64>,
}

/// A segment that was read as far as it makes sense.
struct ReadSegment {
    path: PathBuf,
    readable: Arc<File>,
    header: Header,
    /// The sequence behind the last whole frame.
    sequence: u64,
    end: usize,
    checkpoint_end: Option<usize>,
    length: usize,
    broken: Option<Broken>,
}

#[derive(Clone, Copy)]
struct Broken {
    at: usize,
    what: &'static str,
}

/// The entries that the latest checkpoint says are there, except for those that were removed since. Without it, the loss
/// of the oldest segment would not be noticed if it has all entries of a quiet group.
#[derive(Default)]
struct Held(BTreeMap<GroupId, Range<u64>>);

impl Held {
    fn note(&mut self, record: &Record) {
        match record {
            Record::Holds { group, first, next } => drop(self.0.insert(*group, *first..*next)),
            Record::Truncate { group, from } => {
                if let Some(range) = self.0.get_mut(group) {
                    range.end = range.end.min(*from);
                }
            }
            Record::Purge { group, through, .. } => {
                if let Some(range) = self.0.get_mut(group) {
                    range.start = range.start.max(through + 1);
                }
            }
            Record::Drop { group } => drop(self.0.remove(group)),
            Record::Vote { .. }
            | Record::Append { .. }
            | Record::Committed { .. }
            | Record::CheckpointEnd => {}
        }
    }

    fn find_missing(&self, image: &Image) -> Option<(GroupId, Range<u64>)> {
        let is_there = |group: &GroupId, range: &Range<u64>| {
            let log = image.groups.get(group);
            let first = log.and_then(GroupLog::first_index);
            let next = log.and_then(GroupLog::next_index);
            first.is_some_and(|first| first <= range.start) && next.is_some_and(|next| next >= range.end)
        };
        let missing = self.0.iter().find(|&(group, range)| !range.is_empty() && !is_there(group, range));
        missing.map(|(group, range)| (*group, range.clone()))
    }
}

impl Replay<'_> {
    fn read(&mut self, sequence: u64) -> Result<ReadSegment, JournalError> {
        let path = Segment::path(self.dir, sequence);
        let failed = |source| JournalError::Io { path: path.clone(), source };
        let bytes = fs::read(&path).map_err(failed)?;
        let readable = Arc::new(File::open(&path).map_err(failed)?);
        let damaged = |offset: usize, what: String| JournalError::Damaged {
            path: path.clone(),
            offset: offset as u64,
            what,
        };
        let header = Header::decode(&bytes).map_err(|bad| match bad {
            BadHeader::Damaged(what) => damaged(0, what.to_owned()),
            BadHeader::Format(found) => JournalError::Format { path: path.clone(), found, supported: FORMAT },
        })?;
        if header.sequence != sequence || self.expected.is_some_and(|expected| expected != sequence) {
            let expected = self.expected.unwrap_or(header.sequence);
            return Err(damaged(
                0,
                format!("frame {expected} should be first: a segment is missing or renamed"),
            ));
        }
        self.segments.begin(path.clone(), &[]);
        let mut read = ReadSegment {
            path: path.clone(),
            sequence,
            end: HEADER_BYTES,
            checkpoint_end: None,
            length: bytes.len(),
            broken: None,
            header,
            readable,
        };
        while read.end < bytes.len() {
            let payload = match frame::read(&bytes[read.end..], read.header.mark) {
                Ok(payload) => payload,
                Err(what) => {
                    if bytes[read.end..].iter().all(|byte| *byte == 0) {
                        // Nothing was written there yet.
                        break;
                    }
                    if let Some(next) = frame::find(&bytes, read.end + 1, read.header.mark) {
                        return Err(damaged(
                            read.end,
                            format!("{what}, and a whole frame follows at byte {next}"),
                        ));
                    }
                    read.broken = Some(Broken { at: read.end, what });
                    break;
                }
            };
            let end = read.end + frame::HEADER_BYTES + payload.len();
            for record in frame::records(payload) {
                let (record, record_end) =
                    record.map_err(|error| damaged(read.end, format!("a record makes no sense: {error}")))?;
                // An entry is the end of its record.
                let record_end = (read.end + frame::HEADER_BYTES + record_end) as u64;
                let place = |entry: &Bytes| {
                    let offset = record_end - entry.len() as u64;
                    Place::Disk(Position::new(Arc::clone(&read.readable), offset, entry))
                };
                if record == Record::CheckpointEnd {
                    read.checkpoint_end = Some(end);
                }
                self.image.apply(&record, place).map_err(|gap| damaged(read.end, gap.to_string()))?;
                self.segments.note(&record);
                self.held.note(&record);
            }
            read.end = end;
            read.sequence += 1;
        }
        if read.checkpoint_end.is_none() {
            let what = "the checkpoint that it begins with is not whole";
            return Err(damaged(read.end, what.to_owned()));
        }
        self.expected = Some(read.sequence);
        Ok(read)
    }
}

impl ReadSegment {
    fn damaged(&self, offset: usize, what: String) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), offset: offset as u64, what }
    }

    /// Continues behind the last whole frame.
    fn into_tail(self) -> Result<Tail, JournalError> {
        let failed = |source| JournalError::Io { path: self.path.clone(), source };
        let file = File::options().read(true).write(true).open(&self.path).map_err(failed)?;
        if let Some(broken) = self.broken {
            tracing::warn!(
                segment = %self.path.display(),
                offset = broken.at,
                bytes = self.length - broken.at,
                "{}: a write that was cut short by a crash and never confirmed; it is cut off",
                broken.what
            );
        }
        file.set_len(self.end as u64).map_err(failed)?;
        // A process that was killed may have left frames that were written and not yet synced. From
        // now on the node acts on them, so they must not go away.
        file.sync_all().map_err(failed)?;
        Ok(Tail {
            file,
            readable: self.readable,
            mark: self.header.mark,
            sequence: self.sequence,
            end: self.end as u64,
            checkpoint_end: self.checkpoint_end.unwrap_or(self.end) as u64,
            length: self.end as u64,
        })
    }
}
