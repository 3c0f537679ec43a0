//! Metrics of the node: Raft, journal, links, locks.

use super::families::Families;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Unit};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{cluster::Role, id::GroupId};
use ringmaster_peer::{LinkState, Peers};
use ringmaster_storage::journal::Journal;
use ringmaster_telemetry::Telemetry;
use std::{fmt, sync::Arc};

const ROLES: [Role; 4] = [Role::Leader, Role::Follower, Role::Learner, Role::Candidate];

#[derive(Debug)]
pub struct NodeCollector {
    group: ClusterGroup,
    telemetry: Arc<Telemetry>,
    peers: Peers,
    journal: Arc<Journal>,
}

impl NodeCollector {
    pub fn new(group: ClusterGroup, telemetry: Arc<Telemetry>, peers: Peers, journal: Arc<Journal>) -> Self {
        NodeCollector { group, telemetry, peers, journal }
    }

    fn raft(&self, out: &mut Families<'_>) -> fmt::Result {
        let status = self.group.status();
        let group = || [("group", GroupId::CLUSTER.to_string())];
        let mut gauge = |name, help, value: u64| out.gauges(name, help, None, [(group(), value as f64)]);
        gauge("raft_term", "The current term", status.term)?;
        gauge("raft_is_leader", "1 on the leader", u64::from(status.role == Role::Leader))?;
        let has_leader = status.leader.is_some_and(|leader| self.telemetry.is_reachable(leader));
        gauge("raft_has_leader", "1 where this node reaches a leader, or leads", u64::from(has_leader))?;
        gauge(
            "raft_last_log_index",
            "Index of the last entry in the log of this node",
            status.last_log_index,
        )?;
        gauge(
            "raft_committed_index",
            "Index of the last entry known to be committed",
            status.committed_index,
        )?;
        gauge("raft_applied_index", "Index of the last applied entry", status.applied_index)?;
        gauge(
            "raft_snapshot_index",
            "Index of the last entry in the latest snapshot",
            status.snapshot_index,
        )?;
        gauge("raft_failed", "1 once consensus has failed", u64::from(status.failed.is_some()))?;
        let roles = ROLES.map(|role| {
            let labels = [("group", GroupId::CLUSTER.to_string()), ("role", role.as_str().to_owned())];
            (labels, f64::from(u8::from(role == status.role)))
        });
        out.gauges("raft_role", "1 for the role of this node", None, roles)?;
        let peers = |value: fn(u64, u64) -> u64| {
            status.replication.iter().map(move |peer| {
                let labels = [("group", GroupId::CLUSTER.to_string()), ("peer", peer.node.to_string())];
                (labels, value(peer.matched_index, peer.lag) as f64)
            })
        };
        out.gauges(
            "raft_peer_matched_index",
            "On the leader: index of the last entry known to be on the disk of the peer",
            None,
            peers(|matched, _| matched),
        )?;
        out.gauges(
            "raft_peer_lag_entries",
            "On the leader: entries that the peer lacks",
            None,
            peers(|_, lag| lag),
        )?;
        let (elections, latencies) = (self.telemetry.elections(), self.group.latencies());
        out.counters("raft_elections", "Changes of leader seen by this node", None, [(group(), elections)])?;
        out.counters(
            "raft_proposals",
            "Commands proposed by this node as leader",
            None,
            [(group(), latencies.proposals())],
        )?;
        out.histogram(
            "raft_commit_duration",
            "On the leader: time from the proposal of a command to its application",
            group(),
            latencies.seconds(),
        )
    }

    fn storage(&self, out: &mut Families<'_>) -> fmt::Result {
        out.counter("journal_fsyncs", "Writes of the journal to the disk (fsync)", self.journal.fsyncs())?;
        out.histogram(
            "journal_fsync_duration",
            "Time of one write of the journal to the disk",
            [],
            self.journal.fsync_seconds(),
        )?;
        // A segment may be deleted while sizes are read; the next scrape is right.
        let Ok(segments) = self.journal.segment_bytes() else { return Ok(()) };
        out.gauge("journal_segments", "Segment files of the journal", None, segments.len() as f64)?;
        let bytes = segments.iter().sum::<u64>() as f64;
        out.gauge("journal", "Size of the journal on disk", Some(&Unit::Bytes), bytes)
    }

    fn links(&self, out: &mut Families<'_>) -> fmt::Result {
        let links = self.peers.links();
        let each = |value: fn(&LinkState) -> Option<f64>| {
            let peer = |link: &LinkState| [("peer", link.peer.to_string())];
            links.iter().filter_map(move |link| Some((peer(link), value(link)?)))
        };
        out.gauges(
            "peer_connected",
            "1 where this node is connected to the peer",
            None,
            each(|link| Some(f64::from(u8::from(link.connected)))),
        )?;
        out.gauges(
            "peer_rtt",
            "Latest round-trip time to the peer",
            Some(&Unit::Seconds),
            each(|link| link.rtt.filter(|_| link.connected).map(|rtt| rtt.as_secs_f64())),
        )?;
        out.gauges(
            "peer_silent",
            "Time since anything was received from the peer",
            Some(&Unit::Seconds),
            each(|link| link.silent_for.map(|silent| silent.as_secs_f64())),
        )
    }

    fn locks(&self, out: &mut Families<'_>) -> fmt::Result {
        let counts = self.group.state().locks.counts();
        out.gauge("locks_held", "Locks with a holder", None, counts.held as f64)?;
        out.gauge(
            "lock_leases",
            "Active leases, one for each holder of a lock",
            None,
            counts.holders as f64,
        )?;
        out.gauge("lock_waiters", "Clients that wait for a lock", None, counts.waiting as f64)?;
        out.counter("lock_grants", "Grants of locks", counts.granted)?;
        out.counter("lock_expirations", "Expired leases of locks", counts.expired)?;
        out.counter("lock_forced_releases", "Leases ended by operators", counts.forced)
    }

    fn node(&self, out: &mut Families<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        out.gauges("build_info", "Always 1; the labels name the version", None, [(version, 1.0)])?;
        let uptime = self.telemetry.uptime().as_secs_f64();
        out.gauge("uptime", "Time since the node started", Some(&Unit::Seconds), uptime)?;
        out.gauge("streams_open", "Open streams", None, f64::from(self.telemetry.streams()))
    }
}

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        self.raft(&mut out)?;
        self.storage(&mut out)?;
        self.links(&mut out)?;
        self.locks(&mut out)?;
        self.node(&mut out)
    }
}
