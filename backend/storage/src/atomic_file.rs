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
/// when this returns.
pub fn create(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let unfinished = path.with_extension(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    let written =
        write(&mut file).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = written {
        // On a full disk, what is there of it only takes room.
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
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new(UNFINISHED)) {
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
