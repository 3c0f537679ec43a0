use super::*;
use crate::{
    leadership::tests::{follower, report, sample, view},
    upstream_health::tests::{endpoint, route, upstream},
};
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

fn telemetry(ids: &[u64], leader: u64) -> Sample {
    let of = |id: u64| if id == leader { report(id, Role::Leader, 7) } else { follower(id, leader, 7) };
    sample(ids.iter().map(|id| of(*id)).collect())
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
    judged_with(connection, view, sample, &TrafficHistory::default(), &[])
}

fn judged_with(
    connection: &Connection,
    view: Option<&ClusterView>,
    sample: Option<&Sample>,
    traffic: &TrafficHistory,
    elections: &[LeadershipTerm],
) -> ClusterSummary {
    summarize(&SummaryInput {
        connection,
        view,
        sample,
        traffic,
        elections,
        no_quorum_since: Some(at("2026-01-01T13:30:33Z")),
        now: now(),
        offset_minutes: 0,
    })
}

fn words(summary: &ClusterSummary) -> String {
    format!("{} {}", summary.headline, summary.consequence)
}

#[test]
fn all_is_well() {
    for (nodes, text) in [
        (
            1,
            "Healthy: 1 of 1 node. No node may fail: it is the only voter. Three voters tolerate one failure.",
        ),
        (3, "Healthy: 3 of 3 nodes. Any one node may fail."),
        (4, "Healthy: 4 of 4 nodes. Any one node may fail."),
        (5, "Healthy: 5 of 5 nodes. Any two nodes may fail."),
        (7, "Healthy: 7 of 7 nodes. Any three nodes may fail."),
    ] {
        let ids: Vec<u64> = (1..=nodes).collect();
        let summary = judged(&LIVE, Some(&view(nodes)), Some(&telemetry(&ids, 1)));
        assert_eq!(words(&summary), text);
        assert_eq!(summary.problems, []);
        assert_eq!(summary.tone, if nodes == 1 { Tone::Note } else { Tone::Good });
    }
}

/// Traffic of one upstream, through the proxy of node 1.
fn traffic(upstream: &str, requests_per_s: f64, failures_per_s: f64) -> TrafficHistory {
    let mut traffic = TrafficHistory::default();
    let metrics = serde_json::json!({
        "upstream": upstream, "node": 1, "requests_per_s": requests_per_s, "failures_per_s": failures_per_s,
        "retries_per_s": 0.0, "p50_us": null, "p99_us": null, "in_flight": 0, "endpoints": [],
    });
    traffic.push(now(), vec![serde_json::from_value(metrics).unwrap()]);
    traffic
}

#[test]
fn upstreams_are_part_of_the_sentence_and_of_the_problems() {
    let mut view = view(3);
    for name in ["api", "web"] {
        view.routes.put(route(name));
        view.upstreams
            .put(upstream(name, &[endpoint("e1", "ready", "healthy"), endpoint("e2", "ready", "healthy")]));
    }
    let telemetry = telemetry(&[1, 2, 3], 1);
    let with = |view: &ClusterView, traffic| judged_with(&LIVE, Some(view), Some(&telemetry), &traffic, &[]);
    let well = with(&view, traffic("web", 4.0, 0.0));
    assert_eq!(words(&well), "Healthy: 3 of 3 nodes, 2 of 2 upstreams. Any one node may fail.");
    assert_eq!(well.problems, []);

    let failing = with(&view, traffic("web", 4.0, 4.0));
    assert_eq!(words(&failing), "Upstream web: 100 % of requests fail. 4.0 requests/s fail.");
    assert_eq!((failing.tone, failing.short.as_str()), (Tone::Bad, "web down"));
    assert_eq!(failing.problems[0].about, About::Upstream("web".to_owned()));

    view.upstreams
        .put(upstream("web", &[endpoint("e1", "drain", "healthy"), endpoint("e2", "ready", "unhealthy")]));
    let down = with(&view, traffic("web", 4.0, 4.0));
    assert_eq!(
        words(&down),
        "Upstream web has no available endpoint since 11:00:00: e2 is unhealthy, e1 is draining. 4.0 requests/s fail."
    );
    assert_eq!(
        down.detail,
        "Set an endpoint to ready, or repair one that is unhealthy. Node 1 leads, and writes continue."
    );
    assert_eq!(down.problems.len(), 1);

    view.upstreams.put(upstream("api", &[endpoint("e1", "ready", "unhealthy")]));
    let both = with(&view, TrafficHistory::default());
    assert_eq!(words(&both), "Upstreams api and web serve no requests. Requests get 503.");
    assert_eq!((both.short.as_str(), both.problems.len()), ("2 upstreams down", 2));
    for n in 0..13 {
        view.routes.put(route(&format!("x{n}")));
        view.upstreams.put(upstream(&format!("x{n}"), &[endpoint("e1", "maintenance", "unknown")]));
    }
    let many = with(&view, TrafficHistory::default());
    assert_eq!(many.headline, "Upstreams api, web and 13 more serve no requests.");

    // Without a quorum that comes first, and the upstreams are still among the problems.
    let alone = judged(&LIVE, Some(&view), Some(&sample(vec![follower(1, 2, 7)])));
    assert_eq!((alone.short.as_str(), alone.problems.len()), ("No quorum", 16));
}

#[test]
fn lost_redundancy_degrades() {
    let mut view = view(3);
    view.upstreams
        .put(upstream("web", &[endpoint("e1", "ready", "healthy"), endpoint("e2", "ready", "unhealthy")]));
    let summary = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 2, 3], 1)));
    assert_eq!(
        words(&summary),
        "Upstream web: 1 of 2 endpoints is available since 11:00:00: e2 is unhealthy. If e1 fails, requests fail. Any \
         one node may fail."
    );
    assert_eq!((summary.tone, summary.short.as_str()), (Tone::Warning, "Degraded"));
}

#[test]
fn a_drained_node_is_not_one_to_spare() {
    let mut view = view(3);
    set_status(&mut view, 1, NodeStatus::Drained, "drained by an operator");
    let summary = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 2, 3], 2)));
    assert_eq!(words(&summary), "Node 1 is drained. While it is stopped, no other voter may fail.");
    assert_eq!((summary.tone, summary.short.as_str()), (Tone::Note, "Node 1 drained"));
}

#[test]
fn a_node_is_down() {
    let mut view = view(3);
    set_status(&mut view, 2, NodeStatus::Down, "nodes 1 and 3 have not heard from it for 1.5 s");
    let summary = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 3], 1)));
    assert_eq!(
        words(&summary),
        "Node 2 has been down since 14:02:11. Writes continue; losing one more voter stops them."
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
    assert_eq!(one.consequence, "Writes continue; one more may fail.");
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
fn a_voter_with_losses_is_not_one_to_spare() {
    let mut view = view(5);
    set_status(&mut view, 2, NodeStatus::Down, "silent");
    let mut telemetry = telemetry(&[1, 3, 4, 5], 1);
    telemetry.nodes[3].report.lost_through = Some(262);
    let summary = judged(&LIVE, Some(&view), Some(&telemetry));
    assert_eq!(summary.consequence, "Writes continue; losing one more voter stops them.");
}

#[test]
fn no_leader_and_no_quorum_are_two_things() {
    let candidates = sample(vec![report(1, Role::Candidate, 8), report(2, Role::Follower, 8)]);
    let no_leader = judged(&LIVE, Some(&view(3)), Some(&candidates));
    assert_eq!(words(&no_leader), "No leader at the moment. Writes wait for an election.");

    let no_quorum = judged(&LIVE, Some(&view(3)), Some(&telemetry(&[1], 0)));
    assert_eq!(words(&no_quorum), "No quorum: 1 of 3 voters answers. Nothing can be written since 13:30:33.");
    assert!(
        no_quorum
            .detail
            .starts_with("Nodes 2 and 3 are silent, as node 1 sees it; writes need 2 of 3 voters."),
        "{}",
        no_quorum.detail
    );
    assert_eq!((no_quorum.tone, no_quorum.short.as_str()), (Tone::Bad, "No quorum"));
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
    let summary = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 2, 3, 4], 1)));
    assert_eq!(words(&summary), "Healthy: 4 of 4 nodes. Any one node may fail.");
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
        "Packets from node 3 do not reach node 1; packets from node 1 reach node 3. Writes stop if node 2 fails."
    );
    assert_eq!((summary.tone, summary.short.as_str()), (Tone::Warning, "Degraded"));
}

#[test]
fn disconnected_says_since_when_and_what_next() {
    let lost = Connection::Lost { since: at("2026-01-01T14:04:50Z"), next: "node 2".to_owned() };
    let summary = judged(&lost, Some(&view(3)), Some(&telemetry(&[1, 2, 3], 1)));
    assert_eq!(
        words(&summary),
        "Disconnected since 14:04:50. Nothing is known about the cluster since then."
    );
    assert_eq!(
        summary.detail,
        "The page shows the state of that time; the state now is unknown from here. Next attempt: node 2, then all \
         others in turn."
    );
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
        detail: Some("node 2 won the election of term 7".to_owned()),
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
    assert_eq!(waiting.problems[0].text, "Operation 4: confirm within 41 s, or it is reverted");

    operation.status = OperationStatus::Succeeded;
    operation.keep_until = None;
    view.operations.put(operation.clone());
    let done = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 2, 3], 2)));
    assert_eq!(done.detail, "Last planned transfer: 41 ms, 59 s ago.");
    assert_eq!(done.problems, []);

    // A drain of a follower has the same step, and moves nothing.
    operation.id = OperationId(5);
    operation.steps[0].detail = Some("node 2 leads and continues to lead".to_owned());
    view.operations.put(operation);
    let drained = judged(&LIVE, Some(&view), Some(&telemetry(&[1, 2, 3], 2)));
    assert_eq!(drained.detail, done.detail);

    let won = |term, leader, by| LeadershipTerm {
        term,
        leader: NodeId(leader),
        at: at("2026-01-01T13:28:06Z"),
        revision: term,
        by,
    };
    let elections = [won(8, 2, Some(OperationId(4))), won(7, 3, None), won(6, 1, None)];
    let with = |elections: &[LeadershipTerm]| {
        let traffic = TrafficHistory::default();
        judged_with(&LIVE, Some(&view), Some(&telemetry(&[1, 2, 3], 2)), &traffic, elections).detail
    };
    assert_eq!(
        with(&elections),
        "Last planned transfer: 41 ms, 59 s ago. Last unplanned failover: 13:28:06, node 1 to node 3."
    );
    assert_eq!(with(&elections[2..]), done.detail, "the first election of a cluster is no failover");
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
    let problems: Vec<_> =
        problems.iter().map(|problem| (problem.text.as_str(), problem.about.clone())).collect();
    let expected = [
        ("Node 3 cannot listen", About::Node(NodeId(3))),
        ("Endpoint e1 of web fails", About::Upstream("web".to_owned())),
    ];
    assert_eq!(problems, expected);

    // An upstream that is down is one problem, whatever its endpoints are warned of.
    let mut view = view(3);
    view.upstreams.put(upstream("web", &[endpoint("e1", "ready", "unknown")]));
    let traffic = traffic("web", 4.0, 4.0);
    let found = judged_with(&LIVE, Some(&view), Some(&sample), &traffic, &[]).problems;
    let about_web = found.iter().filter(|problem| problem.about == About::Upstream("web".to_owned()));
    let texts: Vec<&str> = about_web.map(|problem| problem.text.as_str()).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].ends_with("Endpoint e1 of web fails"), "{texts:?}");
}
