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
//!      …     …  body: the application's own
//!      …     4  CRC-32 of all before
//! ```
//!
//! A body is written and read in pieces, and none is larger than [`MAX_SNAPSHOT_BYTES`]: what is larger could not be
//! installed on another node. A snapshot that arrives from a leader is collected in `<group>.incoming`, which is never
//! renamed: it is copied when it is whole.
//!
//! Everything here blocks; in async code it belongs into `spawn_blocking`.

use crate::{snapshot_file::SnapshotFile, types::SnapshotMeta};
use ringmaster_common::id::GroupId;
use ringmaster_storage::{
    atomic_file,
    data_dir::{SNAPSHOT_SUFFIX, SNAPSHOTS},
};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The largest body.
pub const MAX_SNAPSHOT_BYTES: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"RMsnapsh";
/// The format that this version writes.
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 24;
const CRC_BYTES: usize = 4;
/// How much is written to the file, or read from it, at once.
const BUFFER_BYTES: usize = 256 << 10;

/// The snapshots of one group.
#[derive(Debug)]
pub struct SnapshotStore {
    dir: PathBuf,
    group: GroupId,
    max_bytes: u64,
    /// Held while one is saved: one is built while another may be installed. True once all were removed.
    removed: Mutex<bool>,
    /// Held for moments only: consensus looks here while a snapshot is built.
    newest: Mutex<Option<Name>>,
}

/// Why a snapshot was not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("the snapshot is larger than {0} bytes, and no node could install it")]
    TooLarge(u64),
    #[error("the group has left this node")]
    Removed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The parts of a file's name. Names are ordered as the snapshots are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    term: u64,
    index: u64,
    /// Differs for snapshots of one log id.
    n: u64,
}

impl Name {
    fn parse(name: &str, group: GroupId) -> Option<Name> {
        let mut numbers =
            name.strip_suffix(SNAPSHOT_SUFFIX)?.split('-').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let (of, name) = (next()?, Name { term: next()?, index: next()?, n: next()? });
        (of == group.0 && numbers.next().is_none()).then_some(name)
    }

    fn path(self, dir: &Path, group: GroupId) -> PathBuf {
        let Name { term, index, n } = self;
        dir.join(format!("{group}-{term}-{index}-{n}{SNAPSHOT_SUFFIX}"))
    }
}

impl SnapshotStore {
    /// Opens the snapshots of `group` in the data directory `dir`. No body is larger than `max_bytes`.
    pub fn open(dir: &Path, group: GroupId, max_bytes: u64) -> io::Result<Self> {
        let dir = dir.join(SNAPSHOTS);
        atomic_file::create_dir(&dir)?;
        let newest = names(&dir, group)?.into_iter().max();
        // A rename may not have become durable before the last process ended.
        atomic_file::sync_dir(&dir)?;
        let _ = fs::remove_file(dir.join(format!("{group}.incoming")));
        // Those of this group alone: another one may be saving at this moment.
        atomic_file::remove_unfinished_of(&dir, &format!("{group}-"))?;
        Ok(SnapshotStore { dir, group, max_bytes, removed: Mutex::default(), newest: Mutex::new(newest) })
    }

    /// Refuses where the log has given up entries that no snapshot holds: a snapshot was lost, or an older one put in
    /// its place.
    pub fn check_covers(&self, purged: Option<u64>) -> io::Result<()> {
        let Some(purged) = purged else { return Ok(()) };
        let newest = self.newest().map(|newest| newest.index);
        if newest.is_some_and(|index| index >= purged) {
            return Ok(());
        }
        let found = newest
            .map_or("there is none".to_owned(), |index| format!("the newest one holds those up to {index}"));
        let text = format!(
            "a snapshot is missing in {}: the log of group {} begins behind entry {purged}, and {found}. Entries that were \
             acknowledged are lost, so this node does not start. Restore the snapshot; or remove the node from the \
             cluster, and let it join again with an empty data directory and a new id",
            self.dir.display(),
            self.group
        );
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    /// Makes a snapshot durable, unless there is a newer one, and returns its body.
    pub fn save(
        &self,
        meta: &SnapshotMeta,
        write_body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<SnapshotFile, SaveError> {
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if *removed {
            return Err(SaveError::Removed);
        }
        let newest = self.newest();
        let (term, index) = meta.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
        let n = newest.map_or(0, |newest| newest.n + 1);
        let name = Name { term, index, n };
        if let Some(newest) = newest
            && (newest.term, newest.index) > (term, index)
        {
            return Ok(open(&newest.path(&self.dir, self.group))?.1);
        }
        let meta = postcard::to_stdvec(meta).map_err(io::Error::other)?;
        let path = name.path(&self.dir, self.group);
        let mut body_bytes = 0;
        let mut too_large = false;
        let created = atomic_file::create(&path, |file| {
            let body_start = HEADER_BYTES + meta.len();
            file.write_all(&[0; HEADER_BYTES])?;
            file.write_all(&meta)?;
            let (body_crc, bytes, written) = {
                let mut body = Body {
                    file: BufWriter::with_capacity(BUFFER_BYTES, &mut *file),
                    crc: crc32fast::Hasher::new(),
                    bytes: 0,
                    max_bytes: self.max_bytes,
                };
                let written = write_body(&mut body);
                let written = written.and_then(|()| body.flush());
                (body.crc.clone(), body.bytes, written)
            };
            too_large = bytes > self.max_bytes;
            written?;
            // Its length is known now, and with it the header.
            let mut header = Vec::with_capacity(body_start);
            header.extend_from_slice(&MAGIC);
            header.extend_from_slice(&FORMAT.to_le_bytes());
            header.extend_from_slice(&u32::try_from(meta.len()).map_err(io::Error::other)?.to_le_bytes());
            header.extend_from_slice(&bytes.to_le_bytes());
            file.write_all_at(&header, 0)?;
            header.extend_from_slice(&meta);
            let mut crc = crc32fast::Hasher::new();
            crc.update(&header);
            crc.combine(&body_crc);
            file.write_all_at(&crc.finalize().to_le_bytes(), body_start as u64 + bytes)?;
            body_bytes = bytes;
            Ok(())
        });
        if too_large {
            return Err(SaveError::TooLarge(self.max_bytes));
        }
        created.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("the snapshot {} cannot be written: {error}", path.display()),
            )
        })?;
        self.set_newest(Some(name));
        self.remove_older_than(name);
        let start = (HEADER_BYTES + meta.len()) as u64;
        Ok(SnapshotFile::new(File::open(path)?, start, body_bytes))
    }

    fn newest(&self) -> Option<Name> {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_newest(&self, newest: Option<Name>) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = newest;
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
    pub fn load(&self) -> io::Result<Option<(SnapshotMeta, SnapshotFile)>> {
        loop {
            let Some(newest) = self.newest() else { return Ok(None) };
            match open(&newest.path(&self.dir, self.group)) {
                // A newer one has replaced it between the two lines above.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.newest() != Some(newest) => {}
                opened => return opened.map(Some),
            }
        }
    }

    /// An empty file to collect a snapshot in that arrives. It has no name, and so is gone when it is closed.
    pub fn incoming(&self) -> io::Result<File> {
        let path = self.dir.join(format!("{}.incoming", self.group));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    /// Removes all snapshots: the group has left this node. One that is still being built is not saved any more.
    pub fn remove_all(&self) -> io::Result<()> {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        *removed = true;
        for name in names(&self.dir, self.group)? {
            fs::remove_file(name.path(&self.dir, self.group))?;
        }
        self.set_newest(None);
        atomic_file::sync_dir(&self.dir)
    }
}

/// Counts and sums what is written, and refuses what is too much.
struct Body<'a> {
    file: BufWriter<&'a mut File>,
    crc: crc32fast::Hasher,
    bytes: u64,
    max_bytes: u64,
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.max_bytes {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.file.write_all(bytes)?;
        self.crc.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
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

fn open(path: &Path) -> io::Result<(SnapshotMeta, SnapshotFile)> {
    let mut file = File::open(path)?;
    let (meta, start, bytes) = check(&mut file)?.map_err(|why| {
        io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot {} {why}", path.display()))
    })?;
    Ok((meta, SnapshotFile::new(file, start, bytes)))
}

/// The meta data, and where the body is; or why the file is no snapshot.
fn check(file: &mut File) -> io::Result<Result<(SnapshotMeta, u64, u64), String>> {
    let damaged = |what: &str| {
        Ok(Err(format!(
            "is damaged: {what}. What it held may be nowhere else on this node, so the node does not start. Remove \
             it from the cluster, and let it join again with an empty data directory and a new id; if most nodes are \
             damaged, see docs/recovery.md"
        )))
    };
    let length = file.metadata()?.len();
    if length < HEADER_BYTES as u64 {
        return damaged("its header is cut off");
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header)?;
    if header[..8] != MAGIC {
        return damaged("it does not begin as one");
    }
    let four = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes are four"));
    // First the format: in another one the lengths may be elsewhere.
    if four(8) != FORMAT {
        let found = four(8);
        return Ok(Err(format!(
            "has format {found}, and this version reads format {FORMAT}: run the version that wrote it"
        )));
    }
    let meta_bytes = u64::from(four(12));
    let body_bytes = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes are eight"));
    let start = HEADER_BYTES as u64 + meta_bytes;
    let crc_at = length.saturating_sub(CRC_BYTES as u64);
    if start.checked_add(body_bytes) != Some(crc_at) {
        return damaged("its length is not what it says");
    }
    let mut meta = vec![0; usize::try_from(meta_bytes).map_err(io::Error::other)?];
    file.read_exact(&mut meta)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header);
    crc.update(&meta);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut body = (&mut *file).take(body_bytes);
    loop {
        match body.read(&mut buffer)? {
            0 => break,
            read => crc.update(&buffer[..read]),
        }
    }
    let mut expected = [0; CRC_BYTES];
    file.read_exact(&mut expected)?;
    if expected != crc.finalize().to_le_bytes() {
        return damaged("its checksum differs");
    }
    match postcard::from_bytes(&meta) {
        Ok(meta) => Ok(Ok((meta, start, body_bytes))),
        Err(error) => damaged(&format!("its meta data makes no sense ({error})")),
    }
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

    fn save(store: &SnapshotStore, meta: &SnapshotMeta, body: &[u8]) {
        store.save(meta, |to| body.chunks(3).try_for_each(|part| to.write_all(part))).unwrap();
    }

    fn load(store: &SnapshotStore) -> Option<(SnapshotMeta, String)> {
        let (meta, file) = store.load().unwrap()?;
        let mut body = String::new();
        file.reader().read_to_string(&mut body).unwrap();
        assert_eq!(body.len() as u64, file.bytes());
        assert_eq!(file.piece(1, 4).unwrap(), body[1..body.len().min(5)]);
        Some((meta, body))
    }

    fn files(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path().join(SNAPSHOTS)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_newest_is_kept_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP, MAX_SNAPSHOT_BYTES).unwrap();
        let other = SnapshotStore::open(dir.path(), GroupId(33), MAX_SNAPSHOT_BYTES).unwrap();
        assert!(store.load().unwrap().is_none());
        save(&other, &meta(1, 1), b"another group's");
        // Not in the order of their names, nor the later one always newer.
        for (term, index) in [(1, 9), (2, 10), (2, 100), (2, 100), (2, 20), (1, 500)] {
            save(&store, &meta(term, index), format!("{term} {index}").as_bytes());
        }
        let expected = Some((meta(2, 100), "2 100".to_owned()));
        assert_eq!(load(&store), expected);
        assert_eq!(load(&SnapshotStore::open(dir.path(), GROUP, MAX_SNAPSHOT_BYTES).unwrap()), expected);
        assert_eq!(load(&other), Some((meta(1, 1), "another group's".to_owned())));
        assert_eq!(files(&dir).len(), 2, "{:?}", files(&dir));
        store.remove_all().unwrap();
        assert!(store.load().unwrap().is_none());
        let late = store.save(&meta(9, 9), |to| to.write_all(b"built when the group left"));
        assert!(matches!(late, Err(SaveError::Removed)), "{late:?}");
        assert_eq!(files(&dir).len(), 1, "those of another group stay: {:?}", files(&dir));
    }

    #[test]
    fn a_snapshot_that_no_node_could_install_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP, 8).unwrap();
        save(&store, &meta(1, 5), b"eight by");
        let larger =
            store.save(&meta(1, 6), |to| b"nine byte".chunks(3).try_for_each(|part| to.write_all(part)));
        assert!(matches!(larger, Err(SaveError::TooLarge(8))), "{larger:?}");
        assert_eq!(load(&store), Some((meta(1, 5), "eight by".to_owned())));
        assert_eq!(files(&dir), ["3-1-5-0.snap"]);
        let failed = store.save(&meta(1, 6), |_| Err(io::Error::other("no state")));
        let failed = failed.expect_err("its error is passed on").to_string();
        let path = dir.path().join("snapshots/3-1-6-1.snap");
        assert_eq!(failed, format!("the snapshot {} cannot be written: no state", path.display()));
        assert_eq!(files(&dir), ["3-1-5-0.snap"], "nothing is left of it");
    }

    #[test]
    fn a_crash_leaves_nothing_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP, MAX_SNAPSHOT_BYTES).unwrap();
        save(&store, &meta(1, 5), b"old");
        let old = fs::read(dir.path().join("snapshots/3-1-5-0.snap")).unwrap();
        // Before the rename.
        fs::write(dir.path().join("snapshots/3-1-8-1.tmp"), &old[..old.len() / 2]).unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP, MAX_SNAPSHOT_BYTES).unwrap();
        assert_eq!(load(&store), Some((meta(1, 5), "old".to_owned())));
        assert_eq!(files(&dir), ["3-1-5-0.snap"], "it took room for good");
        // That of another group may be in the making.
        let of_another = dir.path().join("snapshots/33-1-8-1.tmp");
        fs::write(&of_another, "half").unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP, MAX_SNAPSHOT_BYTES).unwrap();
        fs::remove_file(of_another).expect("it is still there");
        // Behind the rename, before the old one is removed.
        save(&store, &meta(1, 8), b"new");
        fs::write(dir.path().join("snapshots/3-1-5-0.snap"), old).unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP, MAX_SNAPSHOT_BYTES).unwrap();
        assert_eq!(load(&store), Some((meta(1, 8), "new".to_owned())));
        save(&store, &meta(1, 9), b"newer");
        assert_eq!(files(&dir), ["3-1-9-2.snap"]);
        // One that arrives has no name, so that nothing is left of it.
        let incoming = store.incoming().unwrap();
        incoming.write_all_at(b"piece", 0).unwrap();
        assert_eq!(files(&dir), ["3-1-9-2.snap"]);
    }

    #[test]
    fn a_missing_snapshot_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let open = || SnapshotStore::open(dir.path(), GROUP, MAX_SNAPSHOT_BYTES).unwrap();
        open().check_covers(None).expect("the log has everything");
        save(&open(), &meta(2, 100), b"state");
        for purged in [None, Some(0), Some(99), Some(100)] {
            open().check_covers(purged).expect("the snapshot has it");
        }
        let older = open().check_covers(Some(101)).expect_err("entry 101 is nowhere").to_string();
        assert!(
            older.contains("begins behind entry 101, and the newest one holds those up to 100"),
            "{older}"
        );
        fs::remove_dir_all(dir.path().join(SNAPSHOTS)).unwrap();
        let none = open().check_covers(Some(1)).expect_err("it is nowhere").to_string();
        assert!(none.contains(dir.path().to_str().unwrap()) && none.contains("there is none"), "{none}");
    }

    #[test]
    fn a_damaged_newest_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path(), GROUP, MAX_SNAPSHOT_BYTES).unwrap();
        save(&store, &meta(1, 5), b"the state");
        let path = dir.path().join("snapshots/3-1-5-0.snap");
        let whole = fs::read(&path).unwrap();
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            fs::write(&path, damaged).unwrap();
            let error = SnapshotStore::open(dir.path(), GROUP, MAX_SNAPSHOT_BYTES)
                .unwrap()
                .load()
                .expect_err("damage is seen");
            let advice = if (8..12).contains(&byte) { "run the version" } else { "join again" };
            assert!(error.to_string().contains(advice), "byte {byte}: {error}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            store.load().expect_err("a cut is seen");
        }
    }
}
