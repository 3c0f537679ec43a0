//! Failure detection: from what each node sees to what the cluster says.
//!
//! Each node judges its own links and reports that as telemetry. The leader turns the reports into
//! statuses, by majority among the voters that report, and proposes only what changed. Opinions are
//! kept beside the verdict, so that a disagreement can be seen.

use crate::{
    clock,
    controllers::{PROPOSAL_DEADLINE, request},
    raft::cluster_group::ClusterGroup,
    state::{
        State,
        command::{Command, OpinionChange, StatusChange},
    },
    telemetry::Telemetry,
};
use ringmaster_common::{
    cluster::{Node, NodeStatus, Sees},
    id::NodeId,
    telemetry::AgedReport,
};
use std::{sync::Arc, time::Duration};

/// An observer whose report is older than this has no say.
const FRESH: Duration = Duration::from_millis(1_500);
/// How often the leader looks even if no report came in.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub async fn run(group: ClusterGroup, telemetry: Arc<Telemetry>) {
    let mut reports = telemetry.watch();
    loop {
        if group.leading().is_some()
            && let Some(command) = judge(&group.state(), group.me(), &telemetry.latest())
        {
            let deadline = clock::now() + PROPOSAL_DEADLINE;
            if let Err(refusal) = group.propose(request(group.me()), command, deadline).await {
                tracing::debug!(%refusal, "a change of health was not recorded; the leader looks again");
            }
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, reports.changed()).await {
            return;
        }
    }
}

/// What changed, as a command; none if nothing did.
fn judge(state: &State, leader: NodeId, reports: &[AgedReport]) -> Option<Command> {
    let fresh: Vec<_> = reports
        .iter()
        .filter(|aged| Duration::from_millis(aged.age_ms) <= FRESH)
        .filter(|aged| state.membership.get(aged.report.node).is_some())
        .collect();
    let mut opinions = Vec::new();
    let mut statuses = Vec::new();
    for node in state.membership.iter() {
        let seen: Vec<(NodeId, Sees)> = fresh
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
        if let Some((status, reason)) =
            verdict(node, leader, &voters).filter(|(status, _)| *status != node.status)
        {
            statuses.push(StatusChange { node: node.id, status, reason });
        }
    }
    (!opinions.is_empty() || !statuses.is_empty()).then_some(Command::RecordHealth { opinions, statuses })
}

fn held(node: &Node, observer: NodeId) -> Option<Sees> {
    node.opinions.iter().find(|opinion| opinion.observer == observer).map(|opinion| opinion.sees)
}

/// The status that the voters' opinions amount to, and why.
fn verdict(node: &Node, leader: NodeId, voters: &[(NodeId, Sees)]) -> Option<(NodeStatus, String)> {
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
    let at_least = |sees: Sees| voters.iter().filter(|(_, seen)| *seen >= sees).count() >= majority;
    let who = |sees: Sees| {
        let ids: Vec<_> =
            voters.iter().filter(|(_, seen)| *seen >= sees).map(|(id, _)| format!("node {id}")).collect();
        (ids.join(" and "), if ids.len() == 1 { "has" } else { "have" })
    };
    Some(if at_least(Sees::Dead) {
        let (who, have) = who(Sees::Dead);
        (NodeStatus::Down, format!("{who} {have} not heard from it for too long"))
    } else if at_least(Sees::Suspect) {
        // A node that nobody has heard from yet is still joining.
        if node.status == NodeStatus::Joining {
            return None;
        }
        let (who, have) = who(Sees::Suspect);
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
    use ringmaster_common::Timestamp;

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

    fn verdict_of(status: NodeStatus, seen: &[Sees]) -> Option<NodeStatus> {
        let voters: Vec<_> = (1..).map(NodeId).zip(seen.iter().copied()).collect();
        verdict(&node(9, status), NodeId(1), &voters).map(|(status, _)| status)
    }

    #[test]
    fn a_majority_decides() {
        use NodeStatus::{Down, Joining, Suspect, Up};
        use Sees::{Alive, Dead};
        assert_eq!(verdict_of(Up, &[Dead, Dead]), Some(Down));
        assert_eq!(verdict_of(Up, &[Dead, Alive]), Some(Up), "one observer alone is a disagreement");
        assert_eq!(verdict_of(Up, &[Dead, Sees::Suspect]), Some(Suspect));
        assert_eq!(verdict_of(Up, &[Dead, Dead, Alive, Alive]), Some(Up));
        assert_eq!(verdict_of(Down, &[Alive, Alive]), Some(Up));
        assert_eq!(verdict_of(Up, &[Dead]), Some(Down), "of two voters, the other one decides");
        assert_eq!(verdict_of(Up, &[]), None, "nobody reports: nothing is claimed");
        assert_eq!(verdict_of(Joining, &[Sees::Suspect, Sees::Suspect]), None);
        assert_eq!(verdict_of(NodeStatus::Draining, &[Dead, Dead]), None);
    }

    #[test]
    fn the_leader_is_up_whatever_others_say() {
        let voters = [(NodeId(2), Sees::Dead), (NodeId(3), Sees::Dead)];
        let (status, _) = verdict(&node(1, NodeStatus::Down), NodeId(1), &voters).unwrap();
        assert_eq!(status, NodeStatus::Up);
    }
}
