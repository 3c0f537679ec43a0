//! Puts snapshots together that arrive in pieces, and has them installed.
//!
//! One a group and connection: who begins another has given up the last. What is got so far is
//! forgotten when the connection ends.

use super::group::Group;
use crate::{
    peer::{Answer, Failure, FailureCode, Incoming},
    raft::{
        types::{SnapshotMeta, Vote},
        wire::{self, MAX_SNAPSHOT_BYTES, SnapshotMessage},
    },
};
use bytes::{Bytes, BytesMut};
use openraft::Snapshot;
use ringmaster_common::id::{GroupId, NodeId};
use std::{collections::HashMap, sync::Arc};

/// What one connection is sending.
pub struct Snapshots {
    from: NodeId,
    assemblies: HashMap<GroupId, Assembly>,
}

/// A snapshot of which all before `data`'s end has arrived.
#[derive(Debug)]
struct Assembly {
    transfer: u64,
    vote: Vote,
    meta: SnapshotMeta,
    bytes: u64,
    data: BytesMut,
    checksum: crc32fast::Hasher,
}

impl Snapshots {
    pub fn new(from: NodeId) -> Snapshots {
        Snapshots { from, assemblies: HashMap::new() }
    }

    pub fn receive(&mut self, group: Arc<dyn Group>, request: Incoming) {
        let Incoming { group: id, body, answer, .. } = request;
        match wire::decode(&body) {
            Err(failure) => answer.fail(&failure),
            Ok(SnapshotMessage::Begin { transfer, vote, meta, bytes }) => {
                answer.with(self.begin(id, transfer, vote, meta, bytes));
            }
            Ok(SnapshotMessage::Piece { transfer, offset, data }) => {
                answer.with(self.piece(id, transfer, offset, &data));
            }
            Ok(SnapshotMessage::Finish { transfer, checksum }) => match self.finish(id, transfer, checksum) {
                Ok(assembly) => install(group, id, assembly, answer),
                Err(failure) => answer.fail(&failure),
            },
            Ok(SnapshotMessage::Abandon { transfer }) => {
                self.take(id, transfer);
            }
        }
    }

    fn take(&mut self, id: GroupId, transfer: u64) -> Option<Assembly> {
        let under_way = self.assemblies.get(&id)?.transfer == transfer;
        if under_way { self.assemblies.remove(&id) } else { None }
    }

    fn begin(
        &mut self,
        id: GroupId,
        transfer: u64,
        vote: Vote,
        meta: SnapshotMeta,
        bytes: u64,
    ) -> Result<Bytes, Failure> {
        if bytes > MAX_SNAPSHOT_BYTES {
            return Err(malformed(format!("{bytes} bytes are more than {MAX_SNAPSHOT_BYTES}")));
        }
        tracing::info!(group = %id, from = %self.from, bytes, %meta, "a snapshot arrives");
        // Room is made as pieces arrive: what is announced is not yet believed.
        let (data, checksum) = (BytesMut::new(), crc32fast::Hasher::new());
        self.assemblies.insert(id, Assembly { transfer, vote, meta, bytes, data, checksum });
        wire::reply(&())
    }

    fn piece(&mut self, id: GroupId, transfer: u64, offset: u64, data: &[u8]) -> Result<Bytes, Failure> {
        let assembly = self.assemblies.get_mut(&id).filter(|assembly| assembly.transfer == transfer);
        let assembly = assembly.ok_or_else(|| malformed("a piece of no transfer that is under way"))?;
        let end = assembly.data.len() as u64;
        if offset != end || end + data.len() as u64 > assembly.bytes {
            let detail = format!(
                "a piece of {} bytes at {offset}, where {end} of {} have arrived",
                data.len(),
                assembly.bytes
            );
            self.assemblies.remove(&id);
            return Err(malformed(detail));
        }
        assembly.checksum.update(data);
        assembly.data.extend_from_slice(data);
        wire::reply(&())
    }

    fn finish(&mut self, id: GroupId, transfer: u64, checksum: u32) -> Result<Assembly, Failure> {
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
fn install(group: Arc<dyn Group>, id: GroupId, assembly: Assembly, answer: Answer) {
    let Assembly { vote, meta, data, .. } = assembly;
    tokio::spawn(async move {
        let snapshot = Snapshot { meta, snapshot: data.freeze() };
        let installed = group.install_snapshot(vote, snapshot).await;
        tracing::info!(group = %id, ok = installed.is_ok(), "a snapshot was given to Raft");
        answer.with(installed.and_then(|response| wire::reply(&response)));
    });
}

fn malformed(detail: impl Into<String>) -> Failure {
    Failure::new(FailureCode::Malformed, detail)
}
