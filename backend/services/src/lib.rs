//! Use cases: one function for each request that a client can make.
//!
//! A door (HTTP, later others) parses a request, calls one function of this crate and prints the result. Each
//! function takes typed input and a [`ReadRequest`] or a [`WriteRequest`]: the [`Principal`], a deadline and, for a
//! write, the id of the request. It answers with [`Read`] or [`Written`], which carry the metadata of the response
//! beside its value, or with a [`ServiceError`].
//!
//! What always holds: a write answers with the resource that this write stored, and a repeat under the same id gets
//! the same answer. A function validates its input before it takes anything to the leader, and returns by the
//! deadline of its request.
//!
//! Deliberately absent: HTTP, encodings, status codes and pages of text. Authentication is absent, too: every
//! principal is the anonymous operator.

pub mod admission;
pub mod draining;
mod error;
pub mod history;
pub mod live;
pub mod locks;
pub mod operations;
pub mod overview;
pub mod page;
pub mod plans;
pub mod readiness;
pub mod registrations;
mod request;
pub mod settings;
pub mod traffic;

pub use error::{ReadAt, ServiceError};
pub use request::{ClientKind, Principal, Read, ReadRequest, Stored, WriteRequest, Written};
// The cluster group, under the name by which all doors use it.
pub use ringmaster_cluster_group as cluster_group;

use admission::Admission;
use cluster_group::{ClusterGroup, Consistency};
use ringmaster_cluster::{
    State,
    command::{Command, Outcome},
};
use ringmaster_proxy::Proxy;
use ringmaster_telemetry::Telemetry;
use std::{fmt, sync::Arc, time::Duration};

/// How long a node takes at most to find out how long ago it heard of a leader.
const AGE_TIMEOUT: Duration = Duration::from_millis(100);

/// The parts of the node that the services work with.
pub struct Services {
    pub group: ClusterGroup,
    pub telemetry: Arc<Telemetry>,
    pub proxy: Proxy,
    pub admission: Arc<Admission>,
    /// Whether this node belongs to a demo, where clients may kill nodes.
    pub is_demo: bool,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Services {
    /// The replicated state, as fresh as the request asks for.
    async fn read(&self, request: ReadRequest) -> Result<Read<Arc<State>>, ServiceError> {
        let state = self.group.read(request.consistency, request.deadline).await?;
        let age = match request.consistency {
            Consistency::Linearizable | Consistency::Lease => Some(Duration::ZERO),
            Consistency::Stale => {
                tokio::time::timeout(AGE_TIMEOUT, self.group.silence_of_leader()).await.ok().flatten()
            }
        };
        let at = ReadAt { revision: state.revision, age };
        Ok(Read { value: state, at })
    }

    /// Has the leader order `command`. Every error that this returns carries the id of the request.
    async fn write(&self, request: WriteRequest, command: Command) -> Result<Written<Outcome>, ServiceError> {
        let deadline = request.deadline;
        let (request_id, asked) = request.into_command_request();
        match self.group.propose(asked, command, deadline).await {
            Ok(response) => {
                Ok(Written { value: response.outcome, revision: Some(response.revision), request_id })
            }
            Err(refusal) => Err(ServiceError::of_write(refusal, request_id)),
        }
    }
}
