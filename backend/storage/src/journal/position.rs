//! Positions of entries on disk, and reading the entries back.

use bytes::Bytes;
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// How much is read at once: entries that follow each other are read together.
const SPAN_BYTES: u64 = 1 << 20;

/// The position of an entry on disk. It keeps the file open, so that a segment can be deleted while it is read.
#[derive(Clone, Debug)]
pub(super) struct Position {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) length: u32,
    /// CRC-32 of the entry.
    pub(super) checksum: u32,
}

/// Entries of a log, in order: some in memory, some to be read from disk.
#[derive(Debug, Default)]
pub struct Entries {
    parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) enum Part {
    InMemory(Bytes),
    OnDisk(Position),
}

impl Position {
    pub(super) fn new(file: Arc<File>, offset: u64, entry: &[u8]) -> Position {
        let length = u32::try_from(entry.len()).expect("the size of entries is bounded");
        Position { file, offset, length, checksum: crc32fast::hash(entry) }
    }

    fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }

    fn check(&self, entry: Bytes) -> io::Result<Bytes> {
        if crc32fast::hash(&entry) == self.checksum {
            return Ok(entry);
        }
        let text = format!("the journal is damaged: the entry at byte {} has another checksum", self.offset);
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

impl Part {
    pub(super) fn len(&self) -> usize {
        match self {
            Part::InMemory(entry) => entry.len(),
            Part::OnDisk(position) => position.length as usize,
        }
    }
}

impl Entries {
    pub(super) fn new(parts: Vec<Part>) -> Entries {
        Entries { parts }
    }

    pub fn len(&self) -> usize {
        self.parts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether [`Entries::read`] blocks.
    pub fn are_on_disk(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::OnDisk(_)))
    }

    pub fn read(self) -> io::Result<Vec<Bytes>> {
        let mut entries = Vec::with_capacity(self.parts.len());
        let mut span = Vec::new();
        for part in self.parts {
            match part {
                Part::InMemory(entry) => {
                    read_span(&mut span, &mut entries)?;
                    entries.push(entry);
                }
                Part::OnDisk(position) => {
                    if !continues(&span, &position) {
                        read_span(&mut span, &mut entries)?;
                    }
                    span.push(position);
                }
            }
        }
        read_span(&mut span, &mut entries)?;
        Ok(entries)
    }
}

/// Whether an entry can be read together with those before it.
fn continues(span: &[Position], next: &Position) -> bool {
    let [first, .., last] = span else {
        return span.first().is_none_or(|only| follows(only, only, next));
    };
    follows(first, last, next)
}

fn follows(first: &Position, last: &Position, next: &Position) -> bool {
    Arc::ptr_eq(&first.file, &next.file)
        && next.offset >= last.end()
        && next.end() - first.offset <= SPAN_BYTES
}

/// Reads entries that are close together in one file.
fn read_span(span: &mut Vec<Position>, entries: &mut Vec<Bytes>) -> io::Result<()> {
    let (Some(first), Some(last)) = (span.first(), span.last()) else { return Ok(()) };
    let start = first.offset;
    let mut bytes = vec![0; usize::try_from(last.end() - start).expect("a span is bounded")];
    first.file.read_exact_at(&mut bytes, start)?;
    let bytes = Bytes::from(bytes);
    // One entry that is kept must not keep the others.
    let shared = span.len() == 1;
    for position in span.drain(..) {
        let from = usize::try_from(position.offset - start).expect("a span is bounded");
        let entry = bytes.slice(from..from + position.length as usize);
        entries.push(position.check(if shared { entry } else { Bytes::copy_from_slice(&entry) })?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file)
    }

    #[test]
    fn entries_are_read_in_their_order_wherever_they_are() {
        let bytes: Vec<u8> = (0..3 * SPAN_BYTES).map(|at| (at / 1000) as u8).collect();
        let (one, other) = (file(&bytes), file(&bytes[5..]));
        let at = |file: &Arc<File>, shift: u64, offset: u64, length: u64| {
            let from = (offset + shift) as usize;
            let entry = Bytes::copy_from_slice(&bytes[from..from + length as usize]);
            (Part::OnDisk(Position::new(file.clone(), offset, &entry)), entry)
        };
        let memory = Bytes::from_static(b"memory");
        let parts = vec![
            at(&one, 0, 10, 100),
            at(&one, 0, 150, 7),
            (Part::InMemory(memory.clone()), memory),
            at(&one, 0, 157, 0),
            at(&one, 0, SPAN_BYTES / 2, SPAN_BYTES),
            at(&other, 5, 2 * SPAN_BYTES, 3),
            // Before the last one.
            at(&other, 5, 0, 2),
            at(&other, 5, 2, 2 * SPAN_BYTES),
        ];
        let (parts, expected): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        assert!(Entries::new(parts).read().unwrap() == expected);
    }

    #[test]
    fn damage_and_cuts_are_seen() {
        let position = Position::new(file(b"entries"), 2, b"trie");
        assert_eq!(Entries::new(vec![Part::OnDisk(position)]).read().unwrap(), ["trie"]);
        let flipped = Position::new(file(b"entries"), 2, b"tree");
        let error = Entries::new(vec![Part::OnDisk(flipped)]).read().expect_err("another entry");
        assert!(error.to_string().contains("damaged"), "{error}");
        let cut = Position::new(file(b"entries"), 4, b"ies and more");
        Entries::new(vec![Part::OnDisk(cut)]).read().expect_err("the file ends before it");
    }
}
