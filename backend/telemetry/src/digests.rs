//! Computes the digest of this node's state at each checkpoint.

use crate::{checkpoint::Checkpoint, store::Telemetry};
use ringmaster_cluster::version::FEATURE_LEVEL;
use ringmaster_cluster_group::ClusterGroup;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Runs for as long as the node does.
pub async fn run(telemetry: Arc<Telemetry>, group: ClusterGroup) {
    let mut checkpoints = group.watch_checkpoints();
    let version = format!("{} at level {FEATURE_LEVEL}", env!("CARGO_PKG_VERSION"));
    while checkpoints.changed().await.is_ok() {
        let Some(state) = group.take_checkpoint() else { continue };
        let revision = state.revision;
        // It encodes the whole state.
        if let Ok(digest) = spawn_blocking(move || state.digest()).await {
            telemetry.add_checkpoint(Checkpoint { revision, digest, version: version.clone() });
        }
    }
}
