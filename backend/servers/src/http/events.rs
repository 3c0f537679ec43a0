//! `/v1/events` and `/v1/audit`: what happened, as the answering node has applied it.

use crate::http::{
    Api,
    extract::{PageQuery, QueryOf, page},
    openapi::problems,
    problem::Refused,
};
use axum::{Json, extract::State as Extension};
use ringmaster_cluster::history::HISTORY_REVISIONS;
use ringmaster_common::{
    error::Code,
    event::{AuditEntry, EventBatch},
    id::Revision,
    page::Page,
};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Oldest first, from behind this revision.
    after: Option<Revision>,
    /// `asc` (from `after`, the default) or `desc` (from the newest).
    #[serde(default)]
    #[param(inline)]
    order: Order,
    /// How many items the page may have.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Where the page begins: `next` of the page before it.
    cursor: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Order {
    #[default]
    Asc,
    Desc,
}

/// What happened, as the answering node has applied it
#[utoipa::path(
    get, path = "/events", tag = "history", operation_id = "events", params(EventsQuery),
    responses((status = 200, description = "One item for each revision that made events", body = Page<EventBatch>), EventsRefusals)
)]
pub async fn events(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<EventsQuery>,
) -> Result<Json<Page<Arc<EventBatch>>>, Refused> {
    let paging = PageQuery { limit: query.limit, cursor: query.cursor, consistency: None };
    let limit = paging.limit()?;
    let state = api.group.state();
    let cursor = |batch: &Arc<EventBatch>| batch.revision.to_string();
    if query.order == Order::Desc {
        let before = paging.cursor(Revision(u64::MAX))?;
        return Ok(Json(page(state.history.before(before).cloned(), limit, cursor)));
    }
    let after = paging.cursor(query.after.unwrap_or_default())?;
    // Whoever names no revision wants what there is.
    let oldest = state.history.dropped();
    let after = if query.after.is_none() && paging.cursor.is_none() { oldest } else { after };
    match state.history.after(after) {
        Some(rest) => Ok(Json(page(rest.cloned(), limit, cursor))),
        None => Err(Refused::new(
            Code::HistoryGone,
            format!(
                "the history holds the last {HISTORY_REVISIONS} revisions with events and begins after revision \
                 {oldest}; ask for those, or read the view"
            ),
        )),
    }
}

problems!(EventsRefusals: [], InvalidRequest, HistoryGone);

/// Who asked for what, and what came of it
#[utoipa::path(
    get, path = "/audit", tag = "history", operation_id = "audit", params(PageQuery),
    responses((status = 200, description = "The latest first", body = Page<AuditEntry>), AuditRefusals)
)]
pub async fn audit(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<Arc<AuditEntry>>>, Refused> {
    let (limit, before) = (query.limit()?, query.cursor(u64::MAX)?);
    let state = api.read(query.consistency).await?;
    Ok(Json(page(state.audit.before(before).cloned(), limit, |entry| entry.number.to_string())))
}

problems!(AuditRefusals: [READ]);
