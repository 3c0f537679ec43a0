//! Reads of the replicated state, and what their answers say of it.
//!
//! An answer that was read from the state carries the revision that the node had applied, and how old
//! that may be: 0 where the leader vouched for it, else how long ago this node last heard of a leader.

use super::{Api, WRITE_DEADLINE};
use crate::{clock, raft::cluster_group::Consistency, state::State};
use axum::{http::HeaderValue, response::Response};
use ringmaster_common::{
    duration::millis,
    error::Refusal,
    id::Revision,
    read::{AGE_HEADER, REVISION_HEADER},
};
use std::{cell::Cell, sync::Arc, time::Duration};

/// How long a node takes at the most to find out when it last heard of a leader.
const AGE_PATIENCE: Duration = Duration::from_millis(100);

/// What the answer to a request was read from.
#[derive(Clone, Copy, Debug)]
struct Source {
    revision: Revision,
    /// Unknown where no leader was ever heard of.
    age: Option<Duration>,
}

tokio::task_local! {
    static SOURCE: Cell<Option<Source>>;
}

impl Api {
    /// A state for a read of a resource: linearizable unless asked for otherwise.
    pub async fn read(&self, consistency: Option<Consistency>) -> Result<Arc<State>, Refusal> {
        let deadline = clock::now() + WRITE_DEADLINE;
        let consistency = consistency.unwrap_or_default();
        let state = self.group.read(consistency, deadline).await?;
        let age = match consistency {
            Consistency::Linearizable | Consistency::Lease => Some(Duration::ZERO),
            Consistency::Stale => {
                tokio::time::timeout(AGE_PATIENCE, self.group.silence_of_leader()).await.ok().flatten()
            }
        };
        // Outside of a request, nobody asks.
        let _ = SOURCE.try_with(|source| source.set(Some(Source { revision: state.revision, age })));
        Ok(state)
    }
}

/// Answers a request, and says what the answer was read from, if anything.
pub async fn marked(answering: impl Future<Output = Response>) -> Response {
    SOURCE
        .scope(Cell::new(None), async {
            let mut response = answering.await;
            if let Some(Source { revision, age }) = SOURCE.with(Cell::get) {
                let headers = response.headers_mut();
                headers.insert(REVISION_HEADER, revision.0.into());
                if let Some(age) = age {
                    headers.insert(AGE_HEADER, HeaderValue::from(millis(age)));
                }
            }
            response
        })
        .await
}
