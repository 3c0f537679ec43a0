//! Starts the cluster group of a node.

use crate::{ClusterApplication, ClusterGroup};
use ringmaster_common::id::{GroupId, NodeId};
use ringmaster_net::supervisor::Supervisor;
use ringmaster_peer::{Local, Peers, Service};
use ringmaster_replication::{GroupHost, elections::Elections};
use ringmaster_storage::{data_dir::DataDir, journal::Journal};
use std::{collections::BTreeMap, io, sync::Arc};
use tokio::net::TcpListener;

/// A running cluster group, and what it runs on.
#[derive(Debug)]
pub struct Started {
    pub group: ClusterGroup,
    pub peers: Peers,
    pub journal: Arc<Journal>,
}

/// Starts the cluster group of this node, with what it has on disk. Beside it, `others` are served to
/// peers. `moved` are members with other peer addresses than the cluster knows.
#[expect(clippy::too_many_arguments, reason = "the parts of a node meet here once")]
pub async fn start(
    data_dir: &DataDir,
    local: Local,
    listener: TcpListener,
    elections: &Elections,
    snapshot_every: u64,
    moved: BTreeMap<NodeId, String>,
    others: Vec<Arc<dyn Service>>,
    supervisor: &Supervisor,
) -> io::Result<Started> {
    let host = GroupHost::start(data_dir, local, listener, *elections, others, supervisor)?;
    let group = host.open(GroupId::CLUSTER, ClusterApplication::default(), snapshot_every).await?;
    let group = ClusterGroup::new(group, moved);
    // The first links are those to the log's members, until the state is known: without them there is no election.
    host.peers().set_members(&group.members());
    Ok(Started { group, peers: host.peers().clone(), journal: host.journal().clone() })
}
