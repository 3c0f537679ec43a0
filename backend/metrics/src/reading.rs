//! What is read off the node when somebody asks: its part in Raft, its disk, its links.

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
pub struct Reading {
    group: ClusterGroup,
    telemetry: Arc<Telemetry>,
    peers: Peers,
    journal: Arc<Journal>,
}

impl Reading {
    pub fn new(group: ClusterGroup, telemetry: Arc<Telemetry>, peers: Peers, journal: Arc<Journal>) -> Self {
        Reading { group, telemetry, peers, journal }
    }

    fn raft(&self, out: &mut Families<'_>) -> fmt::Result {
        let status = self.group.status();
        let group = || [("group", GroupId::CLUSTER.to_string())];
        let mut gauge = |name, help, value: u64| out.gauges(name, help, None, [(group(), value as f64)]);
        gauge("raft_term", "The current term", status.term)?;
        gauge("raft_is_leader", "1 on the node that leads", u64::from(status.role == Role::Leader))?;
        let hears_leader = status.leader.is_some_and(|leader| self.telemetry.hears(leader));
        gauge("raft_hears_leader", "1 where this node hears a leader, or leads", u64::from(hears_leader))?;
        gauge("raft_last_log_index", "The last entry in this node's log", status.last_log_index)?;
        gauge(
            "raft_committed_index",
            "The last entry that this node knows to be committed",
            status.committed_index,
        )?;
        gauge("raft_applied_index", "The last entry that this node has applied", status.applied_index)?;
        gauge("raft_snapshot_index", "The last entry in this node's latest snapshot", status.snapshot_index)?;
        gauge("raft_failed", "1 once consensus has stopped for good", u64::from(status.failed.is_some()))?;
        let roles = ROLES.map(|role| {
            let labels = [("group", GroupId::CLUSTER.to_string()), ("role", role.as_str().to_owned())];
            (labels, f64::from(u8::from(role == status.role)))
        });
        out.gauges("raft_role", "1 for the role that this node has", None, roles)?;
        let peers = |figure: fn(u64, u64) -> u64| {
            status.replication.iter().map(move |peer| {
                let labels = [("group", GroupId::CLUSTER.to_string()), ("peer", peer.node.to_string())];
                (labels, figure(peer.matched_index, peer.lag) as f64)
            })
        };
        out.gauges(
            "raft_peer_matched_index",
            "On the leader: the last entry that is known to be on the peer's disk",
            None,
            peers(|matched, _| matched),
        )?;
        out.gauges(
            "raft_peer_lag_entries",
            "On the leader: how many entries of its log the peer lacks",
            None,
            peers(|_, lag| lag),
        )?;
        let (elections, latencies) = (self.telemetry.elections(), self.group.latencies());
        out.counters(
            "raft_elections",
            "Changes of leader that this node has noticed since it started",
            None,
            [(group(), elections)],
        )?;
        out.counters(
            "raft_proposals",
            "Commands that this node proposed as leader",
            None,
            [(group(), latencies.proposals())],
        )?;
        out.histogram(
            "raft_commit",
            "On the leader: from proposing a command to having applied it",
            group(),
            latencies.seconds(),
        )
    }

    fn storage(&self, out: &mut Families<'_>) -> fmt::Result {
        out.counter(
            "journal_fsyncs",
            "How often the journal has waited for the disk",
            self.journal.fsyncs(),
        )?;
        out.histogram(
            "journal_fsync",
            "How long the journal waited for the disk",
            [],
            self.journal.fsync_seconds(),
        )?;
        // A segment that is deleted meanwhile is one fewer; the next reading has it right.
        let Ok(segments) = self.journal.segment_bytes() else { return Ok(()) };
        out.gauge("journal_segments", "Files of the journal", None, segments.len() as f64)?;
        let bytes = segments.iter().sum::<u64>() as f64;
        out.gauge("journal", "What the journal takes on disk", Some(&Unit::Bytes), bytes)
    }

    fn links(&self, out: &mut Families<'_>) -> fmt::Result {
        let links = self.peers.links();
        let each = |figure: fn(&LinkState) -> Option<f64>| {
            let peer = |link: &LinkState| [("peer", link.peer.to_string())];
            links.iter().filter_map(move |link| Some((peer(link), figure(link)?)))
        };
        out.gauges(
            "peer_connected",
            "1 where this node can call the peer",
            None,
            each(|link| Some(f64::from(u8::from(link.connected)))),
        )?;
        out.gauges(
            "peer_rtt",
            "The latest round trip to the peer and back",
            Some(&Unit::Seconds),
            each(|link| link.rtt.filter(|_| link.connected).map(|rtt| rtt.as_secs_f64())),
        )?;
        out.gauges(
            "peer_silent",
            "Since anything was heard of the peer",
            Some(&Unit::Seconds),
            each(|link| link.silent_for.map(|silent| silent.as_secs_f64())),
        )
    }

    fn locks(&self, out: &mut Families<'_>) -> fmt::Result {
        let counts = self.group.state().locks.counts();
        out.gauge("locks_held", "Locks that somebody holds", None, counts.held as f64)?;
        out.gauge("lock_leases", "Leases that run: one for each holder", None, counts.holders as f64)?;
        out.gauge("lock_waiters", "Those who wait for a lock", None, counts.waiting as f64)?;
        out.counter("lock_grants", "Grants of locks, ever", counts.granted)?;
        out.counter("lock_expirations", "Leases that ran out, ever", counts.expired)?;
        out.counter("lock_forced_releases", "Leases that operators took away, ever", counts.forced)
    }

    fn node(&self, out: &mut Families<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        out.gauges("build_info", "1; the labels tell what runs here", None, [(version, 1.0)])?;
        let uptime = self.telemetry.uptime().as_secs_f64();
        out.gauge("uptime", "How long the node has run", Some(&Unit::Seconds), uptime)?;
        out.gauge("stream_open", "Open streams", None, f64::from(self.telemetry.streams()))
    }
}

impl Collector for Reading {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        self.raft(&mut out)?;
        self.storage(&mut out)?;
        self.links(&mut out)?;
        self.locks(&mut out)?;
        self.node(&mut out)
    }
}
