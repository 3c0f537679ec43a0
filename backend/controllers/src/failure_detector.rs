//! Failure detection: turns each node's view of its links into the cluster's status of nodes.
//!
//! Each node judges its own links and reports that as telemetry. The leader turns the reports into statuses, by majority
//! among the voters that report, and proposes changes alone. Opinions are kept beside the verdict, so that a
//! disagreement can be seen.
//!
//! A node that flaps is damped: the more often it went down lately, the longer it must have answered before its status
//! is up again ([`FlapDamper`]). That is the only memory here, and a new leader that lacks it trusts such a node sooner.
//! A change is remembered once it was recorded.

use crate::reconcile::{self, Controller, Leadership, NextLook};
use ringmaster_cluster::{
    State,
    command::{Command, OpinionChange, StatusChange},
};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{
    cluster::{Liveness, Node, NodeStatus},
    duration::millis,
    id::NodeId,
    telemetry::AgedReport,
};
use ringmaster_net::{clock, flap_damper::FlapDamper};
use ringmaster_telemetry::Telemetry;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// The opinions in an older report do not count.
const MAX_REPORT_AGE: Duration = Duration::from_millis(1_500);
/// How often the leader looks even if no report comes.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The longest that a flapping node must have answered before its status is up again.
const MAX_HOLD: Duration = Duration::from_secs(30);

pub async fn run(group: ClusterGroup, telemetry: Arc<Telemetry>) {
    let changes = telemetry.watch();
    reconcile::run(group, changes, FailureDetector { telemetry, dampers: Dampers::default() }).await;
}

struct FailureDetector {
    telemetry: Arc<Telemetry>,
    dampers: Dampers,
}

impl Controller for FailureDetector {
    async fn reconcile(&mut self, leadership: &Leadership) -> NextLook {
        let (state, leader, reports) = (leadership.state(), leadership.me(), self.telemetry.latest());
        let propose = |command| leadership.propose(command);
        let recorded =
            record_changes(&state, leader, &reports, &mut self.dampers, clock::now(), propose).await;
        if let Err(refusal) = recorded {
            tracing::debug!(%refusal, "a change of node health was not recorded; the leader tries again");
        }
        NextLook::within(POLL_INTERVAL)
    }
}

/// Proposes the changes, and remembers them once they were recorded.
async fn record_changes<R, E, Proposal: Future<Output = Result<R, E>>>(
    state: &State,
    leader: NodeId,
    reports: &[AgedReport],
    dampers: &mut Dampers,
    now: Instant,
    propose: impl FnOnce(Command) -> Proposal,
) -> Result<(), E> {
    let mut then = dampers.clone();
    if let Some(command) = judge(state, leader, reports, &mut then, now) {
        propose(command).await?;
    }
    *dampers = then;
    Ok(())
}

/// The changes as a command; none if nothing changed. `dampers` become what they are once that is recorded.
fn judge(
    state: &State,
    leader: NodeId,
    reports: &[AgedReport],
    dampers: &mut Dampers,
    now: Instant,
) -> Option<Command> {
    let fresh: Vec<_> = reports
        .iter()
        .filter(|aged| Duration::from_millis(aged.age_ms) <= MAX_REPORT_AGE)
        .filter(|aged| state.membership.get(aged.report.node).is_some())
        .collect();
    dampers.0.retain(|id, _| state.membership.get(*id).is_some());
    let mut opinions = Vec::new();
    let mut statuses = Vec::new();
    for node in state.membership.iter() {
        let seen: Vec<(NodeId, Liveness)> = fresh
            .iter()
            .filter(|aged| aged.report.node != node.id)
            .filter_map(|aged| {
                let link = aged.report.links.iter().find(|link| link.peer == node.id)?;
                Some((aged.report.node, link.sees))
            })
            .collect();
        opinions.extend(
            seen.iter()
                .filter(|(observer, sees)| recorded_opinion(node, *observer) != Some(*sees))
                .map(|(observer, sees)| OpinionChange { observer: *observer, subject: node.id, sees: *sees }),
        );
        let voters: Vec<_> =
            seen.iter().filter(|(observer, _)| state.membership.voters.contains(observer)).copied().collect();
        let verdict = verdict(node, leader, &voters);
        let verdict = dampers.damp(node, verdict, now);
        if let Some((status, reason)) = verdict.filter(|(status, _)| *status != node.status) {
            statuses.push(StatusChange { node: node.id, status, reason });
        }
    }
    (!opinions.is_empty() || !statuses.is_empty()).then_some(Command::RecordHealth { opinions, statuses })
}

/// The flap dampers of members.
#[derive(Clone, Debug, Default)]
struct Dampers(BTreeMap<NodeId, FlapDamper>);

impl Dampers {
    /// The verdict, unless it is up for a node that must answer for longer first.
    fn damp(
        &mut self,
        node: &Node,
        verdict: Option<(NodeStatus, String)>,
        now: Instant,
    ) -> Option<(NodeStatus, String)> {
        let (status, mut reason) = verdict?;
        let damper = self.0.entry(node.id).or_default();
        match (node.status, status) {
            (NodeStatus::Suspect | NodeStatus::Down, NodeStatus::Up) => {
                if !damper.looks_healthy(now, MAX_HOLD) {
                    return None;
                }
                if damper.flaps() > 0 {
                    let held = millis(damper.hold(MAX_HOLD));
                    reason += &format!(", and has for {held} ms; it flapped {} times", damper.flaps());
                }
                damper.recovered(now);
            }
            (NodeStatus::Up, NodeStatus::Suspect | NodeStatus::Down) => damper.failed(now),
            (_, NodeStatus::Up) => {}
            _ => damper.looks_failed(),
        }
        Some((status, reason))
    }
}

fn recorded_opinion(node: &Node, observer: NodeId) -> Option<Liveness> {
    node.opinions.iter().find(|opinion| opinion.observer == observer).map(|opinion| opinion.sees)
}

/// The status that follows from the voters' opinions, and the reason.
fn verdict(node: &Node, leader: NodeId, voters: &[(NodeId, Liveness)]) -> Option<(NodeStatus, String)> {
    // A status that an operator ordered is not for a failure detector to change.
    if matches!(node.status, NodeStatus::Draining | NodeStatus::Drained | NodeStatus::Left) {
        return None;
    }
    if node.id == leader {
        return Some((NodeStatus::Up, "it leads".to_owned()));
    }
    if voters.is_empty() {
        return None;
    }
    let majority = voters.len() / 2 + 1;
    let at_least = |sees: Liveness| voters.iter().filter(|(_, seen)| *seen >= sees).count() >= majority;
    let observers = |sees: Liveness| {
        let ids: Vec<_> =
            voters.iter().filter(|(_, seen)| *seen >= sees).map(|(id, _)| format!("node {id}")).collect();
        (ids.join(" and "), if ids.len() == 1 { "has" } else { "have" })
    };
    // A node that no voter has heard from yet is still joining, however long that takes.
    if node.status == NodeStatus::Joining && at_least(Liveness::Suspect) {
        return None;
    }
    Some(if at_least(Liveness::Dead) {
        let (who, have) = observers(Liveness::Dead);
        (NodeStatus::Down, format!("{who} {have} not heard from it for too long"))
    } else if at_least(Liveness::Suspect) {
        let (who, have) = observers(Liveness::Suspect);
        (NodeStatus::Suspect, format!("{who} {have} not heard from it lately"))
    } else {
        let status = match node.status {
            NodeStatus::Joining => "it answers",
            _ => "it answers again",
        };
        (NodeStatus::Up, status.to_owned())
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use futures::FutureExt;
    use ringmaster_cluster::membership::Membership;
    use ringmaster_common::{
        Timestamp,
        telemetry::{Link, NodeReport},
    };

    fn node(id: u64, status: NodeStatus) -> Node {
        Node {
            id: NodeId(id),
            name: format!("node-{id}"),
            zone: "a".to_owned(),
            weight: 1,
            api_addr: String::new(),
            peer_addr: String::new(),
            public_url: String::new(),
            status,
            status_reason: String::new(),
            status_since: Timestamp::UNIX_EPOCH,
            status_revision: ringmaster_common::id::Revision(1),
            voter: true,
            opinions: Vec::new(),
        }
    }

    fn verdict_of(status: NodeStatus, seen: &[Liveness]) -> Option<NodeStatus> {
        let voters: Vec<_> = (1..).map(NodeId).zip(seen.iter().copied()).collect();
        verdict(&node(9, status), NodeId(1), &voters).map(|(status, _)| status)
    }

    #[test]
    fn a_majority_decides() {
        use Liveness::{Alive, Dead};
        use NodeStatus::{Down, Joining, Suspect, Up};
        assert_eq!(verdict_of(Up, &[Dead, Dead]), Some(Down));
        assert_eq!(verdict_of(Up, &[Dead, Alive]), Some(Up), "one observer alone is a disagreement");
        assert_eq!(verdict_of(Up, &[Dead, Liveness::Suspect]), Some(Suspect));
        assert_eq!(verdict_of(Up, &[Dead, Dead, Alive, Alive]), Some(Up));
        assert_eq!(verdict_of(Down, &[Alive, Alive]), Some(Up));
        assert_eq!(verdict_of(Up, &[Dead]), Some(Down), "of two voters, the other one decides");
        assert_eq!(verdict_of(Up, &[]), None, "without a report nothing is claimed");
        assert_eq!(verdict_of(Joining, &[Liveness::Suspect, Liveness::Suspect]), None);
        assert_eq!(verdict_of(Joining, &[Dead, Dead]), None);
        assert_eq!(verdict_of(NodeStatus::Draining, &[Dead, Dead]), None);
    }

    #[test]
    fn the_leader_is_up_whatever_others_report() {
        let voters = [(NodeId(2), Liveness::Dead), (NodeId(3), Liveness::Dead)];
        let (status, _) = verdict(&node(1, NodeStatus::Down), NodeId(1), &voters).unwrap();
        assert_eq!(status, NodeStatus::Up);
    }

    /// A report of `observer`, with these links.
    fn report(observer: u64, links: Vec<Link>) -> AgedReport {
        AgedReport {
            age_ms: 100,
            report: NodeReport { node: NodeId(observer), links, ..NodeReport::default() },
        }
    }

    fn link(peer: u64, sees: Liveness) -> Link {
        Link { peer: NodeId(peer), sees, ..Link::default() }
    }

    /// A cluster of these voters.
    pub(crate) fn state_of(nodes: impl IntoIterator<Item = (u64, NodeStatus)>) -> State {
        let mut membership = Membership::default();
        for (id, status) in nodes {
            membership.voters.insert(NodeId(id));
            membership.nodes.insert(NodeId(id), Arc::new(node(id, status)));
        }
        State { membership: Arc::new(membership), ..State::default() }
    }

    /// The status that is proposed for node 3 of three voters, if the others see it so; it is `taken` or refused.
    fn proposed(
        dampers: &mut Dampers,
        status: NodeStatus,
        sees: Liveness,
        now: Instant,
        taken: bool,
    ) -> Option<NodeStatus> {
        let state = state_of([(1, NodeStatus::Up), (2, NodeStatus::Up), (3, status)]);
        let reports = [1, 2].map(|observer| report(observer, vec![link(3, sees)]));
        let mut proposed = None;
        let propose = |command| {
            if let Command::RecordHealth { statuses, .. } = command {
                proposed = statuses.first().map(|change| change.status);
            }
            std::future::ready(if taken { Ok(()) } else { Err("there is no quorum") })
        };
        let recorded = record_changes(&state, NodeId(1), &reports, dampers, now, propose).now_or_never();
        assert_eq!(recorded.expect("nothing waits here").is_ok(), taken || proposed.is_none());
        proposed
    }

    #[test]
    fn a_change_that_was_not_recorded_is_not_remembered() {
        use NodeStatus::{Down, Up};
        let mut dampers = Dampers::default();
        let start = clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let down = |dampers: &mut _, ms, taken| proposed(dampers, Up, Liveness::Dead, at(ms), taken);
        let up = |dampers: &mut _, ms, taken| proposed(dampers, Down, Liveness::Alive, at(ms), taken);
        assert_eq!(down(&mut dampers, 0, true), Some(Down));
        assert_eq!(up(&mut dampers, 1_000, true), Some(Up));
        // The record took three attempts, and is one failure all the same.
        assert_eq!(down(&mut dampers, 2_000, false), Some(Down));
        assert_eq!(down(&mut dampers, 2_250, false), Some(Down));
        assert_eq!(down(&mut dampers, 2_500, true), Some(Down));
        assert_eq!(up(&mut dampers, 3_000, true), None, "it must prove itself");
        // A recovery that was not recorded does not start the time anew.
        assert_eq!(up(&mut dampers, 3_500, false), Some(Up));
        assert_eq!(up(&mut dampers, 3_501, true), Some(Up));
    }

    #[test]
    fn a_flapping_node_must_answer_for_longer_each_time() {
        use NodeStatus::{Down, Up};
        let mut dampers = Dampers::default();
        let start = clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut damp = |status, verdict, ms| {
            let verdict = Some((verdict, "it answers again".to_owned()));
            dampers.damp(&node(9, status), verdict, at(ms)).map(|(status, _)| status)
        };
        // The first failure is no flap.
        assert_eq!(damp(Up, Down, 0), Some(Down));
        assert_eq!(damp(Down, Up, 1_000), Some(Up));
        // It fails again soon: it must answer for half a second, then for one.
        assert_eq!(damp(Up, Down, 2_000), Some(Down));
        assert_eq!(damp(Down, Up, 3_000), None);
        assert_eq!(damp(Down, Up, 3_499), None);
        assert_eq!(damp(Down, Up, 3_500), Some(Up));
        assert_eq!(damp(Up, Down, 4_000), Some(Down));
        assert_eq!(damp(Down, Up, 5_000), None);
        // A silence in between starts the time anew.
        assert_eq!(damp(Down, Down, 5_500), Some(Down));
        assert_eq!(damp(Down, Up, 6_000), None);
        assert_eq!(damp(Down, Up, 6_999), None);
        assert_eq!(damp(Down, Up, 7_000), Some(Up));
        // After a minute without a failure, the record is clear.
        assert_eq!(damp(Up, Down, 70_000), Some(Down));
        assert_eq!(damp(Down, Up, 70_001), Some(Up));
    }
}
