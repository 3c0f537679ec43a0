//! Files that are there whole or not at all, whatever happens while they are written.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::Path,
};

/// The extension of a file that is being written. One that is found at start was never finished.
const UNFINISHED: &str = "tmp";

/// Writes a file under another name, makes it durable, and renames it. The name is durable, too,
/// when this returns. A file that could not be finished is removed: it would only take room, perhaps on a disk that is
/// full.
pub fn create(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let unfinished = path.with_extension(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    let written =
        write(&mut file).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = written {
        // The first error is the one that counts.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    sync_dir(path.parent().expect("a file is in a directory"))?;
    Ok(file)
}

/// Creates a directory, durably, where it is missing. Its parent must exist.
pub fn create_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => match path.parent() {
            Some(parent) => sync_dir(parent),
            None => Ok(()),
        },
    }
}

/// Removes what was left unfinished in a directory by an earlier process.
pub fn remove_unfinished(dir: &Path) -> io::Result<()> {
    remove_unfinished_of(dir, "")
}

/// The same, of the files whose names begin with `prefix`: the others may be written at this moment.
pub fn remove_unfinished_of(dir: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_one = path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(prefix));
        if is_one && path.extension() == Some(OsStr::new(UNFINISHED)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    // The parent of a bare name is the empty path.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}
