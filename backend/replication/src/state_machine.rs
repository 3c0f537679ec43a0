//! openraft's state machine: committed entries go to the application, and its state to readers and snapshots.
//!
//! Snapshots are encoded, written, read and decoded on threads of their own; only the exchange of the state runs on
//! the consensus thread.

use crate::{
    application::{Body, Entry as ApplicationEntry},
    log_store::LogStore,
    machine::{Machine, WriteSnapshot},
    snapshot_file::SnapshotFile,
    snapshot_store::{SaveError, SnapshotStore},
    types::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, Raft, RaftSnapshotBuilder,
    entry::RaftEntry,
    storage::{EntryResponder, RaftStateMachine, Snapshot},
    type_config::alias::SnapshotOf,
};
use ringmaster_common::id::Revision;
use std::{fmt, io, sync::Arc};
use tokio::sync::Semaphore;

/// How many entries are applied before the state is published, at the most.
const PUBLISH_EVERY: usize = 256;

/// openraft, for all groups of all applications.
pub type RaftHandle = Raft<TypeConfig, StateMachine>;

/// The state machine of one group.
#[derive(Debug)]
pub struct StateMachine {
    machine: Box<dyn Machine>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Arc<SnapshotStore>,
    log: LogStore,
    builds: Arc<Semaphore>,
}

impl StateMachine {
    /// Starts from the latest snapshot, or from the beginning. The log brings the rest. `builds` limits how many
    /// snapshots are built at a time.
    pub async fn open(
        machine: Box<dyn Machine>,
        snapshots: Arc<SnapshotStore>,
        log: LogStore,
        builds: Arc<Semaphore>,
    ) -> io::Result<Self> {
        let mut opened = StateMachine {
            machine,
            last_applied: None,
            membership: StoredMembership::default(),
            snapshots: snapshots.clone(),
            log,
            builds,
        };
        if let Some((meta, body)) = blocking(move || snapshots.load()).await? {
            opened.restore(&meta, &body).await?;
        }
        Ok(opened)
    }

    async fn restore(&mut self, meta: &SnapshotMeta, body: &SnapshotFile) -> io::Result<()> {
        let (read, body) = (self.machine.read_snapshot(), body.clone());
        let state = blocking(move || read(&mut body.reader())).await?;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let (revision, term) = self.applied();
        self.machine.replace(state, revision, term);
        Ok(())
    }

    /// How far the state has come.
    fn applied(&self) -> (Revision, u64) {
        self.last_applied.map_or((Revision(0), 0), |id| (Revision(id.index), id.leader_id.term))
    }

    fn apply_one(&mut self, entry: Entry, answer: bool) -> io::Result<Bytes> {
        let log_id = entry.log_id();
        self.last_applied = Some(log_id);
        let body = match &entry.payload {
            EntryPayload::Blank => Body::Blank,
            EntryPayload::Normal(payload) => Body::Command(&payload.0),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership.clone());
                Body::Membership {
                    voters: membership.voter_ids().collect(),
                    learners: membership.learner_ids().collect(),
                }
            }
        };
        self.machine.apply(ApplicationEntry { index: log_id.index, body }, answer)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(PUBLISH_EVERY);
        while let Some(batch) = batches.next().await {
            let mut answers = Vec::with_capacity(batch.len());
            for item in batch {
                let (entry, responder) = item?;
                let outcome = self.apply_one(entry, responder.is_some())?;
                answers.extend(responder.map(|responder| (responder, outcome)));
            }
            let (revision, term) = self.applied();
            self.machine.publish(revision, term);
            for (responder, outcome) in answers {
                responder.send(outcome);
            }
            self.log.release(revision.0);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            write: self.machine.snapshot(),
            meta: SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() },
            snapshots: self.snapshots.clone(),
            builds: self.builds.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, body: SnapshotFile) -> Result<(), io::Error> {
        self.restore(meta, &body).await?;
        let (snapshots, meta) = (self.snapshots.clone(), meta.clone());
        let copy = move || {
            snapshots.save(&meta, |to| io::copy(&mut body.reader(), to).map(drop)).map_err(io::Error::other)
        };
        blocking(copy).await.map(drop)
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotFile>>, io::Error> {
        let snapshots = self.snapshots.clone();
        let latest = blocking(move || snapshots.load()).await?;
        Ok(latest.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Writes one state to disk, beside `apply`.
pub struct SnapshotBuilder {
    write: WriteSnapshot,
    meta: SnapshotMeta,
    snapshots: Arc<SnapshotStore>,
    builds: Arc<Semaphore>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotFile>, io::Error> {
        let (write, meta, snapshots) = (self.write.clone(), self.meta.clone(), self.snapshots.clone());
        let turn = self.builds.clone().acquire_owned().await.map_err(io::Error::other)?;
        blocking(move || {
            let _turn = turn;
            match snapshots.save(&meta, &*write) {
                Ok(snapshot) => Ok(Snapshot { meta, snapshot }),
                Err(SaveError::TooLarge(bytes)) => too_large(&snapshots, bytes),
                Err(SaveError::Io(error)) => Err(error),
                Err(error @ SaveError::Removed) => Err(io::Error::other(error)),
            }
        })
        .await
    }
}

/// The node keeps the log instead, and the snapshot that it has: openraft takes an older one for none.
fn too_large(snapshots: &SnapshotStore, bytes: u64) -> io::Result<SnapshotOf<TypeConfig, SnapshotFile>> {
    let error = SaveError::TooLarge(bytes);
    tracing::error!(%error, "no snapshot was taken, and the log grows: remove some of the state");
    match snapshots.load()? {
        Some((meta, snapshot)) => Ok(Snapshot { meta, snapshot }),
        None => {
            let nothing = SnapshotFile::new(snapshots.incoming()?, 0, 0);
            Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: nothing })
        }
    }
}

impl fmt::Debug for SnapshotBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotBuilder").field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// Encoding and disk access, away from the threads that serve.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
