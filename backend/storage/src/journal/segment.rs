//! Segments: the files of the journal.
//!
//! ```text
//! offset  size  field
//!      0     8  magic
//!      8     4  format version
//!     12     8  sequence: how many frames there were before, in all segments
//!     20     8  mark of this segment's frames
//!     28     4  CRC-32 of the above
//!     32     …  frames
//!      …     …  zeros, while frames are still added
//! ```
//!
//! The first frames are the checkpoint: the records that must survive the deletion of older segments. A segment
//! gets its name when its checkpoint is durable, so a checkpoint is never torn.
//!
//! The seal is a frame that the sequence does not count: it is written when the next segment is durable. So a newest
//! segment that has one is not the newest: another one is missing. A seal that is torn or was never written is written
//! when the journal is opened: the sequence of the next segment proves that all frames before it are there.
//!
//! Frames are written over zeros. A frame that made the file longer would have to wait for the file
//! system's own journal at each fsync, and with it for all others that write to that disk. So the
//! file grows ahead of the frames, by [`AHEAD_BYTES`] at a time.

use super::{frame::Frame, image::Image, position::Position, record::Record};
use crate::atomic_file;
use ringmaster_common::id::GroupId;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The format of segments that this version writes. Segments of the formats before it are read, and written on, as if
/// they were of this one: the first had no zeros behind its frames, the second no groups that
/// were dropped, and no list of the entries that older segments hold, the third no owner and no seals.
pub(super) const FORMAT: u32 = 4;
pub(super) const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"RMjournl";

/// How far the file is ahead of its frames, at the most.
const AHEAD_BYTES: u64 = 1 << 20;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// How large a frame of a checkpoint grows, roughly.
const CHECKPOINT_FRAME_BYTES: usize = 1 << 20;

/// The first bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sequence: u64,
    pub(super) mark: u64,
}

/// Why bytes are no header.
#[derive(Debug)]
pub(super) enum BadHeader {
    Damaged(&'static str),
    Format(u32),
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.mark.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Header, BadHeader> {
        let header = bytes.get(..HEADER_BYTES).ok_or(BadHeader::Damaged("the file's header is cut off"))?;
        let four =
            |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes are four"));
        let eight =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes are eight"));
        if header[..8] != MAGIC {
            return Err(BadHeader::Damaged("the file is no segment of a journal"));
        }
        // First the format: another one may have another header.
        if !(1..=FORMAT).contains(&four(8)) {
            return Err(BadHeader::Format(four(8)));
        }
        if crc32fast::hash(&header[..28]) != four(28) {
            return Err(BadHeader::Damaged("the checksum of the file's header differs"));
        }
        Ok(Header { sequence: eight(12), mark: eight(20) })
    }
}

/// A file of the journal.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// For each group, no entry above this one is in the file.
    highest: BTreeMap<GroupId, u64>,
}

/// The segments, oldest first.
#[derive(Debug, Default)]
pub(super) struct Segments {
    pub(super) list: Vec<Segment>,
}

impl Segment {
    pub(super) fn path(dir: &Path, sequence: u64) -> PathBuf {
        dir.join(format!("{sequence:020}.log"))
    }

    /// The groups that have entries here which are not purged.
    fn live_groups<'a>(&'a self, image: &'a Image) -> impl Iterator<Item = GroupId> + 'a {
        let first = |group| image.groups.get(group).and_then(|log| log.first_index());
        self.highest.iter().filter_map(move |(group, highest)| (first(group)? <= *highest).then_some(*group))
    }
}

impl Segments {
    /// A new segment, with the entries in its checkpoint.
    pub(super) fn begin(&mut self, path: PathBuf, entries: &[(GroupId, u64, Position)]) {
        let highest = entries.iter().map(|(group, index, _)| (*group, *index)).collect();
        // Older segments are not needed for what was copied.
        for segment in &mut self.list {
            for (group, ..) in entries {
                segment.highest.remove(group);
            }
        }
        self.list.push(Segment { path, highest });
    }

    /// Updates what the segments hold by a record of the newest one.
    pub(super) fn note(&mut self, record: &Record) {
        match record {
            Record::Append { group, index, .. } => {
                let newest = self.list.last_mut().expect("a record is in a segment");
                newest.highest.insert(*group, *index);
            }
            Record::Truncate { group, from } => {
                for segment in &mut self.list {
                    match (segment.highest.get_mut(group), from.checked_sub(1)) {
                        (Some(highest), Some(last)) => *highest = last.min(*highest),
                        (_, None) => drop(segment.highest.remove(group)),
                        (None, _) => {}
                    }
                }
            }
            Record::Drop { group } => {
                for segment in &mut self.list {
                    segment.highest.remove(group);
                }
            }
            Record::Vote { .. }
            | Record::Purge { .. }
            | Record::Committed { .. }
            | Record::Holds { .. }
            | Record::Sealed
            | Record::Owner(_)
            | Record::CheckpointEnd => {}
        }
    }

    /// Whether nothing in the oldest segment is needed any more. The newest is always needed.
    pub(super) fn oldest_is_spent(&self, image: &Image) -> bool {
        matches!(self.list.as_slice(), [oldest, _, ..] if oldest.live_groups(image).next().is_none())
    }

    /// The groups that have live entries in any but the newest `keep` segments.
    pub(super) fn stragglers(&self, keep: usize, image: &Image) -> BTreeSet<GroupId> {
        let old = self.list.len().saturating_sub(keep);
        self.list[..old].iter().flat_map(|segment| segment.live_groups(image)).collect()
    }
}

/// The end of the newest segment, where frames are added.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) file: File,
    /// The same file, to read from.
    pub(super) readable: Arc<File>,
    pub(super) mark: u64,
    /// The sequence of the next frame.
    pub(super) sequence: u64,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// Where the checkpoint ends.
    pub(super) checkpoint_end: u64,
    /// Where the file ends: there are zeros up to here.
    pub(super) length: u64,
}

impl Tail {
    /// Adds a frame, and returns when it is durable. The file does not grow ahead of its frames by more
    /// than `ahead`.
    pub(super) fn append(&mut self, frame: &mut Frame, ahead: u64) -> io::Result<()> {
        self.file.write_all_at(frame.seal(self.mark), self.end)?;
        let end = self.end + frame.len() as u64;
        if end > self.length {
            self.grow(end, ahead.min(AHEAD_BYTES))?;
        }
        self.file.sync_data()?;
        self.sequence += 1;
        self.end = end;
        Ok(())
    }

    /// Writes zeros behind `end`. They become durable with the frame before them.
    fn grow(&mut self, end: u64, ahead: u64) -> io::Result<()> {
        self.length = end;
        while self.length < end + ahead {
            let zeros = &ZEROS[..ZEROS.len().min((end + ahead - self.length) as usize)];
            self.file.write_all_at(zeros, self.length)?;
            self.length += zeros.len() as u64;
        }
        Ok(())
    }

    /// Adds the seal: the next segment is durable. No frame is added behind it.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        self.end = write_seal(&self.file, self.mark, self.end)?;
        Ok(())
    }

    /// Cuts off the zeros behind the last frame. A crash may undo it.
    pub(super) fn trim(&mut self) -> io::Result<()> {
        self.length = self.end;
        self.file.set_len(self.end)
    }

    /// How much was written behind the checkpoint.
    pub(super) fn written(&self) -> u64 {
        self.end - self.checkpoint_end
    }
}

/// Writes the seal of a segment whose frames end at `end`, and returns where it ends itself.
pub(super) fn write_seal(file: &File, mark: u64, end: u64) -> io::Result<u64> {
    let mut frame = Frame::new();
    frame.push(&Record::Sealed);
    file.write_all_at(frame.seal(mark), end)?;
    file.sync_data()?;
    Ok(end + frame.len() as u64)
}

/// A segment that was created, and where in it each entry of its checkpoint is.
pub(super) struct Created {
    pub(super) tail: Tail,
    pub(super) entries: Vec<(GroupId, u64, Position)>,
}

/// Creates a segment. It is durable, with its checkpoint, when this returns.
pub(super) fn create(
    path: &Path,
    sequence: u64,
    checkpoint: impl Iterator<Item = io::Result<Record>>,
) -> io::Result<Created> {
    let header = Header { sequence, mark: rand::random() };
    let mut end = HEADER_BYTES as u64;
    let mut frames = 0;
    let mut appended = Vec::new();
    let file = atomic_file::create(path, |file| {
        file.write_all(&header.encode())?;
        let mut frame = Frame::new();
        let mut write = |frame: &mut Frame, end: &mut u64| {
            file.write_all(frame.seal(header.mark))?;
            *end += frame.len() as u64;
            frames += 1;
            frame.clear();
            io::Result::Ok(())
        };
        for record in checkpoint {
            let record = record?;
            frame.push(&record);
            if let Record::Append { group, index, entry } = record {
                let offset = end + (frame.len() - entry.len()) as u64;
                appended.push((group, index, offset, entry.len() as u32, crc32fast::hash(&entry)));
            }
            if frame.len() >= CHECKPOINT_FRAME_BYTES {
                write(&mut frame, &mut end)?;
            }
        }
        frame.push(&Record::CheckpointEnd);
        write(&mut frame, &mut end)
    })?;
    let readable = Arc::new(File::open(path)?);
    let entries = appended.into_iter().map(|(group, index, offset, length, checksum)| {
        (group, index, Position { file: Arc::clone(&readable), offset, length, checksum })
    });
    let entries = entries.collect();
    let sequence = sequence + frames;
    let tail = Tail { file, readable, mark: header.mark, sequence, end, checkpoint_end: end, length: end };
    Ok(Created { tail, entries })
}
