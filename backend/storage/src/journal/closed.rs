//! How many frames the journal had when it was last closed in order.
//!
//! A journal never loses frames, so it has as many for ever: where it has fewer, its end was cut off or damaged while the
//! node was stopped, which would look like a write that a crash cut short. After a crash this says less than the
//! journal has, and does no harm.
//!
//! ```text
//! offset  size  field
//!      0     8  frames
//!      8     4  CRC-32 of the above
//! ```

use crate::atomic_file;
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

pub(super) const FILE: &str = "closed";

pub(super) fn write(dir: &Path, frames: u64) -> io::Result<()> {
    let frames = frames.to_le_bytes();
    let crc = crc32fast::hash(&frames).to_le_bytes();
    atomic_file::create(&dir.join(FILE), |file| file.write_all(&[&frames[..], &crc].concat())).map(drop)
}

/// None where it was never closed. A file that is damaged says nothing.
pub(super) fn read(dir: &Path) -> io::Result<Option<u64>> {
    let bytes = match fs::read(dir.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let parts = bytes.split_first_chunk::<8>();
    let whole = parts.filter(|(frames, crc)| crc32fast::hash(*frames).to_le_bytes() == **crc);
    if whole.is_none() {
        tracing::warn!(dir = %dir.display(), "the file {FILE:?} is damaged; the end of the journal is not checked");
    }
    Ok(whole.map(|(frames, _)| u64::from_le_bytes(*frames)))
}
