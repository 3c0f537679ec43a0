//! Readiness: whether a request that is sent to this node is worth sending.
//!
//! A node is ready when it is a member, a leader with a quorum answers it, and it has applied all that the leader
//! had committed when it was asked. So a node that is cut off, or that comes back and catches up, says so before a
//! client notices.

use crate::{Services, cluster_group::Consistency};
use ringmaster_common::error::{Code, Refusal};
use ringmaster_net::clock;
use std::time::Duration;

/// How long a probe waits for the leader and then for this node to catch up with it. Probes usually wait for a
/// second: they should read the reasons.
const TIMEOUT: Duration = Duration::from_millis(700);

/// The reasons why this node is not ready, each with the node as its subject. None where it is ready.
pub async fn reasons_against(services: &Services) -> Vec<String> {
    let group = &services.group;
    let status = group.status();
    let mut reasons = Vec::new();
    if let Some(why) = status.failed {
        // Nothing else that Raft reports means anything any more.
        return vec![format!("takes no part any more, because its consensus has stopped: {why}")];
    }
    if group.state().membership.get(group.me()).is_none() {
        reasons.push("is not a member of the cluster yet".to_owned());
    }
    let leader = match status.leader {
        Some(leader) if services.telemetry.is_reachable(leader) => leader,
        Some(leader) => {
            reasons.push(format!("hears no leader: node {leader}, which led last, is silent"));
            return reasons;
        }
        None => {
            reasons.push("hears no leader".to_owned());
            return reasons;
        }
    };
    match group.read(Consistency::Linearizable, clock::now() + TIMEOUT).await {
        Ok(_) => {}
        Err(Refusal { code: Code::NotReady, .. }) => {
            let applied = group.state().revision;
            reasons.push(format!(
                "has applied revision {applied}, and not all that node {leader} had committed when it was asked"
            ));
        }
        Err(_) => reasons.push(format!(
            "takes node {leader} for the leader, which did not confirm that a quorum follows it within {} ms",
            TIMEOUT.as_millis()
        )),
    }
    // The leader's answer may have brought it to light.
    if let Some(through) = group.lost_through() {
        reasons.push(format!(
            "has lost log entries that it had acknowledged, through {through}, and does not have them again yet: its data \
             directory is an older copy, or a part of it is gone"
        ));
    }
    reasons
}
