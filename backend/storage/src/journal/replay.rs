//! Reading the journal back when it is opened: a torn tail is cut off, and damage before the tail is an error.
//!
//! The newest frames are written again, in place, and synced before the node acts on them. Where the fsync of the last
//! process failed, the kernel may have dropped a frame and keep it in memory as if it were on disk: an fsync alone would
//! succeed, and a power cut would lose it.

use super::{
    JournalError, closed,
    frame::{self, Frame},
    image::{GroupLog, Image, Place},
    position::Position,
    record::{Owner, Record},
    segment::{self, BadHeader, FORMAT, HEADER_BYTES, Header, Segment, Segments, Tail},
};
use crate::atomic_file;
use bytes::Bytes;
use ringmaster_common::id::GroupId;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The content of the files.
pub(super) struct Replayed {
    pub(super) image: Image,
    pub(super) segments: Segments,
    pub(super) tail: Tail,
}

impl Replayed {
    /// Refuses the journal of another node; one that is of none yet becomes the owner's.
    pub(super) fn check_owner(&mut self, path: &Path, owner: Owner) -> Result<(), JournalError> {
        match &self.image.owner {
            Some(held) if *held == owner => Ok(()),
            Some(held) => {
                Err(JournalError::Foreign { path: path.to_owned(), held: held.clone(), asked: owner })
            }
            None => {
                let record = Record::Owner(owner);
                let mut frame = Frame::new();
                frame.push(&record);
                let failed = |source| JournalError::Io { path: path.to_owned(), source };
                self.tail.append(&mut frame, 0).map_err(failed)?;
                let nothing = |_: &Bytes| unreachable!("an owner appends nothing");
                self.image.apply(&record, nothing).expect("an owner fits everywhere");
                Ok(())
            }
        }
    }
}

/// How much of the newest segment is written again, at least, where it has so much: its last frame is.
const REWRITTEN_BYTES: usize = 4 << 20;

/// Reads all segments in order, and makes the journal ready for more.
pub(super) fn replay(dir: &Path) -> Result<Replayed, JournalError> {
    let failed = |source| JournalError::Io { path: dir.to_owned(), source };
    if dir.is_dir() {
        atomic_file::remove_unfinished(dir).map_err(failed)?;
    }
    let Read { image, segments, older, newest } = read_all(dir)?;
    for read in older {
        read.seal()?;
    }
    let tail = newest.into_tail()?;
    // A rename may not have become durable before the last process ended.
    atomic_file::sync_dir(dir).map_err(failed)?;
    Ok(Replayed { image, segments, tail })
}

/// Whether a node has used the journal, or may have used it. Changes nothing on disk.
pub(super) fn is_used(dir: &Path) -> bool {
    match read_all(dir) {
        Ok(read) => !read.image.is_fresh(),
        Err(JournalError::Missing { .. }) => false,
        Err(_) => true,
    }
}

/// The logs of all groups. Changes nothing on disk.
pub(super) fn read(dir: &Path) -> Result<Image, JournalError> {
    Ok(read_all(dir)?.image)
}

/// The content of all segments.
struct Read {
    image: Image,
    segments: Segments,
    older: Vec<ReadSegment>,
    newest: ReadSegment,
}

fn read_all(dir: &Path) -> Result<Read, JournalError> {
    let failed = |source| JournalError::Io { path: dir.to_owned(), source };
    if !dir.is_dir() {
        return Err(JournalError::Missing { path: dir.to_owned() });
    }
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
    let nexts = sequences.iter().skip(1);
    let older = older.iter().zip(nexts).map(|(sequence, next)| {
        let read = replay.read(*sequence)?;
        match read.broken {
            // All frames before the next segment are there: the seal alone was cut short.
            Some(_) if read.sequence == *next => Ok(read),
            Some(broken) => {
                Err(read.damaged(broken.at, format!("{}, and later segments follow", broken.what)))
            }
            None => Ok(read),
        }
    });
    let older = older.collect::<Result<Vec<_>, JournalError>>()?;
    let newest = replay.read(*newest)?;
    let Replay { image, segments, held, .. } = replay;
    if newest.sealed {
        let what = "a later segment was begun, and is missing";
        return Err(newest.damaged(newest.end, what.to_owned()));
    }
    if let Some(frames) = closed::read(dir).map_err(failed)?.filter(|frames| newest.sequence < *frames) {
        let what = format!(
            "the journal had {frames} frames when the node was stopped, and has {} now",
            newest.sequence
        );
        return Err(newest.damaged(newest.end, what));
    }
    if let Some(gap) = image.find_gap() {
        return Err(newest.damaged(newest.end, gap.to_string()));
    }
    if let Some((group, range)) = held.find_missing(&image) {
        let what = format!("entries {range:?} of group {group} are missing, and with them older segments");
        return Err(newest.damaged(newest.end, what));
    }
    Ok(Read { image, segments, older, newest })
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
    /// Where the last whole frame begins.
    last_frame: usize,
    checkpoint_end: Option<usize>,
    /// Its end says that another segment follows.
    sealed: bool,
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
            | Record::Sealed
            | Record::Owner(_)
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
            last_frame: HEADER_BYTES,
            checkpoint_end: None,
            sealed: false,
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
                            format!("{what}, and a later frame begins at byte {next}"),
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
                match record {
                    Record::CheckpointEnd => read.checkpoint_end = Some(end),
                    Record::Sealed => read.sealed = true,
                    _ if read.sealed => {
                        return Err(damaged(read.end, "there is a frame behind the seal".to_owned()));
                    }
                    _ => {}
                }
                self.image.apply(&record, place).map_err(|gap| damaged(read.end, gap.to_string()))?;
                self.segments.note(&record);
                self.held.note(&record);
            }
            if !read.sealed {
                read.last_frame = read.end;
                read.end = end;
                read.sequence += 1;
                continue;
            }
            read.end = end;
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

    fn open(&self) -> Result<File, JournalError> {
        let failed = |source| JournalError::Io { path: self.path.clone(), source };
        File::options().read(true).write(true).open(&self.path).map_err(failed)
    }

    /// Writes the seal, unless it is there: of a segment that another one follows.
    fn seal(self) -> Result<(), JournalError> {
        if self.sealed {
            return Ok(());
        }
        let file = self.open()?;
        let sealed = file
            .set_len(self.end as u64)
            .and_then(|()| segment::write_seal(&file, self.header.mark, self.end as u64));
        sealed.map(drop).map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }

    /// Continues behind the last whole frame.
    fn into_tail(self) -> Result<Tail, JournalError> {
        let failed = |source| JournalError::Io { path: self.path.clone(), source };
        let file = self.open()?;
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
        self.rewrite(&file).map_err(failed)?;
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

    /// Writes the newest frames again, in their place, so that the next fsync writes them to the disk. A frame is written
    /// when the one before it is durable, so the last one is all that can be missing there.
    fn rewrite(&self, file: &File) -> io::Result<()> {
        let start = self.last_frame.min(self.end.saturating_sub(REWRITTEN_BYTES));
        let mut bytes = vec![0; self.end - start];
        file.read_exact_at(&mut bytes, start as u64)?;
        file.write_all_at(&bytes, start as u64)
    }
}
