//! openraft's state machine over the pure core: entries in, responses out, and each state published.
//!
//! Readers, streams and controllers see the state through [`Published`]. It is replaced after each
//! batch of entries and before their responses are sent, so whoever has an answer can read what it
//! did. Taking the state costs a reference count, and never holds up `apply`.

use crate::{
    snapshot_store::SnapshotStore,
    types::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig},
    waiting_room::WaitingRoom,
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    entry::RaftEntry,
    storage::{EntryResponder, RaftStateMachine, Snapshot},
};
use ringmaster_cluster as state;
use ringmaster_cluster::version::{self, Formats};
use ringmaster_cluster::{Body, Effect, State, command::Record};
use ringmaster_common::id::{NodeId, Revision};
use ringmaster_net::clock;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, io, sync::Arc, time::Instant};
use tokio::sync::watch;

/// How many entries are applied before the state is published, at the most.
const PUBLISH_EVERY: usize = 256;

/// The latest state, for everybody who reads.
#[derive(Debug, Default)]
pub struct Published {
    state: ArcSwap<State>,
    applied: watch::Sender<Applied>,
    control: watch::Sender<Applied>,
    waiting: WaitingRoom,
}

/// How far the state has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub revision: Revision,
    /// The term of the last applied entry.
    pub term: u64,
    /// When it was, by this node's monotonic clock; none before anything was.
    pub at: Option<Instant>,
}

impl Published {
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    pub fn applied(&self) -> Applied {
        *self.applied.borrow()
    }

    /// Where those wait who are told of a lock.
    pub fn waiting(&self) -> &WaitingRoom {
        &self.waiting
    }

    /// Tells whenever more was applied.
    pub fn watch(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// Tells when more was applied than what clients write at a high rate, which no controller follows.
    pub fn watch_control(&self) -> watch::Receiver<Applied> {
        self.control.subscribe()
    }
}

/// The state machine of the cluster group.
#[derive(Debug)]
pub struct StateMachine {
    state: State,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    published: Arc<Published>,
    snapshots: Arc<SnapshotStore>,
}

#[derive(Serialize, Deserialize)]
struct SnapshotBody<S> {
    format: u16,
    state: S,
}

impl SnapshotBody<State> {
    fn decode(bytes: &[u8]) -> io::Result<State> {
        // First the format: the fields of a newer one may be others.
        let format = version::format_of(bytes).map_err(io::Error::other)?;
        version::check_format(format, Formats::NEWEST.snapshot).map_err(|unknown| {
            io::Error::other(format!("the snapshot has {unknown}; run the version that the other nodes run"))
        })?;
        let SnapshotBody { state, .. } = rmp_serde::from_slice(bytes).map_err(io::Error::other)?;
        Ok(state)
    }
}

impl StateMachine {
    /// Starts from the latest snapshot, or from nothing. The log brings the rest.
    pub fn open(snapshots: Arc<SnapshotStore>) -> io::Result<(Self, Arc<Published>)> {
        let published = Arc::<Published>::default();
        let mut machine = StateMachine {
            state: State::default(),
            last_applied: None,
            membership: StoredMembership::default(),
            published: published.clone(),
            snapshots,
        };
        if let Some((meta, body)) = machine.snapshots.load()? {
            machine.restore(&meta, &body)?;
        }
        Ok((machine, published))
    }

    fn restore(&mut self, meta: &SnapshotMeta, body: &[u8]) -> io::Result<()> {
        let state = SnapshotBody::decode(body)?;
        version::check(state.feature_level)?;
        self.state = state;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish(true);
        Ok(())
    }

    fn publish(&self, control: bool) {
        self.published.state.store(Arc::new(self.state.clone()));
        let term = self.last_applied.map_or(0, |id| id.leader_id.term);
        let applied = Applied { revision: self.state.revision, term, at: Some(clock::now()) };
        self.published.applied.send_replace(applied);
        if control {
            self.published.control.send_replace(applied);
        }
    }

    fn apply_one(&mut self, entry: Entry) -> io::Result<Effect> {
        let log_id = entry.log_id();
        self.last_applied = Some(log_id);
        let body = match entry.payload {
            EntryPayload::Blank => Body::Blank,
            EntryPayload::Normal(payload) => {
                // What cannot be decoded must not be skipped: this node's state would be another.
                let record = Record::decode(&payload.0).map_err(|error| {
                    io::Error::other(format!(
                        "log entry {} cannot be applied by this version: {error}; run the version that the \
                         other nodes run",
                        log_id.index
                    ))
                })?;
                tracing::debug!(request = record.request.id, revision = log_id.index, "applying");
                Body::Command(Box::new(record))
            }
            EntryPayload::Membership(membership) => {
                let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
                let learners = membership.learner_ids().collect();
                self.membership = StoredMembership::new(Some(log_id), membership);
                Body::Membership { voters, learners }
            }
        };
        let effect = self.state.apply(state::Entry { index: log_id.index, body });
        version::check(self.state.feature_level)?;
        Ok(effect)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
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
            let mut notices = Vec::new();
            let mut control = false;
            for item in batch {
                let (entry, responder) = item?;
                let effect = self.apply_one(entry)?;
                notices.extend(effect.notices);
                control |= effect.concerns_controllers;
                if let Some(responder) = responder {
                    answers.push((responder, effect.response.encode()));
                }
            }
            self.publish(control);
            self.published.waiting.tell(notices);
            for (responder, answer) in answers {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            state: self.state.clone(),
            meta: SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() },
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, body: Bytes) -> Result<(), io::Error> {
        self.restore(meta, &body)?;
        // What was skipped may have been news for some of them.
        self.published.waiting.look_again();
        let (snapshots, meta) = (self.snapshots.clone(), meta.clone());
        blocking(move || snapshots.save(&meta, &body)).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<StoredSnapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        let latest = blocking(move || snapshots.load()).await?;
        Ok(latest.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

type StoredSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Bytes>;

/// Writes one state to disk, beside `apply`.
#[derive(Debug)]
pub struct SnapshotBuilder {
    state: State,
    meta: SnapshotMeta,
    snapshots: Arc<SnapshotStore>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<StoredSnapshot, io::Error> {
        let (state, meta, snapshots) = (self.state.clone(), self.meta.clone(), self.snapshots.clone());
        blocking(move || {
            let format = Formats::at(state.feature_level).snapshot;
            let body = SnapshotBody { format, state: &state };
            let body = Bytes::from(rmp_serde::to_vec_named(&body).map_err(io::Error::other)?);
            snapshots.save(&meta, &body)?;
            Ok(Snapshot { meta, snapshot: body })
        })
        .await
    }
}

/// Encoding and disk writes, away from the threads that serve.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::id::GroupId;

    #[test]
    fn a_snapshot_of_a_newer_format_is_told_from_damage() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Arc::new(SnapshotStore::open(dir.path(), GroupId::CLUSTER).unwrap());
        let (mut machine, published) = StateMachine::open(snapshots).unwrap();
        let encode = |format| {
            // As a later version might write it: the state has become a list.
            rmp_serde::to_vec_named(&SnapshotBody { format, state: ["shard"] }).unwrap()
        };
        let newest = Formats::NEWEST.snapshot;
        let newer = newest + 1;
        let error = machine.restore(&SnapshotMeta::default(), &encode(newer)).expect_err("it cannot be read");
        assert_eq!(
            error.to_string(),
            format!(
                "the snapshot has format {newer}, and this version reads up to {newest}; run the version \
                 that the other nodes run"
            )
        );
        let error = machine.restore(&SnapshotMeta::default(), &encode(newest)).expect_err("no state");
        assert!(!error.to_string().contains("run the version"), "{error}");
        assert_eq!(published.applied(), Applied::default(), "nothing was published");
    }
}
