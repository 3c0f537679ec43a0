//! The data directory of a node: locked while in use, and marked with whose it is.
//!
//! A directory belongs to one node of one cluster for ever. A second process, another node and
//! another cluster are refused, each with a sentence that says what to do.

use ringmaster_common::id::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

const IDENTITY_FORMAT: u16 = 1;

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub cluster_id: String,
    pub node_id: NodeId,
    pub name: String,
    pub incarnation: Incarnation,
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format: u16,
    #[serde(flatten)]
    identity: Identity,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("the data directory {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} is in use by another process; end that one, or give this node its own --data-dir", path.display())]
    InUse { path: PathBuf },
    #[error("{} cannot be read: {why}; restore it, or empty the directory and join with a new id", path.display())]
    Identity { path: PathBuf, why: String },
    #[error("{} belongs to node {} of cluster {}; give this node its own --data-dir", path.display(), held.node_id, held.cluster_id)]
    Taken { path: PathBuf, held: Identity },
}

/// A data directory, locked for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let failed = |error| DataDirError::Io { path: path.to_owned(), error };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn identity_path(&self) -> PathBuf {
        identity_path(&self.path)
    }

    /// Whose directory it is; none while it is fresh.
    pub fn identity(&self) -> Result<Option<Identity>, DataDirError> {
        let path = self.identity_path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataDirError::Io { path, error }),
        };
        let bad = |why: String| DataDirError::Identity { path: path.clone(), why };
        let file: IdentityFile = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if file.format > IDENTITY_FORMAT {
            return Err(bad(format!(
                "it has format {}, and this version reads {IDENTITY_FORMAT}",
                file.format
            )));
        }
        Ok(Some(file.identity))
    }

    /// Marks the directory. It can be done once; whoever it belongs to, it belongs to for ever.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), DataDirError> {
        if let Some(held) = self.identity()? {
            return if held == *identity {
                Ok(())
            } else {
                Err(DataDirError::Taken { path: self.path.clone(), held })
            };
        }
        let file = IdentityFile { format: IDENTITY_FORMAT, identity: identity.clone() };
        let text = serde_json::to_vec_pretty(&file).expect("plain data encodes");
        write_atomically(&self.identity_path(), &[&text])
            .map_err(|error| DataDirError::Io { path: self.identity_path(), error })
    }
}

/// Whether a node has ever started from `path`.
pub fn has_identity(path: &Path) -> bool {
    identity_path(path).exists()
}

fn identity_path(path: &Path) -> PathBuf {
    path.join("identity.json")
}

/// Writes a file so that it is there whole or not at all, whatever happens meanwhile.
pub fn write_atomically(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Makes a directory look like that of a node that has started before.
    pub fn give_identity(path: &Path) {
        fs::create_dir_all(path).unwrap();
        fs::write(identity_path(path), "").unwrap();
    }

    fn identity(node: u64) -> Identity {
        Identity {
            cluster_id: "c1".to_owned(),
            node_id: NodeId(node),
            name: "amber-fox".to_owned(),
            incarnation: Incarnation(1),
        }
    }

    #[test]
    fn a_directory_belongs_to_one_node_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert_eq!(data.identity().unwrap(), None);
        data.write_identity(&identity(1)).unwrap();
        data.write_identity(&identity(1)).unwrap();
        assert_eq!(data.identity().unwrap(), Some(identity(1)));
        let error = data.write_identity(&identity(2)).expect_err("it is taken");
        assert!(error.to_string().contains("belongs to node 1"), "{error}");
    }

    #[test]
    fn a_directory_is_used_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).expect_err("it is in use");
        assert!(matches!(error, DataDirError::InUse { .. }), "{error}");
        drop(data);
        DataDir::open(dir.path()).expect("it is free again");
    }

    #[test]
    fn a_damaged_identity_is_no_fresh_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        for text in
            ["", "{", "{\"format\":9,\"cluster_id\":\"c\",\"node_id\":1,\"name\":\"n\",\"incarnation\":1}"]
        {
            fs::write(data.identity_path(), text).unwrap();
            assert!(matches!(data.identity(), Err(DataDirError::Identity { .. })), "{text:?}");
        }
    }
}
