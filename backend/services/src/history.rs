//! History: events, the audit, and the view as it was at a revision.
//!
//! A past view is the fold of the events of the history, the same fold that every browser runs. Nothing is kept for
//! it alone: it is available while the history goes back to the creation of the cluster, and not after that, because
//! a guessed view would be worse than none.

use crate::{
    Read, ReadRequest, ServiceError, Services,
    page::{Paging, page},
};
use ringmaster_cluster::{State, view::view};
use ringmaster_common::{
    error::{Code, Refusal},
    event::{AuditEntry, EventBatch},
    id::Revision,
    page::Page,
    view::{ClusterView, StateDigest},
};
use std::{sync::Arc, time::Instant};

/// Which events, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventsFrom {
    /// The oldest first, from behind a revision; none: from the oldest that is kept.
    After(Option<Revision>),
    /// The newest first, from before a revision.
    Before(Revision),
}

/// One item for each revision that made events, as this node has applied them.
pub fn events(services: &Services, from: EventsFrom, limit: usize) -> Result<Page<Arc<EventBatch>>, Refusal> {
    let state = services.group.state();
    let history = &state.history;
    let cursor = |batch: &Arc<EventBatch>| batch.revision.to_string();
    let oldest = history.dropped();
    let after = match from {
        EventsFrom::Before(before) => return Ok(page(history.before(before).cloned(), limit, cursor)),
        EventsFrom::After(after) => after.unwrap_or(oldest),
    };
    match history.after(after) {
        Some(rest) => Ok(page(rest.cloned(), limit, cursor)),
        None => Err(Refusal::new(
            Code::HistoryGone,
            format!(
                "the history holds the last {} revisions with events and begins after revision {oldest}; ask for \
                 those, or read the view",
                state.limits().history_revisions
            ),
        )),
    }
}

/// The requests of operators and their outcomes, the latest first.
pub async fn audit(
    services: &Services,
    request: ReadRequest,
    paging: Paging<u64>,
) -> Result<Read<Page<Arc<AuditEntry>>>, ServiceError> {
    services
        .list(request, |state| {
            let earlier = state.audit.before(paging.after).cloned();
            Ok(page(earlier, paging.limit, |entry| entry.number.to_string()))
        })
        .await
}

/// The view as it is now.
pub async fn state(services: &Services, request: ReadRequest) -> Result<Read<ClusterView>, ServiceError> {
    Ok(services.read(request).await?.map(|state| view(&state)))
}

/// The view at a revision. A revision that is still to come is awaited until the deadline.
pub async fn state_at(
    services: &Services,
    request: ReadRequest,
    at: Revision,
) -> Result<ClusterView, Refusal> {
    services.group.wait_applied(at, request.deadline).await?;
    let state = services.group.state();
    view_at(&state, at).ok_or_else(|| {
        Refusal::new(
            Code::HistoryGone,
            format!(
                "the view at revision {at} is available only while the history goes back to the creation of the \
                 cluster, and it begins after revision {}; /v1/events lists the events since",
                state.history.dropped()
            ),
        )
    })
}

/// A digest of this node's whole state, once it has applied a revision.
pub async fn digest(
    services: &Services,
    at: Option<Revision>,
    deadline: Instant,
) -> Result<StateDigest, Refusal> {
    services.group.wait_applied(at.unwrap_or_default(), deadline).await?;
    let state = services.group.state();
    let revision = state.revision;
    // Encoding the whole state takes a while where there is much.
    let digest = tokio::task::spawn_blocking(move || state.digest())
        .await
        .map_err(|_| Refusal::new(Code::Internal, "the digest was not computed"))?;
    Ok(StateDigest { revision, digest })
}

fn view_at(state: &State, at: Revision) -> Option<ClusterView> {
    if at >= state.history.last_revision() {
        return Some(view(state));
    }
    let mut past = ClusterView::default();
    for batch in state.history.after(Revision(0))?.take_while(|batch| batch.revision <= at) {
        past.fold(batch);
    }
    Some(past)
}
