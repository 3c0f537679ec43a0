//! The data directory of a node: locked while in use, and marked with whose it is.
//!
//! A directory belongs to one node of one cluster for ever. A second process, another node and another
//! cluster are refused, each with a sentence that says what to do. So is a directory that holds the data of a node and
//! has lost its identity: the entries of another node, or of another cluster, are never replaced, because a log id says
//! neither.

pub use crate::layout::{SNAPSHOT_SUFFIX, SNAPSHOTS};
use crate::{
    atomic_file,
    journal::Journal,
    layout::{self, IDENTITY, LOCK},
};
use ringmaster_common::id::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process,
};

/// The format of `identity.json` that this version writes.
const FORMAT: u32 = 1;

/// The identity of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub cluster_id: String,
    pub node_id: NodeId,
    pub name: String,
    pub incarnation: Incarnation,
    pub addresses: Addresses,
}

/// The addresses with which a node was first started: they need not be given again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    pub api_addr: SocketAddr,
    pub peer_addr: SocketAddr,
    pub public_url: String,
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    #[serde(flatten)]
    identity: Identity,
}

/// The part of an identity file that every version can read.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("the data directory, at {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is in use by {holder}: end it, or give this node its own --data-dir", path.display())]
    InUse { path: PathBuf, holder: String },
    #[error(
        "{} does not say whose directory this is: {why}. Restore the file, or remove the node from the cluster and \
         let it join again with an empty data directory and a new id",
        path.display()
    )]
    BadIdentity { path: PathBuf, why: String },
    #[error(
        "{} holds {found} of a node, and no identity.json, which says of which node of which cluster they are: no node \
         starts from it. Keep a copy of the directory, and restore the file; or remove the node from its cluster, and let \
         it join again with an empty data directory and a new id",
        path.display()
    )]
    NoIdentity { path: PathBuf, found: &'static str },
    #[error("{} is not the data directory of a node", path.display())]
    NoNode { path: PathBuf },
    #[error("{} has format {found}, and this version reads format {FORMAT}: run the version that wrote it", path.display())]
    Format { path: PathBuf, found: u32 },
    #[error(
        "{} belongs to node {} of cluster {}, incarnation {}, and cannot become that of node {} of cluster {}, incarnation {}: \
         give each node its own --data-dir",
        path.display(), held.node_id, held.cluster_id, held.incarnation, asked.node_id, asked.cluster_id, asked.incarnation
    )]
    Taken { path: PathBuf, held: Box<Identity>, asked: Box<Identity> },
}

/// A data directory, locked for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, or creates it, and locks it.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let lock_path = path.join(LOCK);
        let mut lock =
            File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&lock_path).unwrap_or_default();
                let holder =
                    if pid.is_empty() { "another process".to_owned() } else { format!("process {pid}") };
                return Err(DataDirError::InUse { path: path.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // For the message of a process that finds it locked; the lock itself is the kernel's.
        lock.set_len(0).and_then(|()| write!(lock, "{}", process::id())).map_err(failed)?;
        atomic_file::remove_unfinished(path).map_err(failed)?;
        layout::finish(path).map_err(failed)?;
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn identity_path(&self) -> PathBuf {
        identity_path(&self.path)
    }

    /// Opens the directory of a node that has been started before, and creates nothing.
    pub fn open_existing(path: &Path) -> Result<(DataDir, Identity), DataDirError> {
        let none = || DataDirError::NoNode { path: path.to_owned() };
        if !path.is_dir() || !(has_identity(path) || Journal::is_used(path)) {
            return Err(none());
        }
        let dir = DataDir::open(path)?;
        let identity = dir.identity()?;
        if identity.is_none() {
            dir.check_empty()?;
        }
        Ok((dir, identity.ok_or_else(none)?))
    }

    /// The identity of its node; none while it is fresh.
    pub fn identity(&self) -> Result<Option<Identity>, DataDirError> {
        DataDir::identity_of(&self.path)
    }

    /// Refuses a directory without an identity that holds the data of a node. An unused journal is no data: a first start
    /// that was cut short leaves one.
    pub fn check_empty(&self) -> Result<(), DataDirError> {
        let failed = |source| DataDirError::Io { path: self.path.clone(), source };
        let snapshots = has_snapshots(&self.path.join(SNAPSHOTS)).map_err(failed)?;
        let found = match (Journal::is_used(&self.path), snapshots) {
            (true, true) => "the journal and snapshots",
            (true, false) => "the journal",
            (false, true) => "snapshots",
            (false, false) => return Ok(()),
        };
        Err(DataDirError::NoIdentity { path: self.path.clone(), found })
    }

    /// The identity in a directory that another process may be using.
    pub fn identity_of(path: &Path) -> Result<Option<Identity>, DataDirError> {
        let path = identity_path(path);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DataDirError::Io { path, source }),
        };
        let bad = |error: serde_json::Error| DataDirError::BadIdentity {
            path: path.clone(),
            why: error.to_string(),
        };
        // First the format: the fields of another one may be others.
        let AnyFormat { format: found } = serde_json::from_slice(&text).map_err(bad)?;
        if found != FORMAT {
            return Err(DataDirError::Format { path, found });
        }
        let file: IdentityFile = serde_json::from_slice(&text).map_err(bad)?;
        Ok(Some(file.identity))
    }

    /// Marks the directory. Its node and cluster never change; its name may, and its incarnation may
    /// grow.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), DataDirError> {
        if let Some(held) = self.identity()? {
            let same = held.node_id == identity.node_id && held.cluster_id == identity.cluster_id;
            if !same || held.incarnation > identity.incarnation {
                return Err(DataDirError::Taken {
                    path: self.path.clone(),
                    held: Box::new(held),
                    asked: Box::new(identity.clone()),
                });
            }
        }
        write_identity(&self.path, identity)
            .map_err(|source| DataDirError::Io { path: self.identity_path(), source })
    }
}

pub(crate) fn write_identity(dir: &Path, identity: &Identity) -> io::Result<()> {
    let file = IdentityFile { format: FORMAT, identity: identity.clone() };
    let text = serde_json::to_vec_pretty(&file).expect("plain data encodes");
    atomic_file::create(&identity_path(dir), |file| file.write_all(&text)).map(drop)
}

/// Whether a node has ever started from `path`.
pub fn has_identity(path: &Path) -> bool {
    identity_path(path).exists()
}

fn has_snapshots(dir: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        if entry?.file_name().to_string_lossy().ends_with(SNAPSHOT_SUFFIX) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn identity_path(path: &Path) -> PathBuf {
    path.join(IDENTITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Owner;
    use ringmaster_net::supervisor::Supervisor;

    fn identity(cluster_id: &str, node: u64) -> Identity {
        Identity {
            cluster_id: cluster_id.to_owned(),
            node_id: NodeId(node),
            name: "amber-fox".to_owned(),
            incarnation: Incarnation(2),
            addresses: Addresses {
                api_addr: "127.0.0.1:7701".parse().unwrap(),
                peer_addr: "127.0.0.1:7801".parse().unwrap(),
                public_url: "http://127.0.0.1:7701".to_owned(),
            },
        }
    }

    #[test]
    fn a_directory_belongs_to_one_node_of_one_cluster_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert_eq!(data.identity().unwrap(), None);
        data.write_identity(&identity("c", 1)).unwrap();
        assert_eq!(data.identity().unwrap(), Some(identity("c", 1)));

        let older = Identity { incarnation: Incarnation(1), ..identity("c", 1) };
        for other in [identity("c", 2), identity("d", 1), older] {
            let error = data.write_identity(&other).expect_err("it is taken");
            assert!(error.to_string().contains("belongs to node 1 of cluster c"), "{error}");
            assert!(error.to_string().contains("--data-dir"), "{error}");
        }
        let renamed =
            Identity { name: "brave-owl".to_owned(), incarnation: Incarnation(3), ..identity("c", 1) };
        data.write_identity(&renamed).unwrap();
        drop(data);
        assert_eq!(DataDir::open(dir.path()).unwrap().identity().unwrap(), Some(renamed));
    }

    #[test]
    fn a_directory_is_used_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not/there/yet");
        let data = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).expect_err("it is in use");
        assert!(matches!(error, DataDirError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {}:", process::id())), "{error}");
        drop(data);
        DataDir::open(&path).expect("it is free again");
    }

    #[test]
    fn a_damaged_identity_is_no_fresh_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        data.write_identity(&identity("c", 1)).unwrap();
        let whole = fs::read_to_string(data.identity_path()).unwrap();
        for length in 0..whole.len() {
            fs::write(data.identity_path(), &whole[..length]).unwrap();
            let error = data.identity().expect_err("a cut is seen");
            assert!(matches!(error, DataDirError::BadIdentity { .. }), "{error}");
            data.write_identity(&identity("c", 1)).expect_err("it is not written over");
        }
        fs::write(data.identity_path(), whole.replace("\"format\": 1", "\"format\": 2")).unwrap();
        assert!(matches!(data.identity(), Err(DataDirError::Format { found: 2, .. })));
    }

    #[test]
    fn data_without_an_identity_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let refused = |found: &str| {
            let error = data.check_empty().expect_err(found).to_string();
            assert!(error.contains(&format!("{} holds {found} of a node", dir.path().display())), "{error}");
            for advice in ["identity.json", "Keep a copy", "remove the node", "empty data directory"] {
                assert!(error.contains(advice), "{error}");
            }
        };
        data.check_empty().expect("it is empty");
        // A first start that was cut short.
        fs::create_dir(dir.path().join("journal")).unwrap();
        data.check_empty().expect("the journal was never begun");
        Journal::create(dir.path()).unwrap();
        fs::create_dir(dir.path().join(SNAPSHOTS)).unwrap();
        fs::write(dir.path().join("snapshots/0-1-5-0.tmp"), "unfinished").unwrap();
        data.check_empty().expect("the journal was never used");

        let snapshot = dir.path().join("snapshots/0-1-5-0.snap");
        fs::write(&snapshot, "a snapshot").unwrap();
        refused("snapshots");
        let owner = Owner { cluster_id: "c".to_owned(), node_id: NodeId(1) };
        drop(Journal::open_supervised(dir.path(), owner, &Supervisor::new()).unwrap());
        refused("the journal and snapshots");
        fs::remove_file(&snapshot).unwrap();
        refused("the journal");
        // A damaged one may have been used.
        let segment = dir.path().join(format!("journal/{:020}.log", 0));
        fs::write(&segment, "RM").unwrap();
        refused("the journal");
        data.write_identity(&identity("c", 1)).unwrap();
        fs::remove_dir_all(dir.path().join("journal")).unwrap();
        data.check_empty().expect("nothing of it is left");
    }

    #[test]
    fn what_was_left_unfinished_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity.tmp"), "{").unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert_eq!(data.identity().unwrap(), None);
        assert!(!dir.path().join("identity.tmp").exists());
    }
}
