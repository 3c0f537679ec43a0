//! `/v1/state`: the view, as it is or as it was.

use crate::http::{
    Api,
    extract::{Caller, QueryOf},
    openapi::problems,
    problem::ApiError,
    response_metadata as metadata,
};
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use ringmaster_common::{
    id::Revision,
    view::{ClusterView, StateDigest},
};
use ringmaster_services::{cluster_group::Consistency, history};
use serde::Deserialize;
use utoipa::IntoParams;

/// Which view.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StateQuery {
    /// The view at this revision; the present one where it is left out.
    at: Option<Revision>,
    /// How fresh the answer must be, where no revision is named.
    #[param(inline)]
    consistency: Option<Consistency>,
}

/// The view, now or at a revision
///
/// A revision that is still to come is awaited for a moment.
#[utoipa::path(
    get, path = "/v1/state", tag = "history", operation_id = "state", params(StateQuery),
    responses((status = 200, description = "The state as every browser holds it", body = ClusterView), StateRefusals)
)]
pub async fn state(
    State(api): State<Api>,
    caller: Caller,
    QueryOf(query): QueryOf<StateQuery>,
) -> Result<Response, ApiError> {
    let request = caller.read(query.consistency);
    Ok(match query.at {
        Some(at) => Json(history::state_at(&api.services, request, at).await?).into_response(),
        None => metadata::read(history::state(&api.services, request).await?),
    })
}

problems!(StateRefusals: [READ], HistoryGone);

/// Which digest.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DigestQuery {
    /// Wait until the node has applied this revision.
    at: Option<Revision>,
}

/// A digest of this node's whole state
///
/// Two nodes that have applied the same revision have the same digest, whatever versions they run. It is computed from
/// the whole state each time: it is for tests and for checks by hand.
#[utoipa::path(
    get, path = "/v1/state/digest", tag = "history", operation_id = "state_digest", params(DigestQuery),
    responses((status = 200, description = "The digest, and the revision that it is of", body = StateDigest), DigestRefusals)
)]
pub async fn digest(
    State(api): State<Api>,
    caller: Caller,
    QueryOf(query): QueryOf<DigestQuery>,
) -> Result<Json<StateDigest>, ApiError> {
    let deadline = caller.read(None).deadline;
    Ok(Json(history::digest(&api.services, query.at, deadline).await?))
}

problems!(DigestRefusals: [READ]);
