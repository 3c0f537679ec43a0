//! Snapshots of one group, on disk.
//!
//! The newest one is kept. It is written whole under another name and renamed, so a crash leaves the
//! old one or the new one. One that is damaged is not passed over: the log behind it is purged, and
//! the state before it is nowhere.
//!
//! ```text
//! offset  size  field
//!      0     6  magic
//!      6     2  format
//!      8     4  CRC-32 of all that follows
//!     12     4  length of the meta data
//!     16     …  meta data, in postcard
//!      …     …  body
//! ```

use crate::{data_dir::write_atomically, raft::types::SnapshotMeta};
use bytes::Bytes;
use ringmaster_common::id::GroupId;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

const MAGIC: [u8; 6] = *b"RMsnap";
const FORMAT: u16 = 1;
const HEADER_BYTES: usize = 16;

/// The snapshots of one group.
#[derive(Debug)]
pub struct SnapshotStore {
    path: PathBuf,
    /// One is built while another may be installed; they are saved one at a time.
    saving: Mutex<()>,
}

impl SnapshotStore {
    pub fn open(dir: &Path, group: GroupId) -> io::Result<Self> {
        let folder = dir.join("snapshots");
        fs::create_dir_all(&folder)?;
        fs::File::open(dir)?.sync_all()?;
        Ok(SnapshotStore { path: folder.join(format!("group-{group}.snap")), saving: Mutex::new(()) })
    }

    /// Makes a snapshot durable, unless a newer one is.
    pub fn save(&self, meta: &SnapshotMeta, body: &[u8]) -> io::Result<()> {
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, _)) = self.load()?
            && held.last_log_id > meta.last_log_id
        {
            return Ok(());
        }
        let meta = postcard::to_stdvec(meta).map_err(io::Error::other)?;
        let length = u32::try_from(meta.len()).map_err(io::Error::other)?.to_le_bytes();
        let mut crc = crc32fast::Hasher::new();
        for part in [&length[..], &meta, body] {
            crc.update(part);
        }
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&crc.finalize().to_le_bytes());
        header.extend_from_slice(&length);
        write_atomically(&self.path, &[&header, &meta, body])
    }

    /// The newest snapshot, checked.
    pub fn load(&self) -> io::Result<Option<(SnapshotMeta, Bytes)>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        self.parse(&bytes).map(Some).map_err(|why| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the snapshot {} {why}. What was acknowledged may be lost here, so this node does not start. \
                     Remove it from the cluster, and let it join again with an empty data directory and a new id",
                    self.path.display()
                ),
            )
        })
    }

    fn parse(&self, bytes: &Bytes) -> Result<(SnapshotMeta, Bytes), String> {
        let header = bytes.get(..HEADER_BYTES).ok_or("is cut off")?;
        if header[..6] != MAGIC {
            return Err("is no snapshot".to_owned());
        }
        let format = u16::from_le_bytes([header[6], header[7]]);
        if format != FORMAT {
            return Err(format!("has format {format}, and this version reads format {FORMAT}"));
        }
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        if crc32fast::hash(&bytes[12..]) != word(8) {
            return Err("is damaged: its checksum differs".to_owned());
        }
        let body_at = HEADER_BYTES + word(12) as usize;
        let meta = bytes.get(HEADER_BYTES..body_at).ok_or("is damaged: its meta data is cut off")?;
        let meta =
            postcard::from_bytes(meta).map_err(|error| format!("has unreadable meta data: {error}"))?;
        Ok((meta, bytes.slice(body_at..)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_there_again_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path(), GroupId(0)).unwrap();
        assert!(store.load().unwrap().is_none());
        let meta = SnapshotMeta::default();
        store.save(&meta, b"the state").unwrap();
        let store = SnapshotStore::open(dir.path(), GroupId(0)).unwrap();
        assert_eq!(store.load().unwrap(), Some((meta, Bytes::from("the state"))));

        let whole = fs::read(&store.path).unwrap();
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            fs::write(&store.path, &damaged).unwrap();
            let error = store.load().expect_err("damage is seen");
            assert!(error.to_string().contains("join again"), "byte {byte}: {error}");
        }
        for length in 0..whole.len() {
            fs::write(&store.path, &whole[..length]).unwrap();
            store.load().expect_err("a cut is seen");
        }
    }
}
