//! Failure detection: from what each node sees to what the cluster says.
//!
//! Each node judges its own links and reports that as telemetry. The leader turns the reports into
//! statuses, by majority among the voters that report, and proposes only what changed. Opinions are
//! kept beside the verdict, so that a disagreement can be seen.
//!
//! A node that comes and goes is damped: the more often it went away lately, the longer it must have
//! answered before it is called up again ([`Damping`]). That is the one thing remembered here, and a new leader
//! that does not know it only trusts such a node sooner. What is remembered of a change is so once it was recorded.

use crate::{PROPOSAL_DEADLINE, request};
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
use ringmaster_net::clock;
use ringmaster_telemetry::Telemetry;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// An observer whose report is older than this has no say.
const FRESH: Duration = Duration::from_millis(1_500);
/// How often the leader looks even if no report came in.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Going away within this long after coming back counts as flapping.
const FLAP_WINDOW: Duration = Duration::from_secs(60);
/// How long a node must have answered that has flapped once; it doubles with each time.
const FIRST_HOLD: Duration = Duration::from_millis(500);
/// The longest that a node must have answered.
const MAX_HOLD: Duration = Duration::from_secs(30);

pub async fn run(group: ClusterGroup, telemetry: Arc<Telemetry>) {
    let mut reports = telemetry.watch();
    let mut damping = Damping::default();
    loop {
        let term = group.until_leading().await;
        let (state, now) = (group.state(), clock::now());
        let propose = |command| group.propose_in(term, request(group.me()), command, now + PROPOSAL_DEADLINE);
        let looked = look(&state, group.me(), &telemetry.latest(), &mut damping, now, propose).await;
        if let Err(refusal) = looked {
            tracing::debug!(%refusal, "a change of health was not recorded; the leader looks again");
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, reports.changed()).await {
            return;
        }
    }
}

/// Proposes what changed, and remembers it once it was recorded.
async fn look<R, E, Proposal: Future<Output = Result<R, E>>>(
    state: &State,
    leader: NodeId,
    reports: &[AgedReport],
    damping: &mut Damping,
    now: Instant,
    propose: impl FnOnce(Command) -> Proposal,
) -> Result<(), E> {
    let mut then = damping.clone();
    if let Some(command) = judge(state, leader, reports, &mut then, now) {
        propose(command).await?;
    }
    *damping = then;
    Ok(())
}

/// What changed, as a command; none if nothing did. `damping` is as it will be once that is recorded.
fn judge(
    state: &State,
    leader: NodeId,
    reports: &[AgedReport],
    damping: &mut Damping,
    now: Instant,
) -> Option<Command> {
    let fresh: Vec<_> = reports
        .iter()
        .filter(|aged| Duration::from_millis(aged.age_ms) <= FRESH)
        .filter(|aged| state.membership.get(aged.report.node).is_some())
        .collect();
    damping.0.retain(|id, _| state.membership.get(*id).is_some());
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
                .filter(|(observer, sees)| held(node, *observer) != Some(*sees))
                .map(|(observer, sees)| OpinionChange { observer: *observer, subject: node.id, sees: *sees }),
        );
        let voters: Vec<_> =
            seen.iter().filter(|(observer, _)| state.membership.voters.contains(observer)).copied().collect();
        let verdict = verdict(node, leader, &voters);
        let verdict = damping.pass(node, verdict, now);
        if let Some((status, reason)) = verdict.filter(|(status, _)| *status != node.status) {
            statuses.push(StatusChange { node: node.id, status, reason });
        }
    }
    (!opinions.is_empty() || !statuses.is_empty()).then_some(Command::RecordHealth { opinions, statuses })
}

/// What is remembered of nodes that come and go.
#[derive(Clone, Debug, Default)]
struct Damping(BTreeMap<NodeId, Comings>);

#[derive(Clone, Debug, Default)]
struct Comings {
    /// How often it went away soon after it had come back.
    flaps: u32,
    /// Since when a majority sees it alive, while it is not called up.
    answers_since: Option<Instant>,
    /// When it was last called up.
    up_at: Option<Instant>,
}

impl Damping {
    /// The verdict, unless it calls a node up that has to prove itself for a while yet.
    fn pass(
        &mut self,
        node: &Node,
        verdict: Option<(NodeStatus, String)>,
        now: Instant,
    ) -> Option<(NodeStatus, String)> {
        let (status, reason) = verdict?;
        let comings = self.0.entry(node.id).or_default();
        let age = |at: Instant| now.saturating_duration_since(at);
        match (node.status, status) {
            (NodeStatus::Suspect | NodeStatus::Down, NodeStatus::Up) => {
                let since = *comings.answers_since.get_or_insert(now);
                let hold = comings.hold();
                if age(since) < hold {
                    return None;
                }
                comings.answers_since = None;
                comings.up_at = Some(now);
                let reason = match comings.flaps {
                    0 => reason,
                    flaps => format!(
                        "{reason}, and has for {} ms; it had come and gone {} times",
                        millis(hold),
                        flaps + 1
                    ),
                };
                Some((status, reason))
            }
            (NodeStatus::Up, NodeStatus::Suspect | NodeStatus::Down) => {
                comings.answers_since = None;
                comings.flaps = match comings.up_at.take() {
                    Some(at) if age(at) < FLAP_WINDOW => comings.flaps + 1,
                    _ => 0,
                };
                Some((status, reason))
            }
            (_, NodeStatus::Up) => Some((status, reason)),
            _ => {
                comings.answers_since = None;
                Some((status, reason))
            }
        }
    }
}

impl Comings {
    fn hold(&self) -> Duration {
        match self.flaps {
            0 => Duration::ZERO,
            flaps => FIRST_HOLD.saturating_mul(1 << (flaps - 1).min(16)).min(MAX_HOLD),
        }
    }
}

fn held(node: &Node, observer: NodeId) -> Option<Liveness> {
    node.opinions.iter().find(|opinion| opinion.observer == observer).map(|opinion| opinion.sees)
}

/// The status that the voters' opinions amount to, and why.
fn verdict(node: &Node, leader: NodeId, voters: &[(NodeId, Liveness)]) -> Option<(NodeStatus, String)> {
    // What an operator ordered is not for a failure detector to change.
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
    let who = |sees: Liveness| {
        let ids: Vec<_> =
            voters.iter().filter(|(_, seen)| *seen >= sees).map(|(id, _)| format!("node {id}")).collect();
        (ids.join(" and "), if ids.len() == 1 { "has" } else { "have" })
    };
    // A node that nobody has heard from yet is still joining, however long that takes.
    if node.status == NodeStatus::Joining && at_least(Liveness::Suspect) {
        return None;
    }
    Some(if at_least(Liveness::Dead) {
        let (who, have) = who(Liveness::Dead);
        (NodeStatus::Down, format!("{who} {have} not heard from it for too long"))
    } else if at_least(Liveness::Suspect) {
        let (who, have) = who(Liveness::Suspect);
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
mod tests {
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
        assert_eq!(verdict_of(Up, &[]), None, "nobody reports: nothing is claimed");
        assert_eq!(verdict_of(Joining, &[Liveness::Suspect, Liveness::Suspect]), None);
        assert_eq!(verdict_of(Joining, &[Dead, Dead]), None);
        assert_eq!(verdict_of(NodeStatus::Draining, &[Dead, Dead]), None);
    }

    #[test]
    fn the_leader_is_up_whatever_others_say() {
        let voters = [(NodeId(2), Liveness::Dead), (NodeId(3), Liveness::Dead)];
        let (status, _) = verdict(&node(1, NodeStatus::Down), NodeId(1), &voters).unwrap();
        assert_eq!(status, NodeStatus::Up);
    }

    /// What `observer` reports, whose links are these.
    fn report(observer: u64, links: Vec<Link>) -> AgedReport {
        AgedReport {
            age_ms: 100,
            report: NodeReport { node: NodeId(observer), links, ..NodeReport::default() },
        }
    }

    fn link(peer: u64, sees: Liveness) -> Link {
        Link { peer: NodeId(peer), sees, ..Link::default() }
    }

    /// The status that is proposed for node 3, of three voters that say this of it; it is `taken` or refused.
    fn proposed(
        damping: &mut Damping,
        status: NodeStatus,
        sees: Liveness,
        now: Instant,
        taken: bool,
    ) -> Option<NodeStatus> {
        let mut membership = Membership::default();
        for id in 1..=3 {
            membership.voters.insert(NodeId(id));
            let known = if id == 3 { status } else { NodeStatus::Up };
            membership.nodes.insert(NodeId(id), Arc::new(node(id, known)));
        }
        let state = State { membership: Arc::new(membership), ..State::default() };
        let reports = [1, 2].map(|observer| report(observer, vec![link(3, sees)]));
        let mut proposed = None;
        let propose = |command| {
            if let Command::RecordHealth { statuses, .. } = command {
                proposed = statuses.first().map(|change| change.status);
            }
            std::future::ready(if taken { Ok(()) } else { Err("there is no quorum") })
        };
        let looked = look(&state, NodeId(1), &reports, damping, now, propose).now_or_never();
        assert_eq!(looked.expect("nothing waits here").is_ok(), taken || proposed.is_none());
        proposed
    }

    #[test]
    fn a_change_that_was_not_recorded_is_not_remembered() {
        use NodeStatus::{Down, Up};
        let mut damping = Damping::default();
        let start = clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let down = |damping: &mut _, ms, taken| proposed(damping, Up, Liveness::Dead, at(ms), taken);
        let up = |damping: &mut _, ms, taken| proposed(damping, Down, Liveness::Alive, at(ms), taken);
        assert_eq!(down(&mut damping, 0, true), Some(Down));
        assert_eq!(up(&mut damping, 1_000, true), Some(Up));
        // It took three attempts to say so, and it is still once that it went away again.
        assert_eq!(down(&mut damping, 2_000, false), Some(Down));
        assert_eq!(down(&mut damping, 2_250, false), Some(Down));
        assert_eq!(down(&mut damping, 2_500, true), Some(Down));
        assert_eq!(up(&mut damping, 3_000, true), None, "it has to prove itself");
        // Nor does it have to prove itself anew each time that its return was not recorded.
        assert_eq!(up(&mut damping, 3_500, false), Some(Up));
        assert_eq!(up(&mut damping, 3_501, true), Some(Up));
    }

    #[test]
    fn who_comes_and_goes_has_to_prove_itself_for_longer_and_longer() {
        use NodeStatus::{Down, Up};
        let mut damping = Damping::default();
        let start = clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut pass = |status, verdict, ms| {
            let verdict = Some((verdict, "so it is".to_owned()));
            damping.pass(&node(9, status), verdict, at(ms)).map(|(status, _)| status)
        };
        // The first time, nothing is held against it.
        assert_eq!(pass(Up, Down, 0), Some(Down));
        assert_eq!(pass(Down, Up, 1_000), Some(Up));
        // It went away again soon: it has to answer for half a second, then for one.
        assert_eq!(pass(Up, Down, 2_000), Some(Down));
        assert_eq!(pass(Down, Up, 3_000), None);
        assert_eq!(pass(Down, Up, 3_499), None);
        assert_eq!(pass(Down, Up, 3_500), Some(Up));
        assert_eq!(pass(Up, Down, 4_000), Some(Down));
        assert_eq!(pass(Down, Up, 5_000), None);
        // A silence in between starts the count anew.
        assert_eq!(pass(Down, Down, 5_500), Some(Down));
        assert_eq!(pass(Down, Up, 6_000), None);
        assert_eq!(pass(Down, Up, 6_999), None);
        assert_eq!(pass(Down, Up, 7_000), Some(Up));
        // After a minute of peace, all is forgotten.
        assert_eq!(pass(Up, Down, 70_000), Some(Down));
        assert_eq!(pass(Down, Up, 70_001), Some(Up));
    }
}
