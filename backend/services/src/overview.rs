//! Overview: the cluster and its nodes as this node knows them, replicated and measured.
//!
//! It needs no quorum: it is how a client learns that there is none.

use crate::{
    Services,
    page::{Paging, page},
};
use ringmaster_cluster::State;
use ringmaster_common::{
    cluster::{CanLose, Cluster, Node, NodeInfo, Quorum, Role, can_lose_now, counts_as_voter},
    error::{Code, Refusal},
    id::NodeId,
    page::Page,
    telemetry::AgedReport,
    traffic::warnings::unserved,
};
use std::{collections::BTreeSet, time::Duration};

/// A role that was reported longer ago than this says nothing about now.
const ROLE_AGE_LIMIT: Duration = Duration::from_secs(2);
/// Nodes report to each other at least twice a second, so a node that is silent to all others was last heard
/// within this time of each other.
const HEARD_LATER_BY: Duration = Duration::from_secs(1);

/// The cluster, its members and its problems.
pub fn cluster(services: &Services) -> Cluster {
    let state = services.group.state();
    let snapshot = Snapshot::take(services, &state);
    // A node that is dead and a node that is cut off from here are both of no use to a write.
    let spare = snapshot.quorum.spare().min(snapshot.counted(&services.group.voter_sets()).spare());
    Cluster {
        name: state.name.clone(),
        id: state.id.clone(),
        incarnation: state.incarnation,
        feature_level: state.feature_level,
        revision: state.revision,
        term: services.group.status().term,
        leader: snapshot.leader,
        answered_by: services.group.me(),
        demo: services.is_demo,
        failures_tolerated: spare,
        nodes: snapshot.all(),
        quorum: snapshot.quorum,
        next_id: state.membership.next_id(),
        warnings: unserved(state.upstreams.iter(), state.routes.iter())
            .chain(services.telemetry.warnings())
            .collect(),
    }
}

/// All members, in the order of ids: measurements and their age, reachability, and whether the cluster can lose them.
pub fn nodes(services: &Services, paging: Paging<NodeId>) -> Page<NodeInfo> {
    let state = services.group.state();
    let all = Snapshot::take(services, &state).all();
    let rest = all.into_iter().filter(|info| info.node.id > paging.after);
    page(rest, paging.limit, |info| info.node.id.to_string())
}

/// One member.
pub fn node(services: &Services, id: NodeId) -> Result<NodeInfo, Refusal> {
    let state = services.group.state();
    match state.membership.get(id) {
        Some(node) => Ok(Snapshot::take(services, &state).info(node)),
        None => Err(Refusal::new(
            Code::UnknownNode,
            format!("node {id} is not a member; {}", state.membership.known()),
        )),
    }
}

/// Whether another node has heard of the node well after this one last did: then only the link from here is cut.
fn heard_elsewhere(reports: &[AgedReport], me: NodeId, node: NodeId, silent_for: Duration) -> bool {
    let others = reports.iter().filter(|aged| aged.report.node != me && aged.report.node != node);
    let mut heard = others.flat_map(|aged| {
        let links = aged.report.links.iter().filter(|link| link.peer == node);
        links.filter_map(|link| Some(Duration::from_millis(aged.age_ms + link.silent_ms?)))
    });
    heard.any(|heard_ago| heard_ago + HEARD_LATER_BY <= silent_for)
}

/// The replicated state and the measurements, taken at one moment.
struct Snapshot<'a> {
    state: &'a State,
    reports: Vec<AgedReport>,
    me: NodeId,
    quorum: Quorum,
    leader: Option<NodeId>,
    /// The nodes that answer at this moment: the last report of a dead node counts for some seconds.
    answering: BTreeSet<NodeId>,
}

impl<'a> Snapshot<'a> {
    fn take(services: &Services, state: &'a State) -> Self {
        let quorum = services.group.quorum();
        // A node that no quorum follows does not lead, even if it takes itself for the leader.
        let leader = services.group.leader().filter(|_| quorum.has);
        let (me, reports) = (services.group.me(), services.telemetry.latest());
        let answering =
            services.group.answering(|silent_for, node| heard_elsewhere(&reports, me, node, silent_for));
        Snapshot { state, reports, me, quorum, leader, answering }
    }

    fn all(&self) -> Vec<NodeInfo> {
        self.state.membership.iter().map(|node| self.info(node)).collect()
    }

    fn report(&self, id: NodeId) -> Option<&AgedReport> {
        self.reports.iter().find(|aged| aged.report.node == id)
    }

    /// The leader is known from this node's own view: a node that once reported that it leads may be dead.
    fn role(&self, id: NodeId, report: Option<&AgedReport>) -> Option<Role> {
        if self.leader == Some(id) {
            return Some(Role::Leader);
        }
        let young = report.filter(|aged| Duration::from_millis(aged.age_ms) <= ROLE_AGE_LIMIT)?;
        Some(young.report.role).filter(|role| *role != Role::Leader)
    }

    fn info(&self, node: &Node) -> NodeInfo {
        let report = self.report(node.id);
        let replication = self.leader.and_then(|leader| self.report(leader)).into_iter();
        let own_link =
            self.report(self.me).and_then(|own| own.report.links.iter().find(|link| link.peer == node.id));
        NodeInfo {
            node: node.clone(),
            role: self.role(node.id, report),
            lag: replication
                .flat_map(|aged| &aged.report.replication)
                .find(|replication| replication.node == node.id)
                .map(|replication| replication.lag),
            rtt_us: own_link.and_then(|link| link.rtt_us),
            age_ms: report.map(|aged| aged.age_ms),
            links: report.map(|aged| aged.report.links.clone()).unwrap_or_default(),
            can_lose: self.can_lose(node),
        }
    }

    fn can_lose(&self, node: &Node) -> CanLose {
        let answers = |id: NodeId| self.answering.contains(&id);
        let nodes = self.state.membership.iter();
        can_lose_now(node.id, nodes, &self.quorum, self.leader, &self.reports, answers)
    }

    /// The quorum of the voters that answer and that the cluster can count on.
    fn counted(&self, sets: &[BTreeSet<NodeId>]) -> Quorum {
        let counts = |node: &Node| counts_as_voter(node, &self.reports) && self.answering.contains(&node.id);
        Quorum::of(sets, |id| self.state.membership.get(id).is_some_and(counts))
    }
}
