use super::*;
use crate::metrics::tests::{report, sample};
use ringmaster_common::{
    action::Action,
    cluster::{Liveness, Role},
    id::{GroupId, PlanId, Revision},
    operation::{Step, StepStatus},
    telemetry::{Link, Reachability},
};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-01-01T14:05:00Z")
}

fn node(id: u64) -> Node {
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
        status_since: at("2026-01-01T10:00:00Z"),
        status_revision: Revision(1),
        voter: true,
        opinions: Vec::new(),
    }
}

fn view(nodes: u64) -> ClusterView {
    ClusterView { nodes: (1..=nodes).map(node).collect(), ..ClusterView::default() }
}

fn telemetry(ids: &[u64], leader: u64) -> Sample {
    let role = |id| if id == leader { Role::Leader } else { Role::Follower };
    sample(ids.iter().map(|id| report(*id, role(*id), 7)).collect())
}

fn set_status(view: &mut ClusterView, id: u64, status: NodeStatus, reason: &str) {
    view.nodes.get_mut(&NodeId(id)).unwrap().set_status(
        status,
        reason,
        at("2026-01-01T14:02:11Z"),
        Revision(9),
    );
}

const LIVE: Connection = Connection::Live { node: NodeId(1) };

fn judged(connection: &Connection, view: Option<&ClusterView>, sample: Option<&Sample>) -> ClusterSummary {
    summarize(&SummaryInput { connection, view, sample, now: now(), offset_minutes: 0 })
}

fn words(summary: &ClusterSummary) -> String {
    format!("{} {}", summary.headline, summary.consequence)
}

#[test]
fn all_is_well() {
    for (nodes, text) in [
        (1, "All is well. Writes need every voter, so no node may fail. Three voters tolerate one failure."),
        (3, "All is well. You can lose any one node."),
        (4, "All is well. You can lose any one node."),
        (5, "All is well. You can lose any two nodes."),
        (7, "All is well. You can lose any three nodes."),
    ] {
        let ids: Vec<u64> = (1..=nodes).collect();
        let summary = judged(&LIVE, Some(&view(nodes)), Some(&telemetry(&ids, 1)));
        assert_eq!(words(&summary), text);
        assert_eq!(summary.problems, []);
        assert_eq!(summary.tone, if nodes == 1 { Tone::Note } else { Tone::Good });
    }
}

#[test]
fn a_node_is_down() {
    let mut view = view(3);
    set_status(&mut view, 2, NodeStatus::Down, "nodes 1 and 3 have not heard from it for 1.5 s");
    let summary = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 3], 1)));
    assert_eq!(
        words(&summary),
        "Node 2 is down since 14:02:11. Writes continue; losing one more voter stops them."
    );
    let its_last_report = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 2, 3], 1)));
    assert_eq!(its_last_report.consequence, summary.consequence);
    assert!(summary.detail.starts_with("Nodes 1 and 3 have not heard from it"), "{}", summary.detail);
    assert_eq!((summary.tone, summary.problems.len()), (Tone::Bad, 1));
    assert_eq!(summary.problems[0].about, About::Node(NodeId(2)));
}

#[test]
fn of_five_two_are_down() {
    let mut view = view(5);
    set_status(&mut view, 2, NodeStatus::Down, "silent");
    let one = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 3, 4, 5], 1)));
    assert_eq!(one.consequence, "Writes continue; you can lose one more.");
    assert_eq!(one.tone, Tone::Warning);
    set_status(&mut view, 4, NodeStatus::Suspect, "silent for 600 ms");
    let two = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 3, 5], 1)));
    assert_eq!(
        words(&two),
        "Nodes 2 and 4 are down or suspect, the first since 14:02:11. Writes continue; losing one more voter stops them."
    );
    assert_eq!(two.short, "2 nodes unavailable");
}

#[test]
fn no_leader_and_no_quorum_are_two_things() {
    let mut candidates = telemetry(&[1, 2], 0);
    candidates.nodes[0].report.role = Role::Candidate;
    let no_leader = judged(&LIVE, Some(&view(3)), Some(&candidates));
    assert_eq!(words(&no_leader), "No leader at the moment. Writes wait for an election.");

    let no_quorum = judged(&LIVE, Some(&view(3)), Some(&telemetry(&[1], 0)));
    assert_eq!(
        words(&no_quorum),
        "No quorum: nodes 2 and 3 are silent. Nothing can be written until one of them is back."
    );
    assert!(no_quorum.detail.contains("1 of 3 voters answer, and writes need 2"), "{}", no_quorum.detail);
    assert_eq!((no_quorum.tone, no_quorum.short.as_str()), (Tone::Bad, "No quorum"));

    let two_missing = judged(&LIVE, Some(&view(5)), Some(&telemetry(&[1], 0)));
    assert!(two_missing.consequence.contains("two of them are back"), "{}", two_missing.consequence);
}

#[test]
fn an_old_leader_without_a_quorum_does_not_count() {
    let summary = judged(&LIVE, Some(&view(3)), Some(&telemetry(&[1], 1)));
    assert_eq!(summary.short, "No quorum");
}

#[test]
fn a_learner_is_no_part_of_the_quorum() {
    let mut view = view(4);
    view.nodes.get_mut(&NodeId(4)).unwrap().voter = false;
    let summary = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 2, 3], 1)));
    assert_eq!(words(&summary), "All is well. You can lose any one node.");
}

#[test]
fn a_link_that_is_cut_one_way_is_named() {
    let mut telemetry = telemetry(&[1, 2, 3], 1);
    telemetry.nodes[2].report.links = vec![Link {
        peer: NodeId(1),
        sees: Liveness::Dead,
        reachability: Reachability::InOnly,
        ..Link::default()
    }];
    let summary = judged(&LIVE, Some(&view(3)), Some(&telemetry));
    assert_eq!(
        words(&summary),
        "Packets from node 3 do not reach node 1; packets from node 1 reach node 3. You cannot lose node 2 meanwhile."
    );
    assert_eq!((summary.tone, summary.short.as_str()), (Tone::Warning, "Degraded"));
}

#[test]
fn disconnected_says_since_when_and_what_next() {
    let lost = Connection::Lost { since: at("2026-01-01T14:04:50Z"), next: "node 2".to_owned() };
    let summary = judged(&lost, Some(&view(3)), Some(&telemetry(&[1, 2, 3], 1)));
    assert_eq!(words(&summary), "Disconnected since 14:04:50. The page shows the state at that time.");
    assert!(summary.detail.contains("Next attempt: node 2"), "{}", summary.detail);
    assert_eq!((summary.tone, summary.problems.len()), (Tone::Unknown, 1));

    let never = judged(&Connection::NeverAnswered { next: "node 1".to_owned() }, None, None);
    assert_eq!(never.headline, "No node answers.");
    let opening = judged(&Connection::Opening { to: "node 1".to_owned() }, None, None);
    assert_eq!((opening.headline.as_str(), opening.tone), ("Connecting to node 1.", Tone::Unknown));
}

#[test]
fn an_operation_that_waits_is_a_note_and_a_done_one_is_proof() {
    let step = Step {
        name: "transfer_leadership".to_owned(),
        title: "Transfer leadership".to_owned(),
        bound_ms: 1_000,
        status: StepStatus::Succeeded,
        started_at: Some(at("2026-01-01T14:04:00Z")),
        ended_at: Some(at("2026-01-01T14:04:00.041Z")),
        detail: None,
    };
    let mut operation = Operation {
        id: OperationId(4),
        plan: PlanId(9),
        action: Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(2) },
        scope: ringmaster_common::plan::Scope::Cluster,
        summary: String::new(),
        status: OperationStatus::AwaitingKeep,
        steps: vec![step],
        error: None,
        started_by: "operator".to_owned(),
        started_at: now(),
        ended_at: None,
        keep_within_ms: Some(60_000),
        keep_until: Some(at("2026-01-01T14:05:41Z")),
        undoable: true,
        undo_of: None,
        undone_by: None,
        revision: Revision(3),
    };
    let mut view = view(3);
    view.operations.put(operation.clone());
    let waiting = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 2, 3], 2)));
    assert_eq!(waiting.short, "All well");
    assert_eq!(waiting.problems[0].text, "Operation 4 reverts in 41 s unless it is kept");

    operation.status = OperationStatus::Succeeded;
    operation.keep_until = None;
    view.operations.put(operation);
    let done = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 2, 3], 2)));
    assert_eq!(done.detail, "Last leadership transfer: 59 s ago, 41 ms.");
    assert_eq!(done.problems, []);
}

#[test]
fn what_the_proxies_have_met_is_a_problem() {
    let warning = |subject: &str, detail: &str| ringmaster_common::plan::Warning {
        code: String::new(),
        detail: detail.to_owned(),
        subject: subject.to_owned(),
    };
    let mut sample = telemetry(&[1, 2, 3], 2);
    sample.warnings = vec![
        warning("node/3", "node 3 cannot listen"),
        warning("upstream/web/e1", "endpoint e1 of web fails"),
    ];
    let problems = judged(&LIVE, Some(&view(3)), Some(&sample)).problems;
    let problems: Vec<_> = problems.iter().map(|problem| (problem.text.as_str(), problem.about)).collect();
    let expected =
        [("Node 3 cannot listen", About::Node(NodeId(3))), ("Endpoint e1 of web fails", About::Traffic)];
    assert_eq!(problems, expected);
}
