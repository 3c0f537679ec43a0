//! What answers say of themselves: what they were read from, and under which id a change was asked for.
//!
//! What was read from the replicated state is marked with the revision that the node had applied, and with
//! how old that may be: 0 where the leader vouched for it, else how long ago this node last heard of a leader.

use super::{Api, WRITE_DEADLINE};
use axum::{http::HeaderValue, response::Response};
use ringmaster_cluster::State;
use ringmaster_cluster_group::Consistency;
use ringmaster_common::{duration::millis, error::Refusal, headers, id::Revision};
use ringmaster_net::clock;
use std::{cell::RefCell, sync::Arc, time::Duration};

/// How long a node takes at the most to find out when it last heard of a leader.
const AGE_PATIENCE: Duration = Duration::from_millis(100);

/// What is known of the answer to the request at hand.
#[derive(Debug, Default)]
struct Marks {
    revision: Option<Revision>,
    /// Unknown where no leader was ever heard of.
    age: Option<Duration>,
    request: Option<String>,
}

tokio::task_local! {
    static MARKS: RefCell<Marks>;
}

/// Notes something of the request at hand; outside of one, nobody asks.
fn note(work: impl FnOnce(&mut Marks)) {
    let _ = MARKS.try_with(|marks| work(&mut marks.borrow_mut()));
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
        note(|marks| (marks.revision, marks.age) = (Some(state.revision), age));
        Ok(state)
    }
}

/// The request at hand changes something, under this id.
pub fn changes_under(id: &str) {
    note(|marks| marks.request = Some(id.to_owned()));
}

/// Answers a request, with the marks that it got on the way.
pub async fn marked(answering: impl Future<Output = Response>) -> Response {
    let answering = async {
        let mut response = answering.await;
        let marks = MARKS.with(RefCell::take);
        let values = [
            (headers::REVISION, marks.revision.map(|revision| HeaderValue::from(revision.0))),
            (headers::AGE_MS, marks.age.map(|age| HeaderValue::from(millis(age)))),
            // What a client chose may not fit a header; then it knows it anyway.
            (headers::REQUEST_ID, marks.request.and_then(|id| HeaderValue::from_str(&id).ok())),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                response.headers_mut().insert(name, value);
            }
        }
        response
    };
    MARKS.scope(RefCell::default(), answering).await
}
