//! Creates a cluster: the first node starts the Raft group, and writes the first command.
//!
//! A first node that was stopped halfway continues where it was. It listens before it starts the group: if it was a
//! member of a cluster and has lost its disk, the other members dial it, and the node ends instead of taking writes
//! that they would never see.

use ringmaster_cluster::{
    command::{Actor, Command, Request},
    version::FEATURE_LEVEL,
};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::action::NewNode;
use ringmaster_net::clock;
use ringmaster_peer::MAX_REDIAL_DELAY;
use ringmaster_storage::data_dir::Identity;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long the node listens for members that know it: they dial again within [`MAX_REDIAL_DELAY`].
const LISTEN_BEFORE_BOOTSTRAP: Duration = Duration::from_millis(600);
const _: () = assert!(LISTEN_BEFORE_BOOTSTRAP.as_millis() > MAX_REDIAL_DELAY.as_millis());
/// How long the first command may take before it is tried again.
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the node looks whether it leads.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub async fn create_cluster(group: ClusterGroup, name: String, identity: Identity, first: NewNode) {
    sleep(LISTEN_BEFORE_BOOTSTRAP).await;
    if let Err(reason) = group.bootstrap(&first.peer_addr).await {
        tracing::error!(reason, "the cluster cannot be created");
        return;
    }
    let mut applied = group.published().watch_control();
    while group.state().id.is_empty() {
        if group.leading().is_some() {
            let command = Command::CreateCluster {
                name: name.clone(),
                id: identity.cluster_id.clone(),
                incarnation: identity.incarnation,
                feature_level: FEATURE_LEVEL,
                first: first.clone(),
            };
            let request = Request {
                id: format!("create-{}", identity.cluster_id),
                actor: Actor::Node(identity.node_id),
                repeatable: false,
                fingerprint: None,
                resent_after: None,
            };
            if let Err(refusal) = group.propose(request, command, clock::now() + CREATE_TIMEOUT).await {
                tracing::warn!(%refusal, "the cluster is not created yet; trying again");
            }
        }
        // A leader begins with an entry that it applies.
        let _ = timeout(POLL_INTERVAL, applied.changed()).await;
    }
}
