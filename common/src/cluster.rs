//! The cluster as a whole: its members, its quorum, and the nodes that it can lose.

pub use crate::{
    node::{Liveness, MAX_NAME_BYTES, Node, NodeStatus, Opinion, Role},
    quorum::{Majority, Quorum, counts_as_voter, failures_tolerated, majority, voter_sets},
};

use crate::{
    id::{NodeId, Revision},
    telemetry::{AgedReport, fresh},
};
use serde::{Deserialize, Serialize};

/// How many voters the cluster group has before further nodes become learners.
pub const VOTERS: usize = 3;
/// How many nodes a cluster holds.
pub const MAX_NODES: usize = 7;

/// The body of `GET /v1/cluster`: what the answering node knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cluster {
    pub name: String,
    pub id: String,
    pub incarnation: crate::id::Incarnation,
    /// The feature level that all members support.
    #[serde(default)]
    pub feature_level: u32,
    /// The revision that the answering node has applied.
    pub revision: Revision,
    pub term: u64,
    /// The current leader, as far as the answering node knows.
    pub leader: Option<NodeId>,
    /// The node that answers.
    pub answered_by: NodeId,
    /// Whether this is a demo cluster, which offers chaos.
    pub demo: bool,
    pub quorum: Quorum,
    /// How many of the voters may fail from now on with the cluster still taking writes.
    pub failures_tolerated: u64,
    /// An id that no node has or had: that of the next one to join.
    #[serde(default)]
    pub next_id: NodeId,
    /// Warnings from the nodes' proxies.
    #[serde(default)]
    pub warnings: Vec<crate::plan::Warning>,
    pub nodes: Vec<NodeInfo>,
}

/// A member with its role: an item of `GET /v1/cluster` and `GET /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeInfo {
    #[serde(flatten)]
    pub node: Node,
    /// As last reported by the node; null where there is no recent report.
    pub role: Option<Role>,
    /// How many entries the node's log lacks, by the leader's count.
    pub lag: Option<u64>,
    /// From the answering node, in microseconds.
    pub rtt_us: Option<u64>,
    /// How old role, lag and round-trip time are.
    pub age_ms: Option<u64>,
    /// The node's links to its peers, as it last reported.
    pub links: Vec<crate::telemetry::Link>,
    pub can_lose: CanLose,
}

/// "Can I lose this node?"
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CanLose {
    pub answer: bool,
    /// Why, or why not, as a sentence.
    pub reason: String,
}

/// Whether the cluster still takes writes without `id`, by the replicated state of the members and by their
/// reachability: one of the others has to reach a majority, to lead it.
pub fn can_lose<'a>(
    id: NodeId,
    nodes: impl Iterator<Item = &'a Node>,
    leader: Option<NodeId>,
    reports: &[AgedReport],
) -> CanLose {
    can_lose_while(id, nodes, leader, reports, |_| true)
}

/// The same with fresher knowledge: `answers` says which nodes answer now, before the cluster has agreed on it, and
/// `quorum` whether they are enough.
pub fn can_lose_now<'a>(
    id: NodeId,
    nodes: impl Iterator<Item = &'a Node>,
    quorum: &Quorum,
    leader: Option<NodeId>,
    reports: &[AgedReport],
    answers: impl Fn(NodeId) -> bool,
) -> CanLose {
    let verdict = can_lose_while(id, nodes, leader, reports, answers);
    if quorum.has || (verdict.answer && verdict.reason == NO_VOTER) {
        return verdict;
    }
    // A missing answer is known at once, while the last report of a dead node counts for some seconds.
    let (answering, needed) = (quorum.answering_in_words(), quorum.requirement());
    let verb = if quorum.answering == 1 && quorum.joint.is_empty() { "answers" } else { "answer" };
    CanLose { answer: false, reason: format!("no: {answering} {verb}, and writes need {needed}") }
}

const NO_VOTER: &str = "yes: it does not vote";

fn can_lose_while<'a>(
    id: NodeId,
    nodes: impl Iterator<Item = &'a Node>,
    leader: Option<NodeId>,
    reports: &[AgedReport],
    answers: impl Fn(NodeId) -> bool,
) -> CanLose {
    let nodes: Vec<&Node> = nodes.collect();
    let sets = voter_sets(nodes.iter().copied(), reports);
    let is_voter = |node: &&&Node| sets.iter().any(|voters| voters.contains(&node.id));
    let mut others: Vec<&Node> = Vec::new();
    let mut own = None;
    let mut missing = Vec::new();
    for node in nodes.iter().filter(is_voter) {
        if node.id == id {
            own = Some(node);
        } else if !node.is_alive() {
            missing.push(format!("node {} is {}", node.id, node.status.as_str()));
        } else if !counts_as_voter(node, reports) {
            missing.push(format!("node {} has lost entries that it had acknowledged", node.id));
        } else if answers(node.id) {
            others.push(node);
        } else {
            missing.push(format!("node {} does not answer", node.id));
        }
    }
    let Some(own) = own else {
        return CanLose { answer: true, reason: NO_VOTER.to_owned() };
    };
    let left = Quorum::of(&sets, |voter| others.iter().any(|other| other.id == voter));
    let reached_from = |from: &Node| {
        let reached = |voter: NodeId| others.iter().any(|to| to.id == voter && reaches(from, to, reports));
        Quorum::of(&sets, reached).has
    };
    let answer = others.iter().any(|from| reached_from(from));
    let requirement = left.requirement();
    let reason = if !answer && left.has {
        let apart = others.iter().flat_map(|from| others.iter().map(move |to| (from, to)));
        let apart: Vec<String> = apart
            .filter(|(from, to)| !reaches(from, to, reports))
            .map(|(from, to)| format!("node {} does not reach node {}", from.id, to.id))
            .collect();
        format!("no: {}; writes need {requirement}", apart.join(", "))
    } else if !answer && missing.is_empty() {
        format!("no: writes need {requirement}, and {} would be left", left.answering)
    } else if !answer {
        format!("no: {}; writes need {requirement}", missing.join(", "))
    } else if !(own.is_alive() && answers(id)) {
        "already down; the others keep the quorum".to_owned()
    } else if leader == Some(id) {
        "yes, after a leadership transfer".to_owned()
    } else {
        "yes".to_owned()
    };
    CanLose { answer, reason }
}

/// Whether `from` can call `to`: by its own fresh report, or else by that of `to`, since a connection
/// needs both ways, or else by its last opinion. Without any of these, the link is taken to work.
fn reaches(from: &Node, to: &Node, reports: &[AgedReport]) -> bool {
    let link = |of: NodeId, peer: NodeId| {
        fresh(reports, of).and_then(|aged| aged.report.links.iter().find(|link| link.peer == peer))
    };
    if from.id == to.id {
        true
    } else if let Some(own) = link(from.id, to.id) {
        own.works()
    } else if let Some(other) = link(to.id, from.id) {
        other.sees == Liveness::Alive
    } else {
        let opinion = to.opinions.iter().find(|opinion| opinion.observer == from.id);
        opinion.is_none_or(|opinion| opinion.sees == Liveness::Alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Timestamp,
        telemetry::{Link, NodeReport},
    };

    fn voters(count: u64) -> Vec<Node> {
        let node = |id: u64| Node {
            id: NodeId(id),
            name: format!("node-{id}"),
            zone: "a".to_owned(),
            weight: 1,
            api_addr: String::new(),
            peer_addr: String::new(),
            public_url: String::new(),
            status: NodeStatus::Up,
            status_reason: String::new(),
            status_since: Timestamp::UNIX_EPOCH,
            status_revision: Revision(1),
            voter: true,
            opinions: Vec::new(),
        };
        (1..=count).map(node).collect()
    }

    /// The report of `observer`, with these links.
    fn report(observer: u64, links: Vec<Link>) -> AgedReport {
        AgedReport {
            age_ms: 100,
            report: NodeReport { node: NodeId(observer), links, ..NodeReport::default() },
        }
    }

    fn link(peer: u64, sees: Liveness) -> Link {
        Link { peer: NodeId(peer), sees, ..Link::default() }
    }

    /// All of `count` nodes hear each other, but for these pairs.
    fn reports(count: u64, cut: &[(u64, u64)]) -> Vec<AgedReport> {
        let sees = |observer: u64, peer: u64| {
            let is_cut = cut.contains(&(observer, peer)) || cut.contains(&(peer, observer));
            if is_cut { Liveness::Dead } else { Liveness::Alive }
        };
        let links = |observer: u64| {
            let peers = (1..=count).filter(|peer| *peer != observer);
            peers.map(|peer| link(peer, sees(observer, peer))).collect()
        };
        (1..=count).map(|observer| report(observer, links(observer))).collect()
    }

    fn losable(nodes: &[Node], reports: &[AgedReport]) -> Vec<u64> {
        let can = |id: &NodeId| can_lose(*id, nodes.iter(), Some(NodeId(1)), reports).answer;
        nodes.iter().map(|node| node.id).filter(can).map(|id| id.0).collect()
    }

    #[test]
    fn the_only_bridge_cannot_be_lost() {
        let nodes = voters(3);
        assert_eq!(losable(&nodes, &reports(3, &[])), [1, 2, 3]);
        let cut = reports(3, &[(1, 2)]);
        assert_eq!(losable(&nodes, &cut), [1, 2]);
        let reason = can_lose(NodeId(3), nodes.iter(), Some(NodeId(1)), &cut).reason;
        assert_eq!(
            reason,
            "no: node 1 does not reach node 2, node 2 does not reach node 1; writes need 2 of 3 voters"
        );
        // Each of the two alone says as much, as where only one report comes through.
        for alone in [&cut[..1], &cut[1..2]] {
            assert_eq!(losable(&nodes, alone), [1, 2]);
        }
        // Of five, one is left that reaches three.
        assert_eq!(losable(&voters(5), &reports(5, &[(1, 2)])), [1, 2, 3, 4, 5]);
        let star = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)];
        assert_eq!(losable(&voters(5), &reports(5, &star)), [1, 2, 3, 4], "all reach only node 5");
    }

    #[test]
    fn who_does_not_answer_any_more_is_not_counted_on() {
        let (nodes, reports) = (voters(3), reports(3, &[]));
        let verdict =
            |id| can_lose_while(NodeId(id), nodes.iter(), Some(NodeId(1)), &reports, |id| id.0 != 3);
        for living in [1, 2] {
            assert_eq!(verdict(living).reason, "no: node 3 does not answer; writes need 2 of 3 voters");
        }
        assert_eq!(verdict(3).reason, "already down; the others keep the quorum");
    }

    #[test]
    fn without_a_quorum_no_voter_is_safe_to_stop() {
        let mut nodes = voters(4);
        nodes[3].voter = false;
        let quorum = Quorum::of(&[[1, 2, 3].map(NodeId).into()], |id| id.0 == 1);
        let verdict = |id| {
            let leader = None;
            can_lose_now(NodeId(id), nodes.iter(), &quorum, leader, &reports(4, &[]), |id| id.0 == 1)
        };
        for voter in [1, 2, 3] {
            assert_eq!(verdict(voter).reason, "no: 1 of 3 voters answers, and writes need 2 of 3 voters");
        }
        assert!(verdict(4).answer, "a learner is no part of it");
    }

    #[test]
    fn a_voter_that_has_lost_entries_does_not_count() {
        let (nodes, mut reports) = (voters(3), reports(3, &[]));
        reports[2].report.lost_through = Some(262);
        assert_eq!(losable(&nodes, &reports), [3]);
        let reason = can_lose(NodeId(1), nodes.iter(), Some(NodeId(1)), &reports).reason;
        assert_eq!(reason, "no: node 3 has lost entries that it had acknowledged; writes need 2 of 3 voters");
    }

    /// From voters 1, 2, 3 to voters 1, 4, 5. All five are marked as voters, and four of five would be left.
    #[test]
    fn while_voters_change_both_majorities_must_be_left() {
        let (mut nodes, mut reports) = (voters(5), reports(5, &[]));
        let set = |ids: [u64; 3]| ids.map(NodeId).into_iter().collect();
        reports[0].report.joint_voters = vec![set([1, 2, 3]), set([1, 4, 5])];
        reports[0].report.last_log_index = 7;
        assert_eq!(losable(&nodes, &reports), [1, 2, 3, 4, 5]);
        nodes[4].status = NodeStatus::Down;
        assert_eq!(losable(&nodes, &reports), [2, 3, 5]);
        let reason = can_lose(NodeId(4), nodes.iter(), Some(NodeId(1)), &reports).reason;
        assert_eq!(
            reason,
            "no: node 5 is down; writes need 2 of the 3 voters before the change of voters and 2 of the 3 after it"
        );
        // A node with a longer log knows that the change has ended.
        reports[1].report.last_log_index = 8;
        assert_eq!(losable(&nodes, &reports), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn who_cannot_connect_cannot_lead() {
        let nodes = voters(3);
        let mut one_way = reports(3, &[]);
        let connect = |reports: &mut Vec<AgedReport>, from: usize, to: u64| {
            let link = reports[from - 1].report.links.iter_mut().find(|link| link.peer == NodeId(to));
            link.unwrap().trouble = Some("it cannot connect".to_owned());
        };
        connect(&mut one_way, 2, 1);
        assert_eq!(losable(&nodes, &one_way), [1, 2, 3], "node 1 still can");
        connect(&mut one_way, 1, 2);
        assert_eq!(losable(&nodes, &one_way), [1, 2]);
    }

    #[test]
    fn without_reports_opinions_count() {
        let mut nodes = voters(3);
        assert_eq!(losable(&nodes, &[]), [1, 2, 3]);
        nodes[0].set_opinion(NodeId(2), Liveness::Dead, Timestamp::UNIX_EPOCH);
        nodes[1].set_opinion(NodeId(1), Liveness::Dead, Timestamp::UNIX_EPOCH);
        assert_eq!(losable(&nodes, &[]), [1, 2]);
        assert_eq!(losable(&nodes, &reports(3, &[])), [1, 2, 3], "a fresh report is the newer word");
        let mut old = reports(3, &[]);
        old.iter_mut().for_each(|aged| aged.age_ms = 60_000);
        assert_eq!(losable(&nodes, &old), [1, 2]);
    }

    #[test]
    fn the_dead_are_counted_out() {
        let mut nodes = voters(3);
        nodes[2].status = NodeStatus::Down;
        assert_eq!(losable(&nodes, &reports(3, &[(1, 3), (2, 3)])), [3]);
    }
}
