//! Raises the cluster's feature level once every member can do more.

use crate::{PROPOSAL_DEADLINE, request};
use ringmaster_cluster::version::FEATURE_LEVEL;
use ringmaster_cluster::{State, command::Command};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_net::clock;
use ringmaster_peer::Peers;
use std::time::Duration;

/// How often the leader looks even if no link came or went.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub async fn run(group: ClusterGroup, peers: Peers) {
    let mut links = peers.changes();
    loop {
        let term = group.until_leading().await;
        let state = group.state();
        if let Some(level) = attainable(&state, &peers).filter(|level| *level > state.feature_level) {
            raise(&group, term, level).await;
        }
        // A listener that was too slow has missed changes, and looks now.
        let _ = tokio::time::timeout(LOOK_EVERY, links.recv()).await;
    }
}

/// What all members can do; none while one of them cannot be asked.
fn attainable(state: &State, peers: &Peers) -> Option<u32> {
    let links = peers.links();
    let me = peers.local().node_id;
    state
        .membership
        .iter()
        .map(|node| match node.id {
            id if id == me => Some(FEATURE_LEVEL),
            id => links.iter().find(|link| link.peer == id && link.connected)?.feature_level,
        })
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .min()
}

async fn raise(group: &ClusterGroup, term: u64, level: u32) {
    let propose = async |command| {
        group.propose_in(term, request(group.me()), command, clock::now() + PROPOSAL_DEADLINE).await
    };
    match propose(Command::RaiseFeatureLevel { level }).await {
        Ok(_) => {
            tracing::info!(level, "the cluster's feature level was raised");
            // What only the new version understands may be written from now on.
            #[cfg(feature = "next-version")]
            if let Err(refusal) = propose(Command::Novelty).await {
                tracing::warn!(%refusal, "the novelty was not written");
            }
        }
        Err(refusal) => tracing::debug!(%refusal, "the feature level was not raised; the leader tries again"),
    }
}
