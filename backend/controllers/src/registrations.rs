//! Ends registrations that were not renewed in time.

use crate::{PROPOSAL_DEADLINE, REST, request};
use ringmaster_cluster::{command::Command, traffic::TrafficCommand};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_net::clock;
use std::time::Duration;

/// How often the leader looks where somebody is registered; so much later may an end come.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub async fn run(group: ClusterGroup) {
    let mut applied = group.published().watch_control();
    loop {
        let term = group.until_leading().await;
        for ended in group.ended_registrations(term) {
            let command = TrafficCommand::Deregister {
                reason: format!("it did not renew its registration within {} ms", ended.ttl_ms),
                upstream: ended.upstream,
                endpoint: ended.endpoint,
                only: Some(ended.revision),
            };
            let (command, deadline) = (Command::Traffic(Box::new(command)), clock::now() + PROPOSAL_DEADLINE);
            if let Err(refusal) = group.propose_in(term, request(group.me()), command, deadline).await {
                tracing::debug!(%refusal, "the end of a registration was not recorded; the leader looks again");
            }
        }
        let any = group.state().upstreams.registrations().next().is_some();
        if any {
            tokio::time::sleep(LOOK_EVERY).await;
        } else if let Ok(Err(_)) = tokio::time::timeout(REST, applied.changed()).await {
            return;
        }
    }
}
