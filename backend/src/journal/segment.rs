//! Segments: the files of the journal, and how they are replayed.

use super::{
    Index, JournalError,
    record::{MAGIC, Record},
    writer::Heads,
};
use ringmaster_common::id::GroupId;
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
};

/// The format of segments that this version writes.
pub(super) const FORMAT: u16 = 1;
const FILE_MAGIC: [u8; 6] = *b"RMjrnl";
pub(super) const FILE_HEADER_BYTES: usize = 8;

/// A file of the journal.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// The highest entry of each group in it. When all of these are purged, it can go.
    pub(super) highest: BTreeMap<GroupId, u64>,
}

impl Segment {
    pub(super) fn new(folder: &Path, number: u64) -> Segment {
        let path = folder.join(format!("{number:016}.log"));
        Segment { number, path, bytes: 0, highest: BTreeMap::new() }
    }

    pub(super) fn note(&mut self, record: &Record) {
        if let Record::Append { group, index, .. } = record {
            let highest = self.highest.entry(*group).or_default();
            *highest = (*highest).max(*index);
        }
    }

    /// Whether nothing in it is needed any more.
    pub(super) fn is_spent(&self, purged: impl Fn(GroupId) -> Option<u64>) -> bool {
        self.highest.iter().all(|(group, highest)| purged(*group).is_some_and(|purged| purged >= *highest))
    }
}

pub(super) fn file_header() -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..6].copy_from_slice(&FILE_MAGIC);
    header[6..].copy_from_slice(&FORMAT.to_le_bytes());
    header
}

/// Reads all segments in order into `index`.
pub(super) fn replay(
    folder: &Path,
    index: &mut Index,
    heads: &mut Heads,
) -> Result<Vec<Segment>, JournalError> {
    let failed = |error| JournalError::Io { path: folder.to_owned(), error };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|name| name.parse().ok());
        numbers.extend::<Option<u64>>(number);
    }
    numbers.sort_unstable();
    if let Some(gap) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        return Err(JournalError::Damaged {
            path: Segment::new(folder, gap[0] + 1).path,
            offset: 0,
            what: "the segment is missing".to_owned(),
        });
    }
    let last = numbers.last().copied();
    let mut segments = Vec::new();
    for number in numbers {
        let mut segment = Segment::new(folder, number);
        if replay_one(&mut segment, Some(number) == last, index, heads)? {
            segments.push(segment);
        }
    }
    Ok(segments)
}

/// Reads one segment. Tells whether it goes on existing: one whose creation was cut short does not.
fn replay_one(
    segment: &mut Segment,
    is_last: bool,
    index: &mut Index,
    heads: &mut Heads,
) -> Result<bool, JournalError> {
    let path = segment.path.clone();
    let failed = |error| JournalError::Io { path: path.clone(), error };
    let bytes = fs::read(&path).map_err(failed)?;
    let damaged = |offset: usize, what: &str| JournalError::Damaged {
        path: path.clone(),
        offset: offset as u64,
        what: what.to_owned(),
    };
    match bytes.get(..FILE_HEADER_BYTES) {
        Some(header) if header[..6] == FILE_MAGIC => {
            let found = u16::from_le_bytes([header[6], header[7]]);
            if found != FORMAT {
                return Err(JournalError::Format { path: path.clone(), found });
            }
        }
        _ if is_last && next_record(&bytes, 0).is_none() => {
            tracing::warn!(path = %path.display(), "a segment was cut short as it was created; removed");
            fs::remove_file(&path).map_err(failed)?;
            return Ok(false);
        }
        _ => return Err(damaged(0, "the file header is not one")),
    }
    let mut offset = FILE_HEADER_BYTES;
    while offset < bytes.len() {
        match Record::read_from(&bytes[offset..]) {
            Ok((record, length)) => {
                record.apply_to(index);
                segment.note(&record);
                heads.entry(record.group()).or_default().note(&record);
                offset += length;
            }
            Err(what) => {
                if let Some(next) = next_record(&bytes, offset + 1) {
                    return Err(damaged(
                        offset,
                        &format!("{what}, and a sound record follows at byte {next}"),
                    ));
                }
                if !is_last {
                    return Err(damaged(offset, &format!("{what}, and a later segment follows")));
                }
                tracing::warn!(
                    path = %path.display(),
                    offset,
                    bytes = bytes.len() - offset,
                    "the tail is torn, as a crash leaves it; cut off"
                );
                cut_off(&path, offset as u64).map_err(failed)?;
                break;
            }
        }
    }
    segment.bytes = offset as u64;
    Ok(true)
}

/// Where the next sound record begins at or behind `from`.
fn next_record(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len().saturating_sub(MAGIC.len()))
        .filter(|at| bytes[*at..].starts_with(&MAGIC))
        .find(|at| Record::read_from(&bytes[*at..]).is_ok())
}

fn cut_off(path: &Path, length: u64) -> std::io::Result<()> {
    let file: File = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}
