//! The directory and the ports of a demo.

use ringmaster_common::id::NodeId;
use ringmaster_storage::data_dir;
use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Seek, SeekFrom},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

pub const DEFAULT_BASE_PORT: u16 = 7700;
/// Leaves room for the ports of the sample endpoints.
pub const MAX_BASE_PORT: u16 = 65_000;
/// The distance between the ports of two kinds.
const KIND_STRIDE: u16 = 100;
/// How many bytes of a log's end are shown.
const END_OF_LOG_BYTES: u64 = 1024;
/// Stores the base port: the addresses of the members derive from it.
const BASE_PORT_FILE: &str = "base-port";

#[derive(Debug)]
pub struct Home {
    directory: Directory,
    base_port: u16,
}

#[derive(Debug)]
enum Directory {
    /// Removed when the demo ends.
    Temporary(TempDir),
    Kept(PathBuf),
}

/// The ports of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub api: u16,
    pub peer: u16,
    pub proxy: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error(
        "cannot use port {port} ({what}): {source}; stop the process that uses it, or choose other ports with --base-port"
    )]
    Port { port: u16, what: String, source: io::Error },
    #[error("the cluster in {} was created with --base-port {known}; the addresses of its members cannot change", path.display())]
    OtherPorts { path: PathBuf, known: u16 },
    #[error("{} does not contain a port number", .0.display())]
    NoPort(PathBuf),
    #[error("cannot use {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

impl Home {
    /// Opens `directory`, or a temporary one that is removed on drop.
    pub fn open(directory: Option<PathBuf>, base_port: Option<u16>) -> Result<Home, HomeError> {
        let Some(path) = directory else {
            let directory = private_directory()
                .map_err(|source| HomeError::Directory { path: std::env::temp_dir(), source })?;
            return Ok(Home {
                directory: Directory::Temporary(directory),
                base_port: base_port.unwrap_or(DEFAULT_BASE_PORT),
            });
        };
        let failed = |source| HomeError::Directory { path: path.clone(), source };
        fs::create_dir_all(&path).map_err(failed)?;
        // Nodes receive absolute paths.
        let path = path.canonicalize().map_err(failed)?;
        let file = path.join(BASE_PORT_FILE);
        let known = match fs::read_to_string(&file) {
            Ok(text) => Some(text.trim().parse().map_err(|_| HomeError::NoPort(file.clone()))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(HomeError::Directory { path: file, source }),
        };
        let base_port = match (known, base_port) {
            (Some(known), Some(requested)) if known != requested => {
                return Err(HomeError::OtherPorts { path, known });
            }
            (Some(known), _) => known,
            (None, requested) => requested.unwrap_or(DEFAULT_BASE_PORT),
        };
        if known.is_none() {
            fs::write(&file, format!("{base_port}\n"))
                .map_err(|source| HomeError::Directory { path: file, source })?;
        }
        Ok(Home { directory: Directory::Kept(path), base_port })
    }

    pub fn path(&self) -> &Path {
        match &self.directory {
            Directory::Temporary(directory) => directory.path(),
            Directory::Kept(path) => path,
        }
    }

    pub fn node(&self, id: NodeId) -> PathBuf {
        self.path().join(format!("node-{id}"))
    }

    pub fn log(&self, id: NodeId) -> PathBuf {
        self.node(id).join("node.log")
    }

    /// Whether the node has been a member.
    pub fn has_identity(&self, id: NodeId) -> bool {
        data_dir::has_identity(&self.node(id))
    }

    /// The highest id of a node that has been a member; 0 if there is none.
    pub fn known_nodes(&self) -> u64 {
        (1..=ringmaster_common::cluster::MAX_NODES as u64)
            .filter(|id| self.has_identity(NodeId(*id)))
            .max()
            .unwrap_or(0)
    }

    pub fn ports(&self, id: NodeId) -> Ports {
        let offset = u16::try_from(id.0).expect("a demo has few nodes");
        let api = self.base_port + offset;
        Ports { api, peer: api + KIND_STRIDE, proxy: api + 2 * KIND_STRIDE }
    }

    /// The port of the nth sample endpoint, counted from 1 over all services.
    pub fn sample_port(&self, nth: u16) -> u16 {
        self.base_port + 3 * KIND_STRIDE + nth
    }

    /// The last lines of a node's log.
    pub fn end_of_log(&self, id: NodeId) -> String {
        let path = self.log(id);
        let end = read_end(&path).unwrap_or_else(|error| format!("(cannot be read: {error})"));
        format!(
            "{}\n  in {}",
            end.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"),
            path.display()
        )
    }
}

/// A new temporary directory that only its user may read.
pub fn private_directory() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("ringmaster-demo-").permissions(Permissions::from_mode(0o700)).tempdir()
}

fn read_end(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(END_OF_LOG_BYTES);
    file.seek(SeekFrom::Start(skipped))?;
    let mut end = Vec::new();
    file.take(END_OF_LOG_BYTES).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    // Only whole lines.
    let begin = if skipped == 0 { 0 } else { text.find('\n').map_or(0, |end| end + 1) };
    Ok(text[begin..].to_owned())
}

impl Ports {
    pub fn url(self) -> String {
        format!("http://127.0.0.1:{}", self.api)
    }

    pub fn proxy_url(self) -> String {
        format!("http://127.0.0.1:{}", self.proxy)
    }

    /// Fails if one of the ports is in use.
    pub fn check_free(self, node: NodeId) -> Result<(), HomeError> {
        for (what, port) in [("API", self.api), ("peer listener", self.peer), ("proxy listener", self.proxy)]
        {
            check_free(port, || format!("the {what} of node {node}"))?;
        }
        Ok(())
    }
}

/// Fails if the port is in use. `what` describes its purpose.
pub fn check_free(port: u16, what: impl FnOnce() -> String) -> Result<(), HomeError> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .map(drop)
        .map_err(|source| HomeError::Port { port, what: what(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_has_its_own_port() {
        let home = Home::open(None, None).unwrap();
        assert_eq!(home.ports(NodeId(1)), Ports { api: 7701, peer: 7801, proxy: 7901 });
        assert_eq!(home.ports(NodeId(7)), Ports { api: 7707, peer: 7807, proxy: 7907 });
        assert_eq!(home.ports(NodeId(2)).url(), "http://127.0.0.1:7702");
        assert_eq!(home.ports(NodeId(2)).proxy_url(), "http://127.0.0.1:7902");
        assert_eq!(home.sample_port(1), 8001);
    }

    #[test]
    fn a_temporary_home_is_private_and_removed() {
        let home = Home::open(None, None).unwrap();
        let path = home.path().to_owned();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(home);
        assert!(!path.exists());
    }

    #[test]
    fn a_kept_home_remembers_its_ports() {
        let kept = tempfile::tempdir().unwrap();
        let path = || Some(kept.path().join("demo"));
        Home::open(path(), Some(4000)).unwrap();
        assert_eq!(Home::open(path(), None).unwrap().ports(NodeId(1)).api, 4001);
        let error = Home::open(path(), Some(5000)).unwrap_err().to_string();
        assert!(error.contains("was created with --base-port 4000"), "{error}");
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error =
            Ports { api: port, peer: port, proxy: port }.check_free(NodeId(2)).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} (the API of node 2)")), "{error}");
    }

    #[test]
    fn the_end_of_a_log_is_bounded() {
        let home = Home::open(None, None).unwrap();
        fs::create_dir(home.node(NodeId(1))).unwrap();
        fs::write(home.log(NodeId(1)), "x".repeat(5000) + "\nlast words\n").unwrap();
        let end = home.end_of_log(NodeId(1));
        assert!(end.contains("  last words"), "{end}");
        assert!(end.len() < 1200);
    }
}
