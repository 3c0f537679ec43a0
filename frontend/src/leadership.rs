//! Who leads, who answers, and since when there is no quorum: what the nodes' reports say together.
//!
//! A report outlives its node by a moment, and a leader that is cut off goes on calling itself leader. So there is
//! one leader at the most: the one of the highest term that a majority of the voters confirms.

use ringmaster_common::{
    Timestamp,
    cluster::{self, Node, NodeStatus, Quorum, Role, counts_as_voter, failures_tolerated},
    id::NodeId,
    telemetry::{AgedReport, FRESH_MS, Sample, fresh},
    view::ClusterView,
};
use std::collections::BTreeSet;

/// A node's role as a page shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShownRole {
    /// The leader that a majority of the voters confirms.
    Leader,
    Candidate,
    Follower,
    Learner,
    /// Its last report says that it led this term, and another leader is known or is being elected.
    FormerLeader(u64),
    /// It reports to lead this term, and too few voters answer it.
    WithoutQuorum(u64),
    #[default]
    NotReporting,
}

/// Whether a node answers. Its last report may outlive it by a moment.
pub fn answers(node: &Node, sample: &Sample) -> bool {
    node.status != NodeStatus::Down && fresh(&sample.nodes, node.id).is_some()
}

/// The sets of voters of each of which a write needs a majority.
fn voter_sets(view: &ClusterView, sample: &Sample) -> Vec<BTreeSet<NodeId>> {
    cluster::voter_sets(view.nodes.values(), &sample.nodes)
}

/// The quorum by the voters that answer.
pub fn quorum(view: &ClusterView, sample: &Sample) -> Quorum {
    let answers = |id| view.nodes.get(&id).is_some_and(|node| answers(node, sample));
    Quorum::of(&voter_sets(view, sample), answers)
}

/// The quorum by the voters that answer and that the cluster can count on: these decide how many more may fail.
pub fn counted_quorum(view: &ClusterView, sample: &Sample) -> Quorum {
    let counts = |node: &Node| answers(node, sample) && counts_as_voter(node, &sample.nodes);
    Quorum::of(&voter_sets(view, sample), |id| view.nodes.get(&id).is_some_and(counts))
}

/// Whether too few voters answer for a write.
pub fn is_without_quorum(view: &ClusterView, sample: &Sample) -> bool {
    !quorum(view, sample).has
}

/// The leader that a majority of the voters confirms.
pub fn leader<'a>(view: &ClusterView, sample: &'a Sample) -> Option<&'a AgedReport> {
    let claims = sample.nodes.iter().filter(|aged| {
        let is_down = view.nodes.get(&aged.report.node).is_some_and(|node| node.status == NodeStatus::Down);
        aged.age_ms <= FRESH_MS && aged.report.role == Role::Leader && !is_down
    });
    let latest = claims.max_by_key(|aged| aged.report.term)?;
    let (id, term) = (latest.report.node, latest.report.term);
    let confirms = |voter: NodeId| {
        voter == id
            || fresh(&sample.nodes, voter).is_some_and(|aged| {
                // A report from before the election names the leader of an earlier term.
                let is_earlier = aged.report.term < term && aged.report.leader.is_some();
                aged.report.leader == Some(id) || is_earlier
            })
    };
    Quorum::of(&voter_sets(view, sample), confirms).has.then_some(latest)
}

/// The role to show for a node.
pub fn shown_role(view: &ClusterView, sample: &Sample, id: NodeId) -> ShownRole {
    let Some(aged) = fresh(&sample.nodes, id) else { return ShownRole::NotReporting };
    match aged.report.role {
        Role::Leader if leader(view, sample).is_some_and(|leader| leader.report.node == id) => {
            ShownRole::Leader
        }
        Role::Leader if is_without_quorum(view, sample) => ShownRole::WithoutQuorum(aged.report.term),
        Role::Leader => ShownRole::FormerLeader(aged.report.term),
        Role::Follower => ShownRole::Follower,
        Role::Learner => ShownRole::Learner,
        Role::Candidate => ShownRole::Candidate,
    }
}

/// How long ago any other node last heard from `node`, and the observer that heard it last.
pub fn silence(sample: &Sample, node: NodeId) -> Option<(u64, NodeId)> {
    let reports = sample.nodes.iter().filter(|aged| aged.report.node != node && aged.age_ms <= FRESH_MS);
    let heard = reports.filter_map(|aged| {
        let link = aged.report.links.iter().find(|link| link.peer == node)?;
        Some((aged.age_ms + link.silent_ms?, aged.report.node))
    });
    heard.min()
}

/// When the quorum was lost: as the first voter too many fell silent. None while there is one, and where that is not
/// known.
pub fn quorum_lost_at(view: &ClusterView, sample: &Sample) -> Option<Timestamp> {
    let is_silent = |id: &NodeId| view.nodes.get(id).is_none_or(|node| !answers(node, sample));
    let lost_ago = |voters: &BTreeSet<NodeId>| {
        let silent: Vec<NodeId> = voters.iter().copied().filter(is_silent).collect();
        let spare = failures_tolerated(voters.len());
        if silent.len() <= spare {
            return None;
        }
        let mut silences: Vec<u64> = silent.iter().filter_map(|id| Some(silence(sample, *id)?.0)).collect();
        silences.sort_unstable_by(|one, other| other.cmp(one));
        silences.get(spare).copied()
    };
    let lost = voter_sets(view, sample).iter().filter_map(lost_ago).max()?;
    let lost = i64::try_from(lost).ok()?;
    Timestamp::from_millisecond(sample.at.as_millisecond() - lost).ok()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use ringmaster_common::{
        cluster::Liveness,
        id::Revision,
        telemetry::{Link, NodeReport},
    };

    /// A report of a quiet node.
    pub fn report(node: u64, role: Role, term: u64) -> AgedReport {
        AgedReport {
            age_ms: 100,
            report: NodeReport {
                node: NodeId(node),
                role,
                term,
                leader: (role == Role::Leader).then_some(NodeId(node)),
                uptime_ms: 60_000,
                ..NodeReport::default()
            },
        }
    }

    pub fn sample(nodes: Vec<AgedReport>) -> Sample {
        Sample { from: NodeId(1), at: Timestamp::UNIX_EPOCH, nodes, warnings: Vec::new() }
    }

    /// A voter that is up.
    pub fn node(id: u64) -> Node {
        Node {
            id: NodeId(id),
            name: format!("node-{id}"),
            zone: "a".to_owned(),
            weight: 1,
            api_addr: String::new(),
            peer_addr: String::new(),
            public_url: String::new(),
            status: NodeStatus::Up,
            status_reason: "it answers".to_owned(),
            status_since: "2026-01-01T10:00:00Z".parse().unwrap(),
            status_revision: Revision(1),
            voter: true,
            opinions: Vec::new(),
        }
    }

    pub fn view(nodes: u64) -> ClusterView {
        ClusterView { nodes: (1..=nodes).map(node).collect(), ..ClusterView::default() }
    }

    /// The report of a node that follows `leader`.
    pub fn follower(node: u64, leader: u64, term: u64) -> AgedReport {
        let mut aged = report(node, Role::Follower, term);
        aged.report.leader = Some(NodeId(leader));
        aged
    }

    fn led_by(nodes: u64, reports: Vec<AgedReport>) -> Option<u64> {
        leader(&view(nodes), &sample(reports)).map(|aged| aged.report.node.0)
    }

    #[test]
    fn the_leader_is_the_one_that_a_majority_confirms() {
        let claim = |node, term| report(node, Role::Leader, term);
        assert_eq!(led_by(3, vec![claim(2, 7), follower(1, 2, 7), follower(3, 2, 7)]), Some(2));
        assert_eq!(led_by(3, vec![claim(2, 7), follower(1, 2, 7)]), Some(2), "one of three may be silent");
        assert_eq!(led_by(3, vec![claim(2, 7)]), None, "a leader alone commits nothing");
        assert_eq!(led_by(1, vec![claim(1, 7)]), Some(1), "the only voter is a majority");
        // Right after an election, the others' reports are still from before it.
        assert_eq!(led_by(3, vec![claim(2, 7), follower(1, 3, 6), claim(3, 6)]), Some(2));
        // The leader was killed: its last report is still there, and the others look for a new one.
        let looking = |node| report(node, Role::Candidate, 7);
        assert_eq!(led_by(3, vec![claim(1, 6), looking(2), looking(3)]), None);
        let mut old = claim(2, 7);
        old.age_ms = FRESH_MS + 1;
        assert_eq!(
            led_by(3, vec![old, follower(1, 2, 7), follower(3, 2, 7)]),
            None,
            "an old report is not now"
        );
        let mut down = view(3);
        down.nodes.get_mut(&NodeId(2)).unwrap().status = NodeStatus::Down;
        let reports = sample(vec![claim(2, 7), follower(1, 2, 7), follower(3, 2, 7)]);
        assert_eq!(leader(&down, &reports), None, "the cluster has agreed that it is down");
    }

    #[test]
    fn two_nodes_never_wear_the_leaders_badge() {
        use ShownRole::{Follower, FormerLeader, Leader, NotReporting, WithoutQuorum};
        let (view, claim) = (view(3), |node, term| report(node, Role::Leader, term));
        let roles = |reports: Vec<AgedReport>| {
            let sample = sample(reports);
            [1, 2, 3].map(|id| shown_role(&view, &sample, NodeId(id)))
        };
        assert_eq!(
            roles(vec![claim(1, 6), claim(2, 7), follower(3, 2, 7)]),
            [FormerLeader(6), Leader, Follower],
            "the last report of a dead leader"
        );
        assert_eq!(roles(vec![claim(2, 7)]), [NotReporting, WithoutQuorum(7), NotReporting]);
    }

    /// A report of node `from` that last heard each of these so many milliseconds ago.
    fn heard(from: u64, peers: &[(u64, u64)]) -> AgedReport {
        let mut aged = report(from, Role::Follower, 7);
        let link = |(peer, silent_ms): &(u64, u64)| Link {
            peer: NodeId(*peer),
            sees: Liveness::Dead,
            silent_ms: Some(*silent_ms),
            ..Link::default()
        };
        aged.report.links = peers.iter().map(link).collect();
        aged
    }

    #[test]
    fn the_quorum_was_lost_as_the_first_voter_too_many_fell_silent() {
        let at = |seconds: i64| Timestamp::from_millisecond(seconds * 1_000).unwrap();
        let lost =
            |nodes, reports| quorum_lost_at(&view(nodes), &Sample { at: at(1_000), ..sample(reports) });
        assert_eq!(lost(3, vec![heard(1, &[(2, 39_900), (3, 29_900)])]), Some(at(970)));
        assert_eq!(lost(3, vec![heard(1, &[(2, 39_900)]), heard(3, &[])]), None, "two of three are enough");
        assert_eq!(lost(3, vec![heard(1, &[(2, 39_900)])]), None, "not known");
        let sample = sample(vec![heard(1, &[(3, 39_900)]), heard(2, &[(3, 4_900)])]);
        assert_eq!(silence(&sample, NodeId(3)), Some((5_000, NodeId(2))), "node 2 heard it last");
    }
}
