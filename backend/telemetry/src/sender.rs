//! Measures this node, and reports to the others: at once where something important changed, else twice a second.

use crate::{
    data_plane::DataPlane,
    measure,
    message::{self, Message, Position},
    receiver::TELEMETRY,
    store::Telemetry,
};
use bytes::Bytes;
use ringmaster_cluster_group::{Applied, ClusterGroup};
use ringmaster_common::id::GroupId;
use ringmaster_net::clock;
use ringmaster_peer::{Lane, Peers, Request, Trace};
use ringmaster_storage::journal::Journal;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How often links are judged. A change of liveness or leadership is reported at once.
const JUDGE_INTERVAL: Duration = Duration::from_millis(200);
/// How often a report is made when nothing changes.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// Runs for as long as the node does.
pub async fn run(
    telemetry: Arc<Telemetry>,
    group: ClusterGroup,
    peers: Peers,
    journal: Arc<Journal>,
    proxy: impl DataPlane,
) {
    let (mut link_changes, mut applied_table) = (peers.changes(), telemetry.watch_applied_table());
    let mut remembered = telemetry.watch_remembered();
    group.remembered().expect();
    let mut ticks = clock::ticks(JUDGE_INTERVAL);
    let (mut last, mut durable) = (None, Durable::default());
    let mut reported_at = None::<Instant>;
    let mut last_leadership = None;
    loop {
        let has_new_table = tokio::select! {
            _ = ticks.tick() => false,
            // A link that came or went is judged at once. Missed changes do no harm: all links are judged.
            _ = link_changes.recv() => false,
            changed = applied_table.changed() => changed.is_ok(),
            _ = remembered.changed() => false,
        };
        let heard = remembered.borrow_and_update().clone();
        let position = durable.advance(applied(&group), group.durable_index());
        if position < heard.position {
            group.was_applied_here(heard.position.term, heard.position.index).await;
        }
        for peer in heard.by {
            group.remembered().reported_by(peer);
        }
        let links = measure::links(&telemetry, &group, &peers);
        let liveness: Vec<_> = links.iter().map(|link| (link.peer, link.sees)).collect();
        let (role, term, leader) = group.role();
        let leadership = leader.map(|leader| (leader, term));
        if leadership.is_some() && leadership != last_leadership {
            telemetry.count_election();
            last_leadership = leadership;
        }
        let opinions = message::bounded(proxy.opinions());
        // The table is read first: a request that is in flight under it, or under one before it, is counted.
        let applied_table_revision = *applied_table.borrow_and_update();
        let draining: Arc<[_]> = proxy.draining().into();
        let lost = group.lost_through();
        let important = Some((liveness, role, term, leader, lost, opinions.clone(), draining.clone()));
        let now = clock::now();
        let is_due = reported_at.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_INTERVAL);
        if !is_due && !has_new_table && important == last {
            continue;
        }
        last = important;
        reported_at = Some(now);
        let message = Message {
            age_ms: 0,
            report: measure::report(&telemetry, &group, journal.fsyncs(), links),
            opinions,
            heartbeats: proxy.heartbeats().into(),
            traffic: message::busy(&proxy.metrics()),
            applied_table_revision,
            draining,
            failed_listeners: proxy.failed_listeners().into(),
            applied: position,
            checkpoints: telemetry.checkpoints(),
            remembered: telemetry.positions(),
            unresolvable_names: proxy.unresolvable_names().into(),
        };
        send(&telemetry, &group, &peers, message);
    }
}

/// How far this node has applied the log, as far as that is on its disk: others hold it to this when it starts again, and
/// a leader may apply what only the others have written yet.
#[derive(Debug, Default)]
struct Durable {
    position: Position,
    /// Applied, and not seen on disk yet.
    pending: Position,
}

impl Durable {
    fn advance(&mut self, applied: Position, durable_index: u64) -> Position {
        for candidate in [self.pending, applied] {
            if candidate.index.0 <= durable_index {
                self.position = self.position.max(candidate);
            }
        }
        if self.pending <= self.position {
            self.pending = applied;
        }
        self.position
    }
}

fn applied(group: &ClusterGroup) -> Position {
    let Applied { term, revision, .. } = group.published().applied();
    Position { term, index: revision }
}

/// Sends this node's report to every other member, with the reports that the member lacks.
fn send(telemetry: &Telemetry, group: &ClusterGroup, peers: &Peers, message: Message) {
    let (me, state, body) = (telemetry.me(), group.state(), message.encode());
    telemetry.retain(|node| state.membership.get(node).is_some());
    telemetry.store(me, message);
    for node in state.membership.iter().filter(|node| node.id != me) {
        peers.cast(node.id, cast(body.clone()));
        for relayed in telemetry.reports_missing_at(node.id) {
            peers.cast(node.id, cast(relayed.encode()));
        }
    }
}

fn cast(body: Bytes) -> Request {
    let (group, trace) = (GroupId::CLUSTER, Trace::default());
    Request { channel: TELEMETRY, group, trace, lane: Lane::Bulk, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::id::Revision;

    #[test]
    fn a_position_is_reported_once_it_is_on_disk() {
        let (mut durable, at) = (Durable::default(), |index| Position { term: 2, index: Revision(index) });
        assert_eq!(durable.advance(at(10), 10), at(10));
        // More is applied at each look than is on disk.
        assert_eq!(durable.advance(at(30), 15), at(10));
        assert_eq!(durable.advance(at(50), 35), at(30));
        assert_eq!(durable.advance(at(70), 55), at(50));
        assert_eq!(durable.advance(at(70), 70), at(70));
    }
}
