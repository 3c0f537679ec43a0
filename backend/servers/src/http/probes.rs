//! `/livez` and `/readyz`, for supervisors and load balancers.
//!
//! Alive means that the process answers; to restart it would help nobody. Ready means that a request
//! sent here is worth sending: the node is a member, a leader that has a quorum answers it, and it has
//! applied what that leader had committed when it was asked. So a node that is cut off, or comes back
//! and catches up, says so before a client notices.

use crate::http::{Api, openapi::problems, problem::Refused};
use axum::extract::State as Extension;
use ringmaster_cluster_group::Consistency;
use ringmaster_common::error::{Code, Problem, Refusal};
use ringmaster_net::clock;
use std::time::Duration;

/// How long a node that is asked waits for the leader, and then to have caught up with it. It is
/// shorter than the patience of usual probes, a second, so that they read the reasons.
const READY_PATIENCE: Duration = Duration::from_millis(700);

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
/// The node is a member, a leader that has a quorum answers it, and it has applied what that leader had committed
/// when it was asked.
#[utoipa::path(
    get, path = "/readyz", tag = "node", operation_id = "readyz",
    responses((status = 200, description = "It is", body = String, content_type = "text/plain"), ReadyzRefusals)
)]
pub async fn readyz(Extension(api): Extension<Api>) -> Result<&'static str, Refused> {
    let reasons = unready(&api).await;
    if reasons.is_empty() {
        return Ok("ok\n");
    }
    let refusal = Refusal::new(Code::NotReady, format!("node {} {}", api.group.me(), reasons.join("; it ")));
    Err(Refused(Box::new(Problem { reasons, ..refusal.into() })))
}

problems!(ReadyzRefusals: [], NotReady);

/// What keeps the node from being ready, each with the node as its subject.
async fn unready(api: &Api) -> Vec<String> {
    let status = api.group.status();
    let mut reasons = Vec::new();
    if let Some(why) = status.failed {
        // Nothing that consensus says is worth asking for any more.
        return vec![format!("takes no part any more, because its consensus has stopped: {why}")];
    }
    if api.group.state().membership.get(api.group.me()).is_none() {
        reasons.push("is not a member of the cluster yet".to_owned());
    }
    let leader = match status.leader {
        Some(leader) if api.telemetry.hears(leader) => leader,
        Some(leader) => {
            reasons.push(format!("hears no leader: node {leader}, which led last, is silent"));
            return reasons;
        }
        None => {
            reasons.push("hears no leader".to_owned());
            return reasons;
        }
    };
    let asked = api.group.read(Consistency::Linearizable, clock::now() + READY_PATIENCE).await;
    match asked {
        Ok(_) => {}
        Err(Refusal { code: Code::NotReady, .. }) => {
            let applied = api.group.state().revision;
            reasons.push(format!(
                "has applied revision {applied}, and not all that node {leader} had committed when it was asked"
            ));
        }
        Err(_) => reasons.push(format!(
            "takes node {leader} for the leader, which did not confirm that a quorum follows it within {} ms",
            READY_PATIENCE.as_millis()
        )),
    }
    reasons
}
