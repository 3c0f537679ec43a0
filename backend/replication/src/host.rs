//! The Raft groups of a node, and what they share: the journal, the links to peers, the registry.

use crate::{
    acknowledged::Acknowledged,
    application::Application,
    compaction::{self, LogBounds},
    elections::Elections,
    fast_election,
    group::RaftGroup,
    idle_ticks,
    log_store::LogStore,
    machine,
    network::Network,
    registry::Registry,
    replica::Replica,
    service::{RaftService, VoteGuard},
    snapshot_store::{MAX_SNAPSHOT_BYTES, SnapshotStore},
    state_machine::StateMachine,
};
use openraft::{Config, Raft, SnapshotPolicy};
use ringmaster_common::{duration::millis, id::GroupId};
use ringmaster_net::{clock, supervisor::Supervisor};
use ringmaster_peer::{Local, Peers, Service};
use ringmaster_storage::{
    data_dir::DataDir,
    journal::{Journal, Owner},
};
use std::{
    collections::BTreeMap,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::{AbortHandle, spawn_blocking},
    time::{sleep, sleep_until},
};

/// The share of the entries behind a snapshot that is kept, one in so many: a follower that is a little behind does not
/// need the snapshot then.
const KEPT_ONE_IN: u64 = 5;
/// How many entries one append carries, at the most.
const MAX_APPEND_ENTRIES: u64 = 512;
/// How many snapshots are built at a time, for all groups: each writes the whole state of its group.
const SNAPSHOT_BUILDS: usize = 2;
/// How long a follower may take to store one piece of a snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the Raft groups of a node. Cheap to clone.
#[derive(Clone)]
pub struct GroupHost {
    data_dir: PathBuf,
    journal: Arc<Journal>,
    peers: Peers,
    groups: Registry,
    /// The background tasks of each group, which end with its replica.
    tasks: Arc<Mutex<BTreeMap<GroupId, Vec<AbortHandle>>>>,
    snapshot_builds: Arc<Semaphore>,
    log_bounds: LogBounds,
    max_snapshot_bytes: u64,
    supervisor: Supervisor,
    elections: Elections,
    /// Until when this node neither votes nor campaigns.
    quiet_until: Instant,
}

impl GroupHost {
    /// Opens the journal, and listens to peers. Beside the groups, `others` are served to them.
    pub fn start(
        data_dir: &DataDir,
        local: Local,
        listener: TcpListener,
        elections: Elections,
        others: Vec<Arc<dyn Service>>,
        supervisor: &Supervisor,
    ) -> io::Result<GroupHost> {
        let quiet = Duration::ZERO;
        GroupHost::start_quietly(data_dir, local, listener, elections, others, supervisor, quiet)
    }

    /// The same, but it neither votes nor campaigns for `quiet` at least.
    pub(crate) fn start_quietly(
        data_dir: &DataDir,
        local: Local,
        listener: TcpListener,
        elections: Elections,
        others: Vec<Arc<dyn Service>>,
        supervisor: &Supervisor,
        quiet: Duration,
    ) -> io::Result<GroupHost> {
        let owner = Owner { cluster_id: local.cluster_id.clone(), node_id: local.node_id };
        let journal =
            Journal::open_supervised(data_dir.path(), owner, supervisor).map_err(io::Error::other)?;
        // A node with a past may have acknowledged a leader just before it stopped.
        let quiet = if journal.has_past() { quiet.max(elections.timeout_max) } else { quiet };
        let quiet_until = clock::now() + quiet;
        let groups = Registry::default();
        let service = RaftService::new(groups.clone(), VoteGuard::until(quiet_until));
        let services = others.into_iter().chain([Arc::new(service) as _]).collect();
        let peers = Peers::start(local, listener, services, supervisor);
        let data_dir = data_dir.path().to_owned();
        let (snapshot_builds, log_bounds) = (Arc::new(Semaphore::new(SNAPSHOT_BUILDS)), LogBounds::default());
        let supervisor = supervisor.clone();
        Ok(GroupHost {
            data_dir,
            journal,
            peers,
            groups,
            tasks: Arc::default(),
            supervisor,
            snapshot_builds,
            log_bounds,
            max_snapshot_bytes: MAX_SNAPSHOT_BYTES,
            elections,
            quiet_until,
        })
    }

    /// For the groups that are opened from now on.
    #[cfg(test)]
    pub(crate) fn set_bounds(&mut self, log: LogBounds, max_snapshot_bytes: u64) {
        (self.log_bounds, self.max_snapshot_bytes) = (log, max_snapshot_bytes);
    }

    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Starts this node's replica of a group, with what it has on disk. A snapshot is taken every so many entries.
    pub async fn open<A: Application>(
        &self,
        id: GroupId,
        application: A,
        snapshot_every: u64,
    ) -> io::Result<RaftGroup<A>> {
        let node = self.peers.local().node_id;
        let log = LogStore::new(self.journal.clone(), id);
        let snapshots = Arc::new(SnapshotStore::open(&self.data_dir, id, self.max_snapshot_bytes)?);
        let purged = self.journal.read(id, |log| log.purged.as_ref().map(|(index, _)| *index));
        snapshots.check_covers(purged)?;
        let (machine, published) = machine::new(application);
        let (builds, bounds) = (self.snapshot_builds.clone(), self.log_bounds);
        let state_machine = StateMachine::open(machine, snapshots.clone(), log.clone(), builds).await?;
        let config = self.config(snapshot_every)?;
        let acknowledged = Acknowledged::default();
        let network = Network::new(self.peers.clone(), id, acknowledged.clone());
        let raft =
            Raft::new(node, config, network, log.clone(), state_machine).await.map_err(io::Error::other)?;
        let lease = self.elections.timeout_max;
        let (stores, peers) = ((log, snapshots), self.peers.clone());
        let replica = Replica::new(id, raft, published.clone(), stores, peers, acknowledged, lease);
        let group = RaftGroup::new(replica.clone(), published);
        let (journal, groups) = (self.journal.clone(), self.groups.clone());
        // Subscribed now, so that no lost connection is missed.
        let elections = fast_election::run(replica.clone(), self.peers.changes(), lease);
        let quiet_until = self.quiet_until;
        // They may end when Raft has stopped, which the group reports.
        let tasks = vec![
            self.supervisor.spawn_job("idle-ticks", idle_ticks::run(replica.clone(), self.elections)),
            self.supervisor
                .spawn_job("compaction", compaction::run(replica.clone(), journal, groups, bounds)),
            self.supervisor.spawn_job("lost-entries", replica.clone().watch_lost_entries()),
            self.supervisor.spawn_job("campaign", follow_may_lead(replica, quiet_until)),
            self.supervisor.spawn_job("fast-election", async move {
                sleep_until(quiet_until.into()).await;
                elections.await;
            }),
        ];
        self.tasks().insert(id, tasks);
        self.groups.insert(id, Arc::new(group.clone()));
        Ok(group)
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<GroupId, Vec<AbortHandle>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops this node's replica of a group, and removes all of it but its vote: a replica that comes back must not vote
    /// twice.
    pub async fn drop_group(&self, id: GroupId) -> io::Result<()> {
        let Some(group) = self.groups.remove(id) else { return Ok(()) };
        for task in self.tasks().remove(&id).into_iter().flatten() {
            task.abort();
        }
        group.replica().raft().shutdown().await.map_err(io::Error::other)?;
        // First the log: a log without the snapshot before it has a hole.
        self.journal.drop_group(id).await?;
        let snapshots = group.replica().snapshots().clone();
        spawn_blocking(move || snapshots.remove_all()).await.map_err(io::Error::other)?
    }

    fn config(&self, snapshot_every: u64) -> io::Result<Arc<Config>> {
        let config = Config {
            cluster_name: "ringmaster".to_owned(),
            heartbeat_interval: millis(self.elections.heartbeat),
            election_timeout_min: millis(self.elections.timeout_min),
            election_timeout_max: millis(self.elections.timeout_max),
            install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
            max_payload_entries: MAX_APPEND_ENTRIES,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
            max_in_snapshot_log_to_keep: snapshot_every / KEPT_ONE_IN,
            enable_pre_vote: Some(true),
            enable_elect: false,
            // A leader sends entries before they are on its own disk, and they may be committed without it. Killed
            // then, it does not know them any more: if it led on in the same term, it would give their indexes to
            // others.
            enable_leader_restore: Some(false),
            // A follower that has lost a part of its log gets it again (see `acknowledged`).
            allow_log_reversion: Some(true),
            ..Config::default()
        };
        Ok(Arc::new(config.validate().map_err(io::Error::other)?))
    }
}

/// Lets a node campaign once it has waited long enough, and while the application lets it lead or no other node does.
async fn follow_may_lead(replica: Replica, quiet_until: Instant) {
    sleep_until(quiet_until.into()).await;
    let (mut applied, mut lost) = (replica.progress().watch_control(), replica.lost_entries().watch());
    let (remembered, mut reports) = (replica.remembered(), replica.remembered().watch());
    loop {
        let may_lead = replica.may_lead(replica.node());
        replica.raft().runtime_config().elect(may_lead || replica.is_needed_as_leader().await);
        let is_to_continue = tokio::select! {
            changed = applied.changed() => changed.is_ok(),
            changed = lost.changed() => changed.is_ok(),
            changed = remembered.changed(&mut reports) => changed,
            () = sleep(replica.lease()), if !may_lead => true,
        };
        if !is_to_continue {
            return;
        }
    }
}

impl fmt::Debug for GroupHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupHost").field("node", &self.peers.local().node_id).finish_non_exhaustive()
    }
}
