//! The Raft groups that this node is a member of, whatever their applications are.

use crate::replica::Replica;
use bytes::Bytes;
use futures::future::BoxFuture;
use ringmaster_common::id::GroupId;
use ringmaster_peer::{Failure, FailureCode};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// A group, as peers reach it.
pub trait Member: Send + Sync + 'static {
    fn replica(&self) -> &Replica;

    /// Answers a call that another node forwards to the leader. It is not forwarded again.
    fn handle_forwarded(&self, body: Bytes) -> BoxFuture<'static, Bytes>;
}

/// By id. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    groups: Arc<RwLock<BTreeMap<GroupId, Arc<dyn Member>>>>,
}

impl Registry {
    pub fn insert(&self, id: GroupId, group: Arc<dyn Member>) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(id, group);
    }

    /// From now on the requests of peers for this group are refused.
    pub fn remove(&self, id: GroupId) -> Option<Arc<dyn Member>> {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    pub fn get(&self, id: GroupId) -> Result<Arc<dyn Member>, Failure> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let group = groups.get(&id).map(Arc::clone);
        group.ok_or_else(|| {
            Failure::new(FailureCode::UnknownGroup, format!("this node is not a member of group {id}"))
        })
    }

    pub fn count(&self) -> usize {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}
