//! The last routing table on disk, so that a node that starts without a quorum serves as it did before.
//!
//! The file has what tables are compiled from, as JSON. A file that cannot be read is ignored: the cluster has the
//! current table, as soon as there is a quorum.

use ringmaster_common::traffic::{route::Route, upstream::Upstream};
use ringmaster_storage::atomic_file;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;

/// In the data directory.
const FILE: &str = "routing-table.json";
const FORMAT: u32 = 1;

/// What tables are compiled from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PersistedTable {
    format: u32,
    pub upstreams: Vec<Upstream>,
    pub routes: Vec<Route>,
}

impl PersistedTable {
    pub fn new<'a>(
        upstreams: impl Iterator<Item = &'a Upstream>,
        routes: impl Iterator<Item = &'a Route>,
    ) -> PersistedTable {
        PersistedTable {
            format: FORMAT,
            upstreams: upstreams.cloned().collect(),
            routes: routes.cloned().collect(),
        }
    }

    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        atomic_file::create(&dir.join(FILE), |file| file.write_all(&text)).map(drop)
    }

    pub fn read(dir: &Path) -> Option<PersistedTable> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read the persisted routing table");
                return None;
            }
        };
        match serde_json::from_slice::<PersistedTable>(&text) {
            Ok(table) if table.format == FORMAT => Some(table),
            Ok(table) => {
                tracing::warn!(
                    format = table.format,
                    "the persisted routing table has another version, and is ignored"
                );
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the persisted routing table is damaged, and is ignored");
                None
            }
        }
    }
}

/// Writes each table that comes. Of tables that come while one is written, only the last is written.
pub async fn run(dir: PathBuf, mut tables: watch::Receiver<Option<Arc<PersistedTable>>>) {
    while tables.changed().await.is_ok() {
        let Some(table) = tables.borrow_and_update().clone() else { continue };
        let dir = dir.clone();
        let written = tokio::task::spawn_blocking(move || table.write(&dir)).await;
        if let Err(error) = written.map_err(io::Error::other).flatten() {
            tracing::warn!(%error, "cannot persist the routing table; a restart without a quorum would use an older one");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tests::{route, upstream};

    #[test]
    fn only_a_table_of_this_version_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(PersistedTable::read(dir.path()), None);
        let (upstreams, routes) = ([upstream("u", &[("a", 1), ("b", 2)])], [route("r", "/api", "u")]);
        let table = PersistedTable::new(upstreams.iter(), routes.iter());
        table.write(dir.path()).unwrap();
        assert_eq!(PersistedTable::read(dir.path()), Some(table.clone()));
        PersistedTable { format: FORMAT + 1, ..table }.write(dir.path()).unwrap();
        assert_eq!(PersistedTable::read(dir.path()), None);
        fs::write(dir.path().join(FILE), b"{\"format\":1,").unwrap();
        assert_eq!(PersistedTable::read(dir.path()), None);
    }
}
