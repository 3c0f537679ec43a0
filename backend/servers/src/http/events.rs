//! `/v1/events` and `/v1/audit`: the history, as the answering node has applied it.

use crate::http::{
    Api,
    extract::{Caller, PageQuery, QueryOf},
    openapi::problems,
    problem::ApiError,
    response_metadata as metadata,
};
use axum::{Json, extract::State, response::Response};
use ringmaster_common::{
    event::{AuditEntry, EventBatch},
    id::Revision,
    page::Page,
};
use ringmaster_services::history::{self, EventsFrom};
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
    #[param(min_length = 1)]
    cursor: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Order {
    #[default]
    Asc,
    Desc,
}

/// The events, as the answering node has applied them
#[utoipa::path(
    get, path = "/v1/events", tag = "history", operation_id = "events", params(EventsQuery),
    responses((status = 200, description = "One item for each revision that made events", body = Page<EventBatch>), EventsRefusals)
)]
pub async fn events(
    State(api): State<Api>,
    QueryOf(query): QueryOf<EventsQuery>,
) -> Result<Json<Page<Arc<EventBatch>>>, ApiError> {
    let paging = PageQuery { limit: query.limit, cursor: query.cursor, consistency: None };
    let cursor = paging.cursor::<Revision>()?;
    let from = match query.order {
        Order::Desc => EventsFrom::Before(cursor.unwrap_or(Revision(u64::MAX))),
        Order::Asc => EventsFrom::After(cursor.or(query.after)),
    };
    Ok(Json(history::events(&api.services, from, paging.limit()?)?))
}

problems!(EventsRefusals: [], InvalidRequest, HistoryGone);

/// The requests of operators, and their outcomes
#[utoipa::path(
    get, path = "/v1/audit", tag = "history", operation_id = "audit", params(PageQuery),
    responses((status = 200, description = "The latest first", body = Page<AuditEntry>), AuditRefusals)
)]
pub async fn audit(
    State(api): State<Api>,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Response, ApiError> {
    let (request, paging) = (caller.read(query.consistency), query.paging(u64::MAX)?);
    Ok(metadata::read(history::audit(&api.services, request, paging).await?))
}

problems!(AuditRefusals: [READ]);
