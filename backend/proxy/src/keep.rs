//! The last routing table on disk, so that a node that starts without a quorum serves as it did before.
//!
//! What is kept is what tables are compiled from, as JSON. A file that cannot be read is as good as none:
//! the cluster knows better anyway, as soon as it can be asked.

use ringmaster_common::traffic::{route::Route, upstream::Upstream};
use ringmaster_storage::atomic_file;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// The file's name in the data directory.
const FILE: &str = "routing-table.json";
const FORMAT: u32 = 1;

/// What tables are compiled from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    format: u32,
    pub upstreams: Vec<Upstream>,
    pub routes: Vec<Route>,
}

impl Kept {
    pub fn new<'a>(
        upstreams: impl Iterator<Item = &'a Upstream>,
        routes: impl Iterator<Item = &'a Route>,
    ) -> Kept {
        Kept { format: FORMAT, upstreams: upstreams.cloned().collect(), routes: routes.cloned().collect() }
    }

    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        atomic_file::create(&dir.join(FILE), |file| file.write_all(&text)).map(drop)
    }

    pub fn read(dir: &Path) -> Option<Kept> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the last routing table cannot be read");
                return None;
            }
        };
        match serde_json::from_slice::<Kept>(&text) {
            Ok(kept) if kept.format == FORMAT => Some(kept),
            Ok(kept) => {
                tracing::warn!(
                    format = kept.format,
                    "the last routing table is of another version, and left alone"
                );
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the last routing table is damaged, and left alone");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tests::{route, upstream};

    #[test]
    fn what_is_kept_comes_back_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Kept::read(dir.path()), None);
        let (upstreams, routes) = ([upstream("u", &[("a", 1), ("b", 2)])], [route("r", "/api", "u")]);
        let kept = Kept::new(upstreams.iter(), routes.iter());
        kept.write(dir.path()).unwrap();
        assert_eq!(Kept::read(dir.path()), Some(kept.clone()));
        Kept { format: FORMAT + 1, ..kept }.write(dir.path()).unwrap();
        assert_eq!(Kept::read(dir.path()), None);
        fs::write(dir.path().join(FILE), b"{\"format\":1,").unwrap();
        assert_eq!(Kept::read(dir.path()), None);
    }
}
