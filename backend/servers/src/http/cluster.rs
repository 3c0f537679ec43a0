//! `/v1/cluster` and `/v1/nodes`: what the answering node knows, agreed and measured.
//!
//! These answer without a quorum too; they are how one learns that there is none.

use crate::http::{
    Api,
    extract::{PageQuery, PathId, QueryOf, page},
    openapi::problems,
    problem::Refused,
};
use axum::{Json, extract::State as Extension};
use ringmaster_cluster::State;
use ringmaster_common::{
    cluster::{CanLose, Cluster, Node, NodeInfo, Quorum, Role, can_lose_while},
    error::Code,
    id::NodeId,
    page::Page,
    telemetry::AgedReport,
    traffic::warnings::unserved,
};
use std::{collections::BTreeSet, time::Duration};

/// A role that was reported longer ago than this says nothing about now.
const ROLE_AGE_LIMIT: Duration = Duration::from_secs(2);
/// Nodes hear of each other twice a second at least, so who is silent to all was heard last within this.
const HEARD_LATER_BY: Duration = Duration::from_secs(1);

/// The cluster, as the answering node knows it
///
/// Answered without a quorum too: it is how one learns that there is none.
#[utoipa::path(
    get, path = "/cluster", tag = "cluster", operation_id = "cluster",
    responses((status = 200, description = "What is agreed, and what was measured", body = Cluster), ClusterRefusals)
)]
pub async fn cluster(Extension(api): Extension<Api>) -> Json<Cluster> {
    let state = api.group.state();
    let snapshot = Snapshot::take(&api, &state);
    let (quorum, nodes) = (snapshot.quorum, snapshot.all());
    // Who is dead and who is cut off from here are both of no use to a write.
    let living = quorum.answering.min(snapshot.living_voters());
    Json(Cluster {
        name: state.name.clone(),
        id: state.id.clone(),
        incarnation: state.incarnation,
        feature_level: state.feature_level,
        revision: state.revision,
        term: api.group.status().term,
        leader: snapshot.leader,
        answered_by: api.group.me(),
        demo: crate::demo_child::is_demo(),
        failures_tolerated: living.saturating_sub(quorum.needed),
        quorum,
        next_id: state.membership.next_id(),
        warnings: unserved(state.upstreams.iter()).chain(api.telemetry.warnings()).collect(),
        nodes,
    })
}

problems!(ClusterRefusals: []);

/// All members
///
/// With what was measured of each, its age, who sees whom, and whether the cluster can lose it.
#[utoipa::path(
    get, path = "/nodes", tag = "cluster", operation_id = "nodes", params(PageQuery),
    responses((status = 200, description = "In the order of ids", body = Page<NodeInfo>), NodesRefusals)
)]
pub async fn nodes(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<NodeInfo>>, Refused> {
    let (limit, after) = (query.limit()?, query.cursor(NodeId(0))?);
    let state = api.group.state();
    let rest = Snapshot::take(&api, &state).all().into_iter().filter(|info| info.node.id > after);
    Ok(Json(page(rest, limit, |info| info.node.id.to_string())))
}

problems!(NodesRefusals: [], InvalidRequest);

/// One member
#[utoipa::path(
    get, path = "/nodes/{id}", tag = "cluster", operation_id = "node", params(("id" = NodeId, Path, description = "A node's id", example = 2)),
    responses((status = 200, description = "The member", body = NodeInfo), NodeRefusals)
)]
pub async fn node(
    Extension(api): Extension<Api>,
    PathId(id): PathId<NodeId>,
) -> Result<Json<NodeInfo>, Refused> {
    let state = api.group.state();
    match state.membership.get(id) {
        Some(node) => Ok(Json(Snapshot::take(&api, &state).info(node))),
        None => Err(Refused::new(
            Code::UnknownNode,
            format!("node {id} is not a member; {}", state.membership.known()),
        )),
    }
}

problems!(NodeRefusals: [], InvalidRequest, UnknownNode);

/// Whether somebody has heard of the node well after this one last did: then it is only cut off from here.
fn heard_elsewhere(reports: &[AgedReport], me: NodeId, node: NodeId, silent_for: Duration) -> bool {
    let others = reports.iter().filter(|aged| aged.report.node != me && aged.report.node != node);
    let mut heard = others.flat_map(|aged| {
        let links = aged.report.links.iter().filter(|link| link.peer == node);
        links.filter_map(|link| Some(Duration::from_millis(aged.age_ms + link.silent_ms?)))
    });
    heard.any(|heard_ago| heard_ago + HEARD_LATER_BY <= silent_for)
}

/// What is agreed and what was measured, taken at one moment.
struct Snapshot<'a> {
    state: &'a State,
    reports: Vec<AgedReport>,
    me: NodeId,
    quorum: Quorum,
    leader: Option<NodeId>,
    /// Who answers, as far as can be told at this moment: reports of the dead are believed for some seconds.
    answering: BTreeSet<NodeId>,
}

impl<'a> Snapshot<'a> {
    fn take(api: &Api, state: &'a State) -> Self {
        let quorum = api.group.quorum();
        // Nobody leads whom no quorum follows, whatever they think.
        let leader = api.group.leader().filter(|_| quorum.has);
        let (me, reports) = (api.group.me(), api.telemetry.latest());
        let answering =
            api.group.answering(|silent_for, node| heard_elsewhere(&reports, me, node, silent_for));
        Snapshot { state, reports, me, quorum, leader, answering }
    }

    fn all(&self) -> Vec<NodeInfo> {
        self.state.membership.iter().map(|node| self.info(node)).collect()
    }

    fn report(&self, id: NodeId) -> Option<&AgedReport> {
        self.reports.iter().find(|aged| aged.report.node == id)
    }

    /// Who leads is told by whoever answers; a node that once reported that it leads may be dead.
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
        let Quorum { has, voters, answering, needed } = self.quorum;
        if node.voter && !has {
            // Reports of the dead are believed for some seconds; what does not answer is known at once.
            let reason = format!("no: {answering} of {voters} voters answer, and writes need {needed}");
            return CanLose { answer: false, reason };
        }
        let answers = |id: NodeId| self.answering.contains(&id);
        can_lose_while(node.id, self.state.membership.iter(), self.leader, &self.reports, answers)
    }

    fn living_voters(&self) -> u64 {
        let voters = self.state.membership.iter().filter(|node| node.voter && node.is_alive());
        voters.filter(|node| self.answering.contains(&node.id)).count() as u64
    }
}
