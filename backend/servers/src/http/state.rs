//! `/v1/state`: the view, as it is or as it was.
//!
//! The past is the fold of the history's events, the same fold that every browser runs. Nothing is kept
//! for it alone, so it is told for as long as the history still goes back to the cluster's creation, and
//! not at all after that: a view that was guessed would be worse than none.

use crate::http::{Api, WRITE_DEADLINE, extract::QueryOf, openapi::problems, problem::Refused};
use axum::{Json, extract::State as Extension};
use ringmaster_cluster::{State, view::view};
use ringmaster_cluster_group::Consistency;
use ringmaster_common::{error::Code, id::Revision, view::ClusterView};
use ringmaster_net::clock;
use serde::Deserialize;
use utoipa::IntoParams;

/// Which view.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StateQuery {
    /// The revision to tell of; the present one where it is left out.
    at: Option<Revision>,
    /// How fresh the answer must be, where no revision is named.
    #[param(inline)]
    consistency: Option<Consistency>,
}

/// The view, now or at a revision
///
/// A revision that is still to come is waited for, for a moment.
#[utoipa::path(
    get, path = "/state", tag = "history", operation_id = "state", params(StateQuery),
    responses((status = 200, description = "The state as every browser holds it", body = ClusterView), StateRefusals)
)]
pub async fn state(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<StateQuery>,
) -> Result<Json<ClusterView>, Refused> {
    let Some(at) = query.at else { return Ok(Json(view(api.read(query.consistency).await?.as_ref()))) };
    api.group.wait_applied(at, clock::now() + WRITE_DEADLINE).await?;
    let state = api.group.state();
    view_at(&state, at).map(Json).ok_or_else(|| {
        Refused::new(
            Code::HistoryGone,
            format!(
                "the view at revision {at} can be told only while the history goes back to the cluster's creation, \
                 and it begins after revision {}; /v1/events tells what happened since",
                state.history.dropped()
            ),
        )
    })
}

problems!(StateRefusals: [READ], HistoryGone);

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
