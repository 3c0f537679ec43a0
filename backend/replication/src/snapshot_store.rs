//! Snapshots of one group, on disk: `snapshots/<group>-<term>-<index>-<n>.snap`.
//!
//! The newest is kept, and an older one is deleted once it is durable. A newest one that is damaged
//! is not passed over, even where an older one is still there: the log may be purged up to it, and
//! then what it held is nowhere on this node.
//!
//! ```text
//! offset  size  field
//!      0     8  magic
//!      8     4  format version
//!     12     4  length of the meta data
//!     16     8  length of the body
//!     24     …  meta data, in postcard
//!      …     …  body: the state machine's own
//!      …     4  CRC-32 of all before
//! ```
//!
//! Everything here blocks; in async code it belongs into `spawn_blocking`.

use crate::types::SnapshotMeta;
use bytes::Bytes;
use ringmaster_common::id::GroupId;
use ringmaster_storage::atomic_file;
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

const DIRECTORY: &str = "snapshots";
const MAGIC: [u8; 8] = *b"RMsnapsh";
/// The format that this version writes.
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 24;
const CRC_BYTES: usize = 4;

/// The snapshots of one group.
#[derive(Debug)]
pub struct SnapshotStore {
    dir: PathBuf,
    group: GroupId,
    /// One is built while another may be installed: they are saved one at a time.
    newest: Mutex<Option<Name>>,
}

/// What the name of a file tells. Names are ordered as the snapshots are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    term: u64,
    index: u64,
    /// Tells apart snapshots of one log id.
    n: u64,
}

impl Name {
    fn parse(name: &str, group: GroupId) -> Option<Name> {
        let mut numbers = name.strip_suffix(".snap")?.split('-').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let (of, name) = (next()?, Name { term: next()?, index: next()?, n: next()? });
        (of == group.0 && numbers.next().is_none()).then_some(name)
    }

    fn path(self, dir: &Path, group: GroupId) -> PathBuf {
        let Name { term, index, n } = self;
        dir.join(format!("{group}-{term}-{index}-{n}.snap"))
    }
}

impl SnapshotStore {
    /// Opens the snapshots of `group` in the data directory `dir`.
    pub fn open(dir: &Path, group: GroupId) -> io::Result<Self> {
        let dir = dir.join(DIRECTORY);
        atomic_file::create_dir(&dir)?;
        let newest = names(&dir, group)?.into_iter().max();
        // A rename may not have become durable before the last process ended.
        atomic_file::sync_dir(&dir)?;
        Ok(SnapshotStore { dir, group, newest: Mutex::new(newest) })
    }

    /// Makes a snapshot durable, unless there is a newer one.
    pub fn save(&self, meta: &SnapshotMeta, body: &[u8]) -> io::Result<()> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let (term, index) = meta.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
        let n = newest.map_or(0, |newest| newest.n + 1);
        let name = Name { term, index, n };
        if newest.is_some_and(|newest| (newest.term, newest.index) > (term, index)) {
            return Ok(());
        }
        let meta = postcard::to_stdvec(meta).map_err(io::Error::other)?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&u32::try_from(meta.len()).map_err(io::Error::other)?.to_le_bytes());
        header.extend_from_slice(&(body.len() as u64).to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        atomic_file::create(&name.path(&self.dir, self.group), |file| {
            for part in [&header, &meta, body] {
                crc.update(part);
                file.write_all(part)?;
            }
            file.write_all(&crc.finalize().to_le_bytes())
        })?;
        *newest = Some(name);
        self.remove_older_than(name);
        Ok(())
    }

    fn remove_older_than(&self, newest: Name) {
        let remove = |name: Name| fs::remove_file(name.path(&self.dir, self.group));
        let removed = names(&self.dir, self.group)
            .and_then(|names| names.into_iter().filter(|name| *name < newest).try_for_each(remove));
        if let Err(error) = removed {
            // It is in the way of nothing; the next one that is saved tries again.
            tracing::warn!(dir = %self.dir.display(), %error, "an old snapshot could not be removed");
        }
    }

    /// The newest snapshot, checked.
    pub fn load(&self) -> io::Result<Option<(SnapshotMeta, Bytes)>> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(name) = *newest else { return Ok(None) };
        let path = name.path(&self.dir, self.group);
        let bytes = Bytes::from(fs::read(&path)?);
        parse(&bytes).map(Some).map_err(|why| {
            let text = format!("the snapshot {} {why}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

/// The snapshots of a group that are there.
fn names(dir: &Path, group: GroupId) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().to_str().and_then(|name| Name::parse(name, group)));
    }
    Ok(names)
}

fn parse(bytes: &Bytes) -> Result<(SnapshotMeta, Bytes), String> {
    let damaged = |what: &str| {
        format!(
            "is damaged: {what}. What it held may be nowhere else on this node, so the node does not start. Remove \
             it from the cluster, and let it join again with an empty data directory and a new id; if most nodes are \
             damaged, restore a backup"
        )
    };
    let header = bytes.get(..HEADER_BYTES).ok_or_else(|| damaged("its header is cut off"))?;
    if header[..8] != MAGIC {
        return Err(damaged("it does not begin as one"));
    }
    let four = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes are four"));
    // First the format: in another one the lengths may be elsewhere.
    if four(8) != FORMAT {
        let found = four(8);
        return Err(format!(
            "has format {found}, and this version reads format {FORMAT}: run the version that wrote it"
        ));
    }
    let meta_end = HEADER_BYTES + four(12) as usize;
    let body_length = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes are eight"));
    let crc_at = bytes.len().saturating_sub(CRC_BYTES);
    if (meta_end as u64).checked_add(body_length) != Some(crc_at as u64) {
        return Err(damaged("its length is not what it says"));
    }
    if bytes[crc_at..] != crc32fast::hash(&bytes[..crc_at]).to_le_bytes() {
        return Err(damaged("its checksum differs"));
    }
    let meta = postcard::from_bytes(&bytes[HEADER_BYTES..meta_end])
        .map_err(|error| damaged(&format!("its meta data makes no sense ({error})")))?;
    Ok((meta, bytes.slice(meta_end..crc_at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogId;
    use openraft::vote::leader_id_std::CommittedLeaderId;

    const GROUP: GroupId = GroupId(3);

    fn meta(term: u64, index: u64) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: Some(LogId::new(CommittedLeaderId::new(term), index)),
            ..SnapshotMeta::default()
        }
    }

    fn files(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path().join(DIRECTORY)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_newest_is_kept_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP).unwrap();
        let other = SnapshotStore::open(dir.path(), GroupId(33)).unwrap();
        assert!(store.load().unwrap().is_none());
        other.save(&meta(1, 1), b"another group's").unwrap();
        // Not in the order of their names, nor the later one always newer.
        for (term, index) in [(1, 9), (2, 10), (2, 100), (2, 100), (2, 20), (1, 500)] {
            store.save(&meta(term, index), format!("{term} {index}").as_bytes()).unwrap();
        }
        let expected = Some((meta(2, 100), Bytes::from("2 100")));
        assert_eq!(store.load().unwrap(), expected);
        assert_eq!(SnapshotStore::open(dir.path(), GROUP).unwrap().load().unwrap(), expected);
        assert_eq!(other.load().unwrap(), Some((meta(1, 1), Bytes::from("another group's"))));
        assert_eq!(files(&dir).len(), 2, "{:?}", files(&dir));
    }

    #[test]
    fn what_a_crash_leaves_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP).unwrap();
        store.save(&meta(1, 5), b"old").unwrap();
        let old = fs::read(dir.path().join("snapshots/3-1-5-0.snap")).unwrap();
        // Before the rename.
        fs::write(dir.path().join("snapshots/3-1-8-1.tmp"), &old[..old.len() / 2]).unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP).unwrap();
        assert_eq!(store.load().unwrap(), Some((meta(1, 5), Bytes::from("old"))));
        // Behind the rename, before the old one is removed.
        store.save(&meta(1, 8), b"new").unwrap();
        fs::write(dir.path().join("snapshots/3-1-5-0.snap"), old).unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP).unwrap();
        assert_eq!(store.load().unwrap(), Some((meta(1, 8), Bytes::from("new"))));
        store.save(&meta(1, 9), b"newer").unwrap();
        assert_eq!(files(&dir), ["3-1-9-2.snap"]);
    }

    #[test]
    fn a_damaged_newest_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP).unwrap();
        store.save(&meta(1, 5), b"the state").unwrap();
        let path = dir.path().join("snapshots/3-1-5-0.snap");
        let whole = fs::read(&path).unwrap();
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            fs::write(&path, damaged).unwrap();
            let error = SnapshotStore::open(dir.path(), GROUP).unwrap().load().expect_err("damage is seen");
            let advice = if (8..12).contains(&byte) { "run the version" } else { "join again" };
            assert!(error.to_string().contains(advice), "byte {byte}: {error}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            store.load().expect_err("a cut is seen");
        }
    }
}
