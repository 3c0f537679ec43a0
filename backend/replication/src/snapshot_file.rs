//! The body of a snapshot, in a file: openraft passes it on, and it is never held in memory as a whole.

use bytes::Bytes;
use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

/// How much is read from the file at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Cheap to clone. It keeps the file open, so that the file can be deleted while it is read.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    file: Arc<File>,
    /// Where the body begins.
    start: u64,
    bytes: u64,
}

impl SnapshotFile {
    pub fn new(file: impl Into<Arc<File>>, start: u64, bytes: u64) -> SnapshotFile {
        SnapshotFile { file: file.into(), start, bytes }
    }

    /// The length of the body.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the body from its beginning. It blocks.
    pub fn reader(&self) -> impl Read + use<> {
        BufReader::with_capacity(BUFFER_BYTES, Reader { body: self.clone(), at: 0 })
    }

    /// A part of the body, shorter where the body ends. It blocks.
    pub fn piece(&self, offset: u64, max_bytes: usize) -> io::Result<Bytes> {
        let length = self.bytes.saturating_sub(offset).min(max_bytes as u64);
        let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut piece, self.start + offset)?;
        Ok(piece.into())
    }
}

struct Reader {
    body: SnapshotFile,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.body.bytes - self.at;
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.body.file.read_at(&mut buffer[..wanted], self.body.start + self.at)?;
        if read == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file of a snapshot is cut off"));
        }
        self.at += read as u64;
        Ok(read)
    }
}
