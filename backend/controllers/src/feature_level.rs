//! Raises the cluster's feature level once every member supports a higher one.

use crate::{
    IDLE_INTERVAL,
    reconcile::{self, Controller, Leadership, NextLook},
};
use ringmaster_cluster::{State, command::Command, version::FEATURE_LEVEL};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::id::NodeId;
use ringmaster_peer::Peers;

pub async fn run(group: ClusterGroup, peers: Peers) {
    let changes = peers.changes();
    reconcile::run(group, changes, FeatureLevel { peers }).await;
}

struct FeatureLevel {
    peers: Peers,
}

impl Controller for FeatureLevel {
    async fn reconcile(&mut self, leadership: &Leadership) -> NextLook {
        let (state, me) = (leadership.state(), self.peers.local().node_id);
        let links = self.peers.links();
        let level_of = |id: NodeId| match id {
            id if id == me => Some(FEATURE_LEVEL),
            id => links.iter().find(|link| link.peer == id && link.connected)?.feature_level,
        };
        if let Some(level) = common_level(&state, level_of).filter(|level| *level > state.feature_level) {
            raise(leadership, level).await;
        }
        NextLook::within(IDLE_INTERVAL)
    }
}

/// The level that all members support; none while that of one is unknown.
fn common_level(state: &State, level_of: impl Fn(NodeId) -> Option<u32>) -> Option<u32> {
    let levels: Option<Vec<_>> = state.membership.iter().map(|node| level_of(node.id)).collect();
    levels?.into_iter().min()
}

async fn raise(leadership: &Leadership, level: u32) {
    match leadership.propose(Command::raise_feature_level(level)).await {
        Ok(_) => {
            tracing::info!(level, "the cluster's feature level was raised");
            // From now on a field may be written that only the new version understands.
            #[cfg(feature = "next-version")]
            if level >= FEATURE_LEVEL {
                let again = Command::RaiseFeatureLevel { level, by_version: Some(FEATURE_LEVEL) };
                if let Err(refusal) = leadership.propose(again).await {
                    tracing::warn!(%refusal, "the new field was not written");
                }
            }
        }
        Err(refusal) => tracing::debug!(%refusal, "the feature level was not raised; the leader tries again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure_detector::tests::state_of;
    use ringmaster_common::cluster::NodeStatus::Up;

    #[test]
    fn the_lowest_level_of_all_members_is_common_once_all_are_known() {
        let state = state_of([(1, Up), (2, Up), (3, Up)]);
        let level =
            |of_three| common_level(&state, move |id| if id == NodeId(3) { of_three } else { Some(9) });
        assert_eq!(level(Some(7)), Some(7));
        assert_eq!(level(Some(11)), Some(9));
        assert_eq!(level(None), None);
    }
}
