//! The latest report of each node, and the rules by which one replaces another.
//!
//! What always holds: there are at most [`MAX_NODES`] reports, one for each node. A relayed report never replaces a
//! later one. How far a node has applied the log is remembered for as long as it is a member.

use crate::{
    checkpoint::differences,
    message::{Message, Position},
};
use ringmaster_cluster::observations::EndpointRates;
use ringmaster_common::{
    cluster::{Liveness, MAX_NODES, Role},
    duration::millis,
    id::{NodeId, Revision},
    plan::Warning,
    telemetry::{AgedReport, FRESH_MS, NodeReport, losses},
    traffic::{
        health::{EndpointOpinion, ReceivedHeartbeat},
        live::{DrainingEndpoint, UpstreamMetrics},
        warnings::{ProxyReport, warnings},
    },
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// An older report is not relayed: its node has fallen silent.
const MAX_RELAYED_AGE: Duration = Duration::from_secs(1);
/// Older reports are no longer shown or counted.
const MAX_SHOWN_AGE: Duration = Duration::from_secs(10);
const FRESH: Duration = Duration::from_millis(FRESH_MS);

/// A node's opinions of endpoints, and their age.
#[derive(Clone, Debug)]
pub struct NodeOpinions {
    pub node: NodeId,
    pub age: Duration,
    pub endpoints: Arc<[EndpointOpinion]>,
}

/// What became of a report that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// There is a later one.
    Outdated,
    Replaced,
    /// It says that its node has another role, term or leader.
    LeadershipChanged,
}

#[derive(Debug)]
struct ReceivedReport {
    message: Message,
    /// The node that sent it here: its source, or one that relays it.
    from: NodeId,
    /// When it was made, by this node's clock.
    made_at: Instant,
}

impl ReceivedReport {
    fn is_relayed(&self) -> bool {
        self.from != self.message.report.node
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.made_at)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Reports {
    latest: BTreeMap<NodeId, ReceivedReport>,
    /// How far each node had applied the log by all of its reports. A node that comes back with less has lost entries.
    applied: BTreeMap<NodeId, Position>,
}

impl Reports {
    pub(crate) fn store(&mut self, from: NodeId, message: Message, now: Instant) -> Stored {
        let (node, after) = (message.report.node, leadership(&message.report));
        let made_at = now.checked_sub(Duration::from_millis(message.age_ms)).unwrap_or(now);
        let received = ReceivedReport { message, from, made_at };
        // A relayed report may be late, and may be of any node.
        let is_outdated = received.is_relayed()
            && match self.latest.get(&node) {
                Some(known) => known.made_at >= received.made_at,
                None => self.latest.len() >= MAX_NODES,
            };
        if is_outdated {
            return Stored::Outdated;
        }
        let applied = self.applied.entry(node).or_default();
        *applied = (*applied).max(received.message.applied);
        let before = self.latest.insert(node, received);
        if before.is_some_and(|before| leadership(&before.message.report) == after) {
            Stored::Replaced
        } else {
            Stored::LeadershipChanged
        }
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        self.latest.retain(|node, _| keep(*node));
        self.applied.retain(|node, _| keep(*node));
    }

    /// How far each node had applied the log by all of its reports.
    pub(crate) fn remembered(&self) -> BTreeMap<NodeId, Position> {
        self.applied.clone()
    }

    fn messages(&self, now: Instant, max_age: Duration) -> impl Iterator<Item = (&Message, Duration)> {
        self.latest
            .values()
            .map(move |received| (&received.message, received.age(now)))
            .filter(move |(_, age)| *age <= max_age)
    }

    /// The reports that are young enough to be shown, with their ages.
    pub(crate) fn latest(&self, now: Instant) -> Vec<AgedReport> {
        let aged = |(message, age): (&Message, Duration)| AgedReport {
            age_ms: millis(age),
            report: message.report.clone(),
        };
        self.messages(now, MAX_SHOWN_AGE).map(aged).collect()
    }

    /// The reports that `peer` lacks because it cannot reach their nodes, and that `me` has from their sources.
    pub(crate) fn missing_at(&self, peer: NodeId, me: NodeId, now: Instant) -> Vec<Message> {
        let fresh = |node: NodeId| {
            let received = self.latest.get(&node).filter(|received| !received.is_relayed())?;
            let age = received.age(now);
            (age <= MAX_RELAYED_AGE).then_some((age, &received.message))
        };
        let Some((_, theirs)) = fresh(peer) else { return Vec::new() };
        let unreachable = theirs.report.links.iter().filter(|link| link.sees != Liveness::Alive);
        unreachable
            .filter(|link| link.peer != me)
            .filter_map(|link| fresh(link.peer))
            .map(|(age, message)| Message { age_ms: millis(age), ..message.clone() })
            .collect()
    }

    /// Each node's opinions of endpoints, however old.
    pub(crate) fn endpoint_opinions(&self, now: Instant) -> Vec<NodeOpinions> {
        let of_node = |(node, received): (&NodeId, &ReceivedReport)| NodeOpinions {
            node: *node,
            age: received.age(now),
            endpoints: received.message.opinions.clone(),
        };
        self.latest.iter().map(of_node).collect()
    }

    /// The heartbeats that nodes other than `me` have received, with the age of their report.
    pub(crate) fn heartbeats(&self, me: NodeId, now: Instant) -> Vec<(Duration, Arc<[ReceivedHeartbeat]>)> {
        let others = self.latest.iter().filter(|(node, _)| **node != me);
        others.map(|(_, received)| (received.age(now), received.message.heartbeats.clone())).collect()
    }

    pub(crate) fn applied_table_revision(&self, node: NodeId) -> Option<Revision> {
        self.latest.get(&node).map(|received| received.message.applied_table_revision)
    }

    /// The metrics of busy upstreams, one list for each node with a fresh report.
    pub(crate) fn traffic(&self, now: Instant) -> Vec<Arc<[UpstreamMetrics]>> {
        self.messages(now, FRESH).map(|(message, _)| message.traffic.clone()).collect()
    }

    /// The draining endpoints of one upstream at the proxies of all nodes that are heard, and which of `nodes` have not
    /// reported since they applied the routing table of this revision.
    pub(crate) fn draining(
        &self,
        upstream: &str,
        revision: Revision,
        nodes: impl Iterator<Item = NodeId>,
        now: Instant,
    ) -> (Vec<DrainingEndpoint>, Vec<NodeId>) {
        let mut sums = BTreeMap::<(&str, &str), u32>::new();
        for (message, _) in self.messages(now, MAX_SHOWN_AGE) {
            for one in message.draining.iter().filter(|one| one.upstream == upstream) {
                *sums.entry((&one.endpoint, &one.addr)).or_default() += one.in_flight;
            }
        }
        let draining = sums.into_iter().map(|((endpoint, addr), in_flight)| DrainingEndpoint {
            upstream: upstream.to_owned(),
            endpoint: endpoint.to_owned(),
            addr: addr.to_owned(),
            in_flight,
        });
        let has_confirmed = |node: &NodeId| {
            self.latest.get(node).is_some_and(|received| {
                received.message.applied_table_revision >= revision && received.age(now) <= MAX_SHOWN_AGE
            })
        };
        (draining.collect(), nodes.filter(|node| !has_confirmed(node)).collect())
    }

    /// What all proxies together send to each endpoint.
    pub(crate) fn endpoint_rates(&self, now: Instant) -> EndpointRates {
        let mut rates = EndpointRates::new();
        for (message, age) in self.messages(now, FRESH) {
            for upstream in message.traffic.iter() {
                for endpoint in &upstream.endpoints {
                    let key = (upstream.upstream.clone(), endpoint.endpoint.clone());
                    let rate = rates.entry(key).or_default();
                    rate.requests_per_s += endpoint.requests_per_s;
                    rate.in_flight += endpoint.in_flight;
                    rate.age = rate.age.max(age);
                }
            }
        }
        rates
    }

    /// Whether `node` sees `peer` alive, by its latest report.
    pub(crate) fn sees_alive(&self, node: NodeId, peer: NodeId) -> bool {
        let links = self.latest.get(&node).into_iter().flat_map(|received| &received.message.report.links);
        links.into_iter().any(|link| link.peer == peer && link.sees == Liveness::Alive)
    }

    /// Warnings that follow from what all nodes with a fresh report have met, the most severe first.
    pub(crate) fn warnings(&self, now: Instant) -> Vec<Warning> {
        let mut found = differences(
            self.messages(now, FRESH).map(|(message, _)| (message.report.node, &message.checkpoints[..])),
        );
        found.extend(losses(self.messages(now, FRESH).map(|(message, _)| &message.report)));
        found.extend(warnings(self.messages(now, FRESH).map(|(message, _)| ProxyReport {
            node: message.report.node,
            failed_listeners: &message.failed_listeners,
            unresolvable_names: &message.unresolvable_names,
            metrics: &message.traffic,
        })));
        found
    }
}

/// A node's part in the cluster group. A change of it is reported and shown at once.
fn leadership(report: &NodeReport) -> (Role, u64, Option<NodeId>) {
    (report.role, report.term, report.leader)
}
