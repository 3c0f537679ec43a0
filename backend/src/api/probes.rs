//! `/livez` and `/readyz`, for supervisors and load balancers.

use crate::api::{Api, problem::Refused};
use axum::extract::State as Extension;
use ringmaster_common::error::Code;

/// The process serves.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// The node is a member, knows a leader, and has applied what that leader had committed.
pub async fn readyz(Extension(api): Extension<Api>) -> Result<&'static str, Refused> {
    let status = api.group.status();
    let state = api.group.state();
    let not = |detail: String| Err(Refused::new(Code::NotReady, detail));
    if let Some(why) = status.failed {
        return not(format!("consensus has stopped on this node: {why}"));
    }
    if state.membership.get(api.group.me()).is_none() {
        return not("this node is not a member yet".to_owned());
    }
    if status.leader.is_none() {
        return not("this node knows no leader".to_owned());
    }
    if status.applied_index < status.committed_index {
        return not(format!(
            "this node has applied {} of {} committed entries",
            status.applied_index, status.committed_index
        ));
    }
    Ok("ok\n")
}
