//! Data directories that are put back to an older copy: a disk image that was restored, a snapshot of a virtual machine.

use crate::cluster::Cluster;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Copies of data directories.
#[derive(Debug)]
pub struct Copies(tempfile::TempDir);

impl Default for Copies {
    fn default() -> Self {
        Copies(tempfile::tempdir().expect("a directory"))
    }
}

impl Copies {
    fn path(&self, node: u64) -> PathBuf {
        self.0.path().join(node.to_string())
    }

    /// Of a node that does not run, in place of the copy before.
    pub fn take(&self, cluster: &Cluster, node: u64) {
        let path = self.path(node);
        if path.exists() {
            fs::remove_dir_all(&path).expect("the copy before is there");
        }
        copy_all(&cluster.data_dir(node), &path).expect("a copy");
    }

    /// For a node that does not run.
    pub fn put_back(&self, cluster: &Cluster, node: u64) {
        cluster.wipe(node);
        copy_all(&self.path(node), &cluster.data_dir(node)).expect("a copy");
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
