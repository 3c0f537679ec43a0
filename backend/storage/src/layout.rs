//! The names in a data directory, and new data that has not been moved to its place yet (see `replacement`).

use crate::atomic_file;
use std::{fs, io, path::Path};

/// The file that is locked while the directory is in use.
pub(crate) const LOCK: &str = "lock";
/// The file that says whose the directory is.
pub(crate) const IDENTITY: &str = "identity.json";
pub(crate) const JOURNAL: &str = "journal";
/// The directory of the snapshots, and what their names end with.
pub const SNAPSHOTS: &str = "snapshots";
pub const SNAPSHOT_SUFFIX: &str = ".snap";
/// New data that is not whole yet, and new data that counts.
pub(crate) const UNFINISHED_REPLACEMENT: &str = "replacement.new";
pub(crate) const REPLACEMENT: &str = "replacement";
/// What is replaced, besides the identity.
pub(crate) const PARTS: [&str; 2] = [JOURNAL, SNAPSHOTS];

/// Moves new data that counts to its place, and removes what does not.
pub(crate) fn finish(dir: &Path) -> io::Result<()> {
    remove_dir(&dir.join(UNFINISHED_REPLACEMENT))?;
    let whole = dir.join(REPLACEMENT);
    if !whole.is_dir() {
        return Ok(());
    }
    for part in PARTS {
        if whole.join(part).is_dir() {
            remove_dir(&dir.join(part))?;
            fs::rename(whole.join(part), dir.join(part))?;
            atomic_file::sync_dir(dir)?;
        }
    }
    // Last: it says of which incarnation the rest is.
    match fs::rename(whole.join(IDENTITY), dir.join(IDENTITY)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => atomic_file::sync_dir(dir)?,
    }
    remove_dir(&whole)?;
    atomic_file::sync_dir(dir)
}

pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
