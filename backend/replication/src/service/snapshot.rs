//! Puts snapshots together that arrive in pieces, and has them installed.
//!
//! One a group, whoever sends it: another one that begins takes its place, unless an earlier leader sends it. What has
//! arrived outlives the connection, so that the same snapshot goes on where it was broken off: on this process, and
//! as long as the leader has made no newer one. What is not gone on with is forgotten after [`KEPT_FOR`].

use super::stopped;
use crate::{
    registry::Member,
    types::{SnapshotMeta, Vote},
    wire::{self, MAX_SNAPSHOT_BYTES, SnapshotMessage},
};
use bytes::{Bytes, BytesMut};
use openraft::Snapshot;
use ringmaster_common::id::{GroupId, NodeId};
use ringmaster_net::clock;
use ringmaster_peer::{Answer, Failure, FailureCode, Incoming};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::sleep_until;

/// How long what has arrived is kept when nothing more comes.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// What is arriving. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Snapshots(Arc<Mutex<HashMap<GroupId, Assembly>>>);

/// A snapshot of which all before `data`'s end has arrived.
#[derive(Debug)]
struct Assembly {
    transfer: u64,
    vote: Vote,
    meta: SnapshotMeta,
    bytes: u64,
    data: BytesMut,
    checksum: crc32fast::Hasher,
    /// When something of it last came.
    heard: Instant,
}

impl Assembly {
    /// Room is made as pieces arrive: what is announced is not yet believed.
    fn new(transfer: u64, vote: Vote, meta: SnapshotMeta, bytes: u64) -> Assembly {
        let (data, checksum) = (BytesMut::new(), crc32fast::Hasher::new());
        Assembly { transfer, vote, meta, bytes, data, checksum, heard: clock::now() }
    }
}

impl Snapshots {
    pub fn receive(&self, group: Arc<dyn Member>, request: Incoming) {
        let Incoming { from, group: id, body, answer, .. } = request;
        match wire::decode(&body) {
            Err(failure) => answer.fail(&failure),
            Ok(SnapshotMessage::Begin { transfer, vote, meta, bytes }) => {
                answer.with(self.begin(from, id, Assembly::new(transfer, vote, meta, bytes)));
            }
            Ok(SnapshotMessage::Piece { transfer, offset, data }) => {
                answer.with(self.piece(id, transfer, offset, &data));
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

    fn begin(&self, from: NodeId, id: GroupId, mut begun: Assembly) -> Result<Bytes, Failure> {
        let Assembly { bytes, meta, .. } = &begun;
        if *bytes > MAX_SNAPSHOT_BYTES {
            return Err(malformed(format!("{bytes} bytes are more than {MAX_SNAPSHOT_BYTES}")));
        }
        let mut arriving = self.lock();
        match arriving.remove(&id) {
            Some(later) if later.vote > begun.vote => {
                arriving.insert(id, later);
                return Err(malformed("a later leader is sending one"));
            }
            Some(same) if (&same.meta, same.bytes) == (meta, *bytes) => {
                begun.data = same.data;
                begun.checksum = same.checksum;
            }
            Some(_) | None => {}
        }
        let there = begun.data.len() as u64;
        tracing::info!(group = %id, %from, bytes = begun.bytes, there, meta = %begun.meta, "a snapshot arrives");
        tokio::spawn(self.clone().forget(id, begun.transfer));
        arriving.insert(id, begun);
        wire::reply(&there)
    }

    /// Drops what has arrived, once nothing more of it comes.
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
        let end = assembly.data.len() as u64;
        if offset != end || end + data.len() as u64 > assembly.bytes {
            let detail = format!(
                "a piece of {} bytes at {offset}, where {end} of {} have arrived",
                data.len(),
                assembly.bytes
            );
            arriving.remove(&id);
            return Err(malformed(detail));
        }
        assembly.heard = clock::now();
        assembly.checksum.update(data);
        assembly.data.extend_from_slice(data);
        wire::reply(&())
    }

    fn finish(&self, id: GroupId, transfer: u64, checksum: u32) -> Result<Assembly, Failure> {
        let assembly = self.take(id, transfer);
        let assembly = assembly.ok_or_else(|| malformed("the end of no transfer that is under way"))?;
        let (arrived, sum) = (assembly.data.len() as u64, assembly.checksum.clone().finalize());
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
    let Assembly { vote, meta, data, .. } = assembly;
    tokio::spawn(async move {
        let snapshot = Snapshot { meta, snapshot: data.freeze() };
        let installed = group.raft().install_full_snapshot(vote, snapshot).await.map_err(stopped);
        tracing::info!(group = %id, ok = installed.is_ok(), "a snapshot was given to Raft");
        answer.with(installed.and_then(|response| wire::reply(&response)));
    });
}

fn malformed(detail: impl Into<String>) -> Failure {
    Failure::new(FailureCode::Malformed, detail)
}
