//! The Raft groups that this node is a member of, whatever their state machines are.

use crate::{
    types::{TypeConfig, Vote},
    wire::Append,
};
use bytes::Bytes;
use futures::StreamExt;
use openraft::{
    Raft,
    alias::SnapshotOf,
    base::{BoxFuture, BoxStream},
    error::Fatal,
    raft::{
        AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    storage::RaftStateMachine,
};
use ringmaster_common::id::GroupId;
use ringmaster_peer::{Failure, FailureCode};
use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, PoisonError, RwLock},
};

/// What peers may ask of a Raft group. A failure means that Raft has stopped.
pub trait Group: Send + Sync {
    fn append(&self, request: Append) -> BoxFuture<'_, Result<AppendEntriesResponse<TypeConfig>, Failure>>;

    /// Ends with the first error.
    fn stream_append(
        &self,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, Failure>>;

    fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, Failure>>;

    fn pre_vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, Failure>>;

    fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<TransferLeaderResponse<TypeConfig>, Failure>>;

    fn install_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, Bytes>,
    ) -> BoxFuture<'_, Result<SnapshotResponse<TypeConfig>, Failure>>;
}

impl<SM> Group for Raft<TypeConfig, SM>
where
    SM: RaftStateMachine<TypeConfig, SnapshotData = Bytes>,
{
    fn append(&self, request: Append) -> BoxFuture<'_, Result<AppendEntriesResponse<TypeConfig>, Failure>> {
        Box::pin(async move { self.append_entries(request).await.map_err(stopped) })
    }

    fn stream_append(
        &self,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, Failure>> {
        Box::pin(
            Raft::stream_append(self, requests).map(|result: Result<_, Fatal<_>>| result.map_err(stopped)),
        )
    }

    fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, Failure>> {
        Box::pin(async move { Raft::vote(self, request).await.map_err(stopped) })
    }

    fn pre_vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, Failure>> {
        Box::pin(async move { Raft::pre_vote(self, request).await.map_err(stopped) })
    }

    fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> BoxFuture<'_, Result<TransferLeaderResponse<TypeConfig>, Failure>> {
        Box::pin(async move { self.handle_transfer_leader(request).await.map_err(stopped) })
    }

    fn install_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, Bytes>,
    ) -> BoxFuture<'_, Result<SnapshotResponse<TypeConfig>, Failure>> {
        Box::pin(async move { self.install_full_snapshot(vote, snapshot).await.map_err(stopped) })
    }
}

/// By id. Cheap to clone.
#[derive(Clone, Default)]
pub struct Groups {
    groups: Arc<RwLock<BTreeMap<GroupId, Arc<dyn Group>>>>,
}

impl Groups {
    pub fn insert(&self, id: GroupId, group: Arc<dyn Group>) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(id, group);
    }

    pub fn get(&self, id: GroupId) -> Result<Arc<dyn Group>, Failure> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let group = groups.get(&id).map(Arc::clone);
        group.ok_or_else(|| {
            Failure::new(FailureCode::UnknownGroup, format!("this node is no member of group {id}"))
        })
    }
}

fn stopped(error: impl Display) -> Failure {
    Failure::new(FailureCode::Stopped, error.to_string())
}
