//! Puts the cluster group together: log, snapshots, links, openraft.

use crate::elections::Elections;
use crate::{
    cluster_group::{ClusterGroup, ClusterRaft, Forwarded},
    log_store::LogStore,
    network::Network,
    service::{RaftService, VoteGuard},
    snapshot_store::SnapshotStore,
    state_machine::StateMachine,
    succession, ticks,
};
use openraft::{Config, Raft, SnapshotPolicy, storage::RaftLogStorage};
use ringmaster_common::{duration::millis, id::GroupId};
use ringmaster_net::clock;
use ringmaster_peer::{Local, Peers, Service};
use ringmaster_storage::data_dir::DataDir;
use ringmaster_storage::journal::Journal;
use std::{io, sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// What share of the entries behind a snapshot is kept, so that a follower that is a little behind
/// need not be sent the snapshot: one in so many.
const KEPT_ONE_IN: u64 = 5;
/// How many entries go into one append at the most.
const MAX_APPEND_ENTRIES: u64 = 512;
/// How long a follower may take to take one piece of a snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);

/// A running cluster group, and what it runs on.
#[derive(Debug)]
pub struct Started {
    pub group: ClusterGroup,
    pub peers: Peers,
    pub journal: Arc<Journal>,
}

/// Starts the cluster group of this node, with what it has on disk. Beside it, `others` are served to
/// peers.
pub async fn start(
    data_dir: &DataDir,
    local: Local,
    listener: TcpListener,
    elections: &Elections,
    snapshot_every: u64,
    others: Vec<Arc<dyn Service>>,
) -> io::Result<Started> {
    let me = local.node_id;
    let journal = Journal::open(data_dir.path()).map_err(io::Error::other)?;
    let mut log = LogStore::new(journal.clone(), GroupId::CLUSTER);
    let snapshots = Arc::new(SnapshotStore::open(data_dir.path(), GroupId::CLUSTER)?);
    let (state_machine, published) = StateMachine::open(snapshots)?;

    // A node with a past may have acknowledged a leader just before it stopped.
    let has_past = log.get_log_state().await?.last_log_id.is_some();
    let quiet = if has_past { elections.timeout_max } else { Duration::ZERO };
    let service = RaftService::new(VoteGuard::until(clock::now() + quiet));
    let forwarded = Forwarded::default();
    let own = [Arc::new(service.clone()) as _, Arc::new(forwarded.clone()) as _];
    let services = others.into_iter().chain(own).collect();
    let peers = Peers::start(local, listener, services);

    let config = Config {
        cluster_name: "ringmaster".to_owned(),
        heartbeat_interval: millis(elections.heartbeat),
        election_timeout_min: millis(elections.timeout_min),
        election_timeout_max: millis(elections.timeout_max),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        max_payload_entries: MAX_APPEND_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: snapshot_every / KEPT_ONE_IN,
        enable_pre_vote: Some(true),
        enable_elect: false,
        // A leader sends entries before they are on its own disk, and they may be committed without it.
        // Killed then, it does not know them any more: leading on in the same term, it would give
        // their indexes to others.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    let config = Arc::new(config.validate().map_err(io::Error::other)?);
    let network = Network::new(peers.clone(), GroupId::CLUSTER);
    let raft: ClusterRaft =
        Raft::new(me, config, network, log, state_machine).await.map_err(io::Error::other)?;
    service.insert(GroupId::CLUSTER, raft.clone());
    let group = ClusterGroup::new(me, raft, published, peers.clone(), elections.timeout_max);
    forwarded.serve(group.clone());
    // Links come from the log's members until the state is known: without them there is no election.
    peers.set_members(&group.members());
    tokio::spawn(ticks::run(group.clone(), *elections));
    tokio::spawn(stand_for_election(group.clone(), quiet));
    let successor = succession::run(group.clone(), peers.changes(), elections.timeout_max);
    tokio::spawn(async move {
        tokio::time::sleep(quiet).await;
        successor.await;
    });
    Ok(Started { group, peers, journal })
}

/// A node stands for election once it has waited long enough, and while nobody has ordered it to be
/// drained.
async fn stand_for_election(group: ClusterGroup, quiet: Duration) {
    tokio::time::sleep(quiet).await;
    let mut applied = group.published().watch_control();
    loop {
        let state = group.state();
        let drained = state.membership.get(group.me()).is_some_and(|node| node.status.is_ordered());
        group.stand(!drained);
        if applied.changed().await.is_err() {
            return;
        }
    }
}
