//! Watches the replicated state and telemetry, and passes changes on to the parts of the node that know neither.

use super::NodeError;
use crate::config::NodeConfig;
use ringmaster_cluster::{routes::Routes, upstreams::Upstreams};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_peer::Peers;
use ringmaster_proxy::Proxy;
use ringmaster_telemetry::Telemetry;
use std::sync::Arc;

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
pub async fn cluster_id(expected: &str, config: &NodeConfig, group: &ClusterGroup) -> Result<(), NodeError> {
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
        if !found.is_empty() || applied.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Returns with an error once the cluster knows this node under other addresses than it has: other nodes could not
/// find it.
pub async fn addresses(config: &NodeConfig, group: &ClusterGroup) -> Result<(), NodeError> {
    let (me, mut applied) = (group.me(), group.published().watch_control());
    loop {
        let state = group.state();
        if let Some(node) = state.membership.get(me) {
            let (api, peer) = (config.api_addr.to_string(), config.peer_addr.to_string());
            if node.api_addr == api && node.peer_addr == peer {
                return std::future::pending().await;
            }
            // The only member cannot be removed, and its data is nowhere else.
            let otherwise = match state.membership.iter().count() {
                1 => "",
                _ => ", or remove it and let it join anew with an empty data directory",
            };
            return Err(NodeError(format!(
                "node {me} was started with the addresses {api} (API) and {peer} (peers), and the cluster knows it at \
                 {} and {}; start it there{otherwise}",
                node.api_addr, node.peer_addr
            )));
        }
        if applied.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
