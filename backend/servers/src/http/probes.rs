//! `/livez` and `/readyz`, for supervisors and load balancers.
//!
//! A node is live if its process answers: a restart would help nothing. It is ready if a request that is sent to it
//! is worth sending.

use crate::http::{Api, openapi::problems, problem::ApiError};
use axum::extract::State;
use ringmaster_common::error::{Code, Problem, Refusal};
use ringmaster_services::readiness;

/// Whether the process serves
#[utoipa::path(
    get, path = "/livez", tag = "node", operation_id = "livez",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain"), LivezRefusals)
)]
pub async fn livez() -> &'static str {
    "ok\n"
}

problems!(LivezRefusals: []);

/// Whether a request sent here is worth sending
///
/// The node is a member, a leader that has a quorum answers it, and it has applied all that the leader had committed
/// when it was asked.
#[utoipa::path(
    get, path = "/readyz", tag = "node", operation_id = "readyz",
    responses((status = 200, description = "It is", body = String, content_type = "text/plain"), ReadyzRefusals)
)]
pub async fn readyz(State(api): State<Api>) -> Result<&'static str, ApiError> {
    let reasons = readiness::reasons_against(&api.services).await;
    if reasons.is_empty() {
        return Ok("ok\n");
    }
    let detail = format!("node {} {}", api.services.group.me(), reasons.join("; it "));
    let problem = Problem { reasons, ..Refusal::new(Code::NotReady, detail).into() };
    Err(problem.into())
}

problems!(ReadyzRefusals: [], NotReady);
