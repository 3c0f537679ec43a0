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
    time::Duration,
};
use tokio::{sync::watch, time::sleep};

/// How long to wait after a failure: the disk may be full for a while.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
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

/// Writes each table that comes, until it is written. Of tables that come while one is written, only the last is
/// written.
pub async fn run(dir: PathBuf, tables: watch::Receiver<Option<Arc<PersistedTable>>>) {
    write_all(dir, tables, RETRY_PAUSE).await;
}

async fn write_all(
    dir: PathBuf,
    mut tables: watch::Receiver<Option<Arc<PersistedTable>>>,
    retry_pause: Duration,
) {
    let mut failed = false;
    loop {
        tokio::select! {
            changed = tables.changed() => if changed.is_err() { return },
            () = sleep(retry_pause), if failed => {}
        }
        let Some(table) = tables.borrow_and_update().clone() else { continue };
        let into = dir.clone();
        let written = tokio::task::spawn_blocking(move || table.write(&into)).await;
        let written = written.map_err(io::Error::other).flatten();
        match &written {
            Err(error) if !failed => tracing::warn!(
                dir = %dir.display(),
                %error,
                "cannot persist the routing table; a restart without a quorum would use an older one"
            ),
            Ok(()) if failed => tracing::info!("the routing table is persisted again"),
            _ => {}
        }
        failed = written.is_err();
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

    #[tokio::test]
    async fn a_table_that_could_not_be_written_is_written_when_it_can_be() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("missing");
        let table = PersistedTable::new([upstream("u", &[("a", 1)])].iter(), [].iter());
        let (sender, tables) = watch::channel(None);
        let writing = tokio::spawn(write_all(dir.clone(), tables, Duration::from_millis(20)));
        sender.send_replace(Some(Arc::new(table.clone())));
        sleep(Duration::from_millis(100)).await;
        fs::create_dir(&dir).unwrap();
        for _ in 0..500 {
            if PersistedTable::read(&dir).is_some() {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(PersistedTable::read(&dir), Some(table));
        drop(sender);
        writing.await.unwrap();
    }
}
