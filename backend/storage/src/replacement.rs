//! The data of a directory, replaced as a whole: identity, journal and snapshots.
//!
//! The new data is written into a directory beside the old data. One rename makes it count: before it, the directory has
//! the old data; after it, the new. The moves that follow are repeated when the directory is opened next, so a crash
//! leaves nothing in between.
//!
//! A copy of the old data can be kept first ([`copy`]).

use crate::{
    atomic_file,
    data_dir::{self, DataDir, Identity},
    layout::{LOCK, REPLACEMENT, UNFINISHED_REPLACEMENT, finish, remove_dir},
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// The extension of a copy that is not whole yet.
const PARTIAL: &str = "partial";

/// New data for a directory, which counts once it is committed.
#[derive(Debug)]
pub struct Replacement<'a> {
    dir: &'a DataDir,
    path: PathBuf,
}

impl<'a> Replacement<'a> {
    pub fn begin(dir: &'a DataDir) -> io::Result<Replacement<'a>> {
        let path = dir.path().join(UNFINISHED_REPLACEMENT);
        remove_dir(&path)?;
        atomic_file::create_dir(&path)?;
        Ok(Replacement { dir, path })
    }

    /// Where the new journal and snapshots are written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From here on, the directory has the new data.
    pub fn commit(self, identity: &Identity) -> io::Result<()> {
        data_dir::write_identity(&self.path, identity)?;
        sync(&self.path)?;
        fs::rename(&self.path, self.dir.path().join(REPLACEMENT))?;
        atomic_file::sync_dir(self.dir.path())?;
        finish(self.dir.path())
    }
}

/// How many bytes a copy of the directory takes.
pub fn bytes(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        sum += match entry.file_type()?.is_dir() {
            true => bytes(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(sum)
}

/// How many bytes this process may write to the file system of `dir`.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let found = nix::sys::statvfs::statvfs(dir)?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}

/// Copies all of a directory to `to`, which must not exist. The copy has that name once it is whole and on disk.
pub fn copy(dir: &DataDir, to: &Path) -> io::Result<()> {
    let partial = to.with_added_extension(PARTIAL);
    remove_dir(&partial)?;
    let written = copy_dir(dir.path(), &partial).and_then(|()| sync(&partial));
    let written = written.and_then(|()| fs::rename(&partial, to));
    if let Err(error) = written {
        // The first error is the one that counts.
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    atomic_file::sync_dir(to.parent().unwrap_or(Path::new("")))
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_dir(&path, &to)?;
        } else if path.file_name() != Some(OsStr::new(LOCK)) {
            fs::copy(&path, &to)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

/// Makes a directory durable, with all that is in it.
fn sync(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    atomic_file::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{IDENTITY, PARTS};
    use ringmaster_common::id::{Incarnation, NodeId};

    fn identity(incarnation: u64) -> Identity {
        Identity {
            cluster_id: "c".to_owned(),
            node_id: NodeId(1),
            name: "amber-fox".to_owned(),
            incarnation: Incarnation(incarnation),
            addresses: data_dir::Addresses {
                api_addr: "127.0.0.1:7701".parse().unwrap(),
                peer_addr: "127.0.0.1:7801".parse().unwrap(),
                public_url: "http://127.0.0.1:7701".to_owned(),
            },
        }
    }

    /// A directory with these files of `incarnation`, and other ones that stay.
    fn fill(dir: &Path, incarnation: u64) {
        for part in PARTS {
            fs::create_dir_all(dir.join(part)).unwrap();
            for file in 0..2 {
                let name = format!("{incarnation}-{file}");
                fs::write(dir.join(part).join(name), format!("{part} {incarnation}")).unwrap();
            }
        }
    }

    fn old(path: &Path) -> DataDir {
        let dir = DataDir::open(path).unwrap();
        fill(path, 1);
        dir.write_identity(&identity(1)).unwrap();
        fs::write(path.join("routing-table.json"), "kept").unwrap();
        dir
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The incarnation whose data is there, all of it.
    fn incarnation(path: &Path) -> u64 {
        let dir = DataDir::open(path).unwrap();
        let found = dir.identity().unwrap().expect("an identity").incarnation.0;
        assert_eq!(names(path), ["identity.json", "journal", "lock", "routing-table.json", "snapshots"]);
        for part in PARTS {
            assert_eq!(names(&path.join(part)), [format!("{found}-0"), format!("{found}-1")]);
        }
        found
    }

    #[test]
    fn new_data_counts_from_its_commit_on() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let dir = old(&path);
        let begun = Replacement::begin(&dir).unwrap();
        fill(begun.path(), 2);
        drop(begun);
        drop(dir);
        assert_eq!(incarnation(&path), 1, "it was not committed");

        let dir = DataDir::open(&path).unwrap();
        let begun = Replacement::begin(&dir).unwrap();
        fill(begun.path(), 2);
        begun.commit(&identity(2)).unwrap();
        drop(dir);
        assert_eq!(incarnation(&path), 2);
    }

    /// After the rename, a process may have died at any of the moves.
    #[test]
    fn moves_that_a_crash_broke_off_are_finished() {
        for moves in 0..=6 {
            let temp = tempfile::tempdir().unwrap();
            let path = temp.path().join("data");
            drop(old(&path));
            let whole = path.join(REPLACEMENT);
            fill(&whole, 2);
            data_dir::write_identity(&whole, &identity(2)).unwrap();
            let steps: [&dyn Fn(); 6] = [
                &|| fs::remove_file(path.join("journal/1-0")).unwrap(),
                &|| fs::remove_dir_all(path.join("journal")).unwrap(),
                &|| fs::rename(whole.join("journal"), path.join("journal")).unwrap(),
                &|| fs::remove_dir_all(path.join("snapshots")).unwrap(),
                &|| fs::rename(whole.join("snapshots"), path.join("snapshots")).unwrap(),
                &|| fs::rename(whole.join(IDENTITY), path.join(IDENTITY)).unwrap(),
            ];
            steps.iter().take(moves).for_each(|step| step());
            assert_eq!(incarnation(&path), 2, "after {moves} moves");
        }
    }

    #[test]
    fn a_copy_is_whole_or_has_another_name() {
        let temp = tempfile::tempdir().unwrap();
        let dir = old(&temp.path().join("data"));
        let to = temp.path().join("data.saved");
        fs::create_dir(temp.path().join("data.saved.partial")).unwrap();
        fs::write(temp.path().join("data.saved.partial/left"), "behind").unwrap();
        copy(&dir, &to).unwrap();
        assert_eq!(names(temp.path()), ["data", "data.saved"]);
        drop(dir);
        // The lock is left out.
        assert!(bytes(&to).unwrap() > 0 && bytes(&to).unwrap() < bytes(&temp.path().join("data")).unwrap());
        assert_eq!(incarnation(&to), 1);
        let dir = DataDir::open(&temp.path().join("data")).unwrap();
        copy(&dir, &temp.path().join("missing/data.saved")).expect_err("there is no such directory");
        assert_eq!(names(temp.path()), ["data", "data.saved"]);
        assert!(free_bytes(temp.path()).unwrap() > 0);
    }
}
