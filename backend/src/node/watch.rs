//! Watches the replicated state and telemetry, and passes changes on to the parts of the node that know neither.

use super::NodeError;
use crate::config::NodeConfig;
use ringmaster_cluster::{command::NodeAddresses, routes::Routes, upstreams::Upstreams};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::id::{Incarnation, NodeId};
use ringmaster_net::clock;
use ringmaster_peer::Peers;
use ringmaster_proxy::Proxy;
use ringmaster_storage::data_dir::{Addresses, DataDir, DataDirError, Identity};
use ringmaster_telemetry::Telemetry;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// After so much silence, a node that was superseded has no leader; more where elections take longer.
const LEADER_SILENCE: Duration = Duration::from_secs(2);
/// How often it looks whether it has one.
const LEADER_INTERVAL: Duration = Duration::from_millis(100);
/// The pause before a node proposes its new addresses again.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(200);

/// Keeps links to all members.
pub async fn members(group: ClusterGroup, peers: Peers) {
    let mut applied = group.published().watch_control();
    let mut linked = Vec::new();
    loop {
        let members = group.members();
        if members != linked {
            peers.set_members(&members);
            linked = members;
        }
        peers.set_departed(&group.state().membership.departed);
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Gives the proxy the routing table of the cluster, and reports which one it has applied.
pub async fn routing_table(group: ClusterGroup, proxy: Proxy, telemetry: Arc<Telemetry>) {
    let mut applied = group.published().watch_control();
    let mut last = None::<(Upstreams, Routes)>;
    loop {
        let state = group.state();
        let is_same = |(upstreams, routes): &(Upstreams, Routes)| {
            state.upstreams.is_same_as(upstreams) && state.routes.is_same_as(routes)
        };
        // Before a node has applied anything, its proxy has the table that was saved, and knows more.
        if !state.id.is_empty() {
            let differs = !last.as_ref().is_some_and(is_same);
            if differs {
                proxy.set_table(state.upstreams.iter(), state.routes.iter());
                last = Some((state.upstreams.clone(), state.routes.clone()));
            }
            telemetry.set_applied_table(state.revision, differs);
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Gives the proxy the heartbeats of endpoints that other nodes have received.
pub async fn heartbeats(telemetry: Arc<Telemetry>, proxy: Proxy) {
    let mut reports = telemetry.watch();
    while reports.changed().await.is_ok() {
        for (age, heartbeats) in telemetry.received_heartbeats() {
            proxy.merge_heartbeats(&heartbeats, age);
        }
    }
}

/// Returns with an error once the state is that of another cluster than the identity says: its snapshots or its journal
/// were copied into this directory.
pub async fn cluster_id(
    (expected, incarnation): (&str, Incarnation),
    config: &NodeConfig,
    group: &ClusterGroup,
) -> Result<(), NodeError> {
    let mut applied = group.published().watch_control();
    loop {
        let found = group.state().id.clone();
        if !found.is_empty() && found != expected {
            return Err(NodeError(format!(
                "the data in {dir} is that of cluster {found}, and {dir}/identity.json says cluster {expected}: restore \
                 the one or the other; or remove this node from the cluster, and let it join again with an empty data \
                 directory and a new id",
                dir = config.data_dir.display(),
            )));
        }
        let of = group.state().incarnation;
        if !found.is_empty() && of != incarnation {
            return Err(NodeError(format!(
                "the data in {dir} is that of incarnation {of} of the cluster, and {dir}/identity.json says incarnation \
                 {incarnation}: the cluster was recovered between the two. Restore the one or the other (docs/recovery.md)",
                dir = config.data_dir.display(),
            )));
        }
        if !found.is_empty() || applied.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Returns once a peer says that the cluster was recovered from a lost quorum without this node, and this node has no
/// leader: those that were taken for lost must not form a quorum again, and elect none meanwhile. With a leader it was no
/// lost quorum, and a recovery by mistake must not stop it.
pub async fn superseded(peers: &Peers, group: &ClusterGroup) -> (NodeId, String) {
    let began = clock::now();
    let limit = LEADER_SILENCE.max(peers.local().election_timeout_max * 2);
    let mut is_logged = false;
    loop {
        let (peer, why) = peers.superseded().await;
        let refused_at = clock::now();
        while !hears_leader(group, began, limit).await {
            group.remembered().abstain(true);
            if clock::now().saturating_duration_since(refused_at) >= limit {
                return (peer, why);
            }
            tokio::time::sleep(LEADER_INTERVAL).await;
        }
        group.remembered().abstain(false);
        if !is_logged {
            tracing::error!(%peer, "{why}; this node has a leader, so one of the two must be stopped");
            is_logged = true;
        }
        peers.forget_superseded();
        tokio::time::sleep(LEADER_INTERVAL).await;
    }
}

/// Whether a leader was heard lately. What was before `began` does not count: a node that has
/// just started merely remembers a leader.
async fn hears_leader(group: &ClusterGroup, began: Instant, limit: Duration) -> bool {
    let Some(silence) = group.silence_of_leader().await else { return false };
    silence < limit && silence < clock::now().saturating_duration_since(began)
}

/// Returns with an error once the cluster knows this node under other addresses than it has, unless it was moved: other
/// nodes could not find it. The addresses of a node that was moved are proposed until the cluster knows them.
pub async fn addresses(
    config: &NodeConfig,
    data_dir: &DataDir,
    group: &ClusterGroup,
) -> Result<(), NodeError> {
    let (me, mut applied) = (group.me(), group.published().watch_control());
    let here = NodeAddresses {
        api_addr: config.api_addr.to_string(),
        peer_addr: config.peer_addr.to_string(),
        public_url: config.public_url.clone(),
    };
    loop {
        let state = group.state();
        if let Some(node) = state.membership.get(me) {
            let is_moved = config.moved.contains_key(&me);
            let is_same = node.api_addr == here.api_addr && node.peer_addr == here.peer_addr;
            if is_same && !(is_moved && node.public_url != here.public_url) {
                break;
            }
            if !is_moved {
                return Err(NodeError(format!(
                    "node {me} was started with the addresses {} (API) and {} (peers), and the cluster knows it at {} and \
                     {}; start it there, or pass --member {me}={} if it was moved, and name every other node that was moved \
                     in the same way (docs/recovery.md)",
                    here.api_addr, here.peer_addr, node.api_addr, node.peer_addr, here.peer_addr
                )));
            }
            if let Err(refusal) = group.announce_addresses(here.clone()).await {
                tracing::info!(%refusal, "the cluster does not know this node's new addresses yet; trying again");
                tokio::time::sleep(ANNOUNCE_INTERVAL).await;
            }
            continue;
        }
        if applied.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
    remember_addresses(config, data_dir)?;
    std::future::pending().await
}

/// A later start needs no flags.
fn remember_addresses(config: &NodeConfig, data_dir: &DataDir) -> Result<(), NodeError> {
    let failed = |error: DataDirError| NodeError(error.to_string());
    let Some(identity) = data_dir.identity().map_err(failed)? else { return Ok(()) };
    let addresses = Addresses {
        api_addr: config.api_addr,
        peer_addr: config.peer_addr,
        public_url: config.public_url.clone(),
    };
    if identity.addresses == addresses {
        return Ok(());
    }
    data_dir.write_identity(&Identity { addresses, ..identity }).map_err(failed)
}
