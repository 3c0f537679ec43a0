//! Collects snapshots that arrive in pieces, and has them installed.
//!
//! One a group, from any sender: another one that begins takes its place, unless an earlier leader sends it. The pieces
//! go to a file, and outlive the connection, so that the same snapshot continues where it was broken off: on this
//! process, and as long as the leader has made no newer one. A transfer that does not continue is forgotten after
//! [`KEPT_FOR`]. At most [`MAX_TRANSFERS`] are under way: others are refused, and the leader tries again.

use super::{leader_log, stopped};
use crate::{
    registry::Member,
    snapshot_file::SnapshotFile,
    snapshot_store::MAX_SNAPSHOT_BYTES,
    types::{SnapshotMeta, Vote},
    wire::{self, SnapshotMessage},
};
use bytes::Bytes;
use openraft::Snapshot;
use ringmaster_common::id::{GroupId, NodeId};
use ringmaster_net::clock;
use ringmaster_peer::{Answer, Failure, FailureCode, Incoming};
use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, task::spawn_blocking, time::sleep_until};

/// How long a transfer is kept when nothing more comes.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How many snapshots may be arriving, for all groups together.
const MAX_TRANSFERS: usize = 4;

/// The snapshots that are arriving. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Snapshots(Arc<Mutex<HashMap<GroupId, Assembly>>>);

/// A snapshot of which all before `arrived` has arrived.
#[derive(Debug)]
struct Assembly {
    transfer: u64,
    vote: Vote,
    meta: SnapshotMeta,
    bytes: u64,
    file: Arc<File>,
    arrived: u64,
    checksum: crc32fast::Hasher,
    /// When something of it last came.
    heard: Instant,
}

/// The announcement of a sender.
struct Begin {
    transfer: u64,
    vote: Vote,
    meta: SnapshotMeta,
    bytes: u64,
}

impl Snapshots {
    pub fn receive(&self, group: Arc<dyn Member>, request: Incoming) {
        let Incoming { from, group: id, body, answer, .. } = request;
        // Files are written on threads of their own. A sender waits for each answer, so the order is kept.
        let this = self.clone();
        match wire::decode(&body) {
            Err(failure) => answer.fail(&failure),
            Ok(SnapshotMessage::Begin { transfer, vote, meta, bytes }) => {
                let begin = Begin { transfer, vote, meta, bytes };
                let runtime = Handle::current();
                spawn_blocking(move || answer.with(this.begin(from, id, &*group, begin, &runtime)));
            }
            Ok(SnapshotMessage::Piece { transfer, offset, data }) => {
                spawn_blocking(move || answer.with(this.piece(id, transfer, offset, &data)));
            }
            Ok(SnapshotMessage::Finish { transfer, checksum }) => match self.finish(id, transfer, checksum) {
                Ok(assembly) => install(group, id, assembly, answer),
                Err(failure) => answer.fail(&failure),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GroupId, Assembly>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, id: GroupId, transfer: u64) -> Option<Assembly> {
        let mut arriving = self.lock();
        let under_way = arriving.get(&id)?.transfer == transfer;
        if under_way { arriving.remove(&id) } else { None }
    }

    fn begin(
        &self,
        from: NodeId,
        id: GroupId,
        group: &dyn Member,
        begin: Begin,
        runtime: &Handle,
    ) -> Result<Bytes, Failure> {
        let Begin { transfer, vote, meta, bytes } = begin;
        if bytes > MAX_SNAPSHOT_BYTES {
            return Err(malformed(format!("{bytes} bytes are more than {MAX_SNAPSHOT_BYTES}")));
        }
        let empty = group.replica().snapshots().incoming().map_err(|error| unwritten(&error))?;
        let mut arriving = self.lock();
        let mut begun = Assembly {
            transfer,
            vote,
            meta,
            bytes,
            file: Arc::new(empty),
            arrived: 0,
            checksum: crc32fast::Hasher::new(),
            heard: clock::now(),
        };
        match arriving.remove(&id) {
            Some(later) if later.vote > begun.vote => {
                arriving.insert(id, later);
                return Err(malformed("a later leader is sending one"));
            }
            Some(same) if (&same.meta, same.bytes) == (&begun.meta, bytes) => {
                begun.file = same.file;
                begun.arrived = same.arrived;
                begun.checksum = same.checksum;
            }
            Some(_) => {}
            None if arriving.len() >= MAX_TRANSFERS => {
                return Err(Failure::new(FailureCode::Busy, "other snapshots are arriving"));
            }
            None => {}
        }
        let there = begun.arrived;
        tracing::info!(group = %id, %from, bytes, there, meta = %begun.meta, "a snapshot arrives");
        runtime.spawn(self.clone().forget(id, transfer));
        arriving.insert(id, begun);
        wire::reply(&there)
    }

    /// Drops a transfer, once nothing more of it comes.
    async fn forget(self, id: GroupId, transfer: u64) {
        let heard =
            || self.lock().get(&id).filter(|arriving| arriving.transfer == transfer).map(|it| it.heard);
        while let Some(heard) = heard() {
            let until = heard + KEPT_FOR;
            if clock::now() >= until {
                self.take(id, transfer);
            }
            sleep_until(until.into()).await;
        }
    }

    fn piece(&self, id: GroupId, transfer: u64, offset: u64, data: &[u8]) -> Result<Bytes, Failure> {
        let mut arriving = self.lock();
        let assembly = arriving.get_mut(&id).filter(|assembly| assembly.transfer == transfer);
        let assembly = assembly.ok_or_else(|| malformed("a piece of no transfer that is under way"))?;
        let end = assembly.arrived;
        if offset != end || end + data.len() as u64 > assembly.bytes {
            let detail = format!(
                "a piece of {} bytes at {offset}, where {end} of {} have arrived",
                data.len(),
                assembly.bytes
            );
            arriving.remove(&id);
            return Err(malformed(detail));
        }
        let file = Arc::clone(&assembly.file);
        drop(arriving);
        // Other groups do not wait for this write.
        file.write_all_at(data, offset).map_err(|error| unwritten(&error))?;
        let mut arriving = self.lock();
        let assembly = arriving.get_mut(&id).filter(|now| now.transfer == transfer && now.arrived == offset);
        let assembly = assembly.ok_or_else(|| malformed("a piece of no transfer that is under way"))?;
        assembly.heard = clock::now();
        assembly.checksum.update(data);
        assembly.arrived += data.len() as u64;
        wire::reply(&())
    }

    fn finish(&self, id: GroupId, transfer: u64, checksum: u32) -> Result<Assembly, Failure> {
        let assembly = self.take(id, transfer);
        let assembly = assembly.ok_or_else(|| malformed("the end of no transfer that is under way"))?;
        let (arrived, sum) = (assembly.arrived, assembly.checksum.clone().finalize());
        if arrived != assembly.bytes || sum != checksum {
            return Err(malformed(format!(
                "{arrived} bytes with checksum {sum:08x} have arrived, not {} with {checksum:08x}",
                assembly.bytes
            )));
        }
        Ok(assembly)
    }
}

/// Installing may take long: not on the task that reads the connection.
fn install(group: Arc<dyn Member>, id: GroupId, assembly: Assembly, answer: Answer) {
    let Assembly { vote, meta, file, bytes, .. } = assembly;
    tokio::spawn(async move {
        if let Err(failure) = leader_log::check_snapshot(group.replica(), &vote, meta.last_log_id).await {
            answer.fail(&failure);
            return;
        }
        let snapshot = Snapshot { meta, snapshot: SnapshotFile::new(file, 0, bytes) };
        let installed = group.replica().raft().install_full_snapshot(vote, snapshot).await.map_err(stopped);
        tracing::info!(group = %id, ok = installed.is_ok(), "a snapshot was given to Raft");
        answer.with(installed.and_then(|response| wire::reply(&response)));
    });
}

/// The sender tries again later.
fn unwritten(error: &io::Error) -> Failure {
    Failure::new(FailureCode::Unavailable, format!("the snapshot cannot be written: {error}"))
}

fn malformed(detail: impl Into<String>) -> Failure {
    Failure::new(FailureCode::Malformed, detail)
}
