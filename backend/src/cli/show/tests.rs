use super::*;
use ringmaster_common::{
    action::Action,
    cluster::{CanLose, Node},
    event::Event,
    id::{GroupId, Incarnation, NodeId, OperationId, PlanId, Revision},
    plan::{Blocker, PlannedStep, Warning},
};

fn at() -> Timestamp {
    "2026-01-02T03:04:05.678Z".parse().unwrap()
}

fn node(id: u64, name: &str, status: NodeStatus, role: Option<Role>) -> NodeInfo {
    NodeInfo {
        node: Node {
            id: NodeId(id),
            name: name.to_owned(),
            zone: "a".to_owned(),
            weight: 1,
            api_addr: format!("127.0.0.1:770{id}"),
            peer_addr: format!("127.0.0.1:780{id}"),
            public_url: format!("http://127.0.0.1:770{id}"),
            status,
            status_reason: "it answers".to_owned(),
            status_since: at(),
            status_revision: Revision(3),
            voter: true,
            opinions: Vec::new(),
        },
        role,
        lag: role.map(|_| 0),
        rtt_us: role.map(|_| 1_250),
        age_ms: role.map(|_| 20),
        links: Vec::new(),
        can_lose: CanLose { answer: true, reason: "yes".to_owned() },
    }
}

#[test]
fn a_cluster_at_a_glance() {
    let cluster_of = |leader| Cluster {
        name: "prod".to_owned(),
        id: "c1".to_owned(),
        incarnation: Incarnation(1),
        feature_level: 1,
        revision: Revision(120),
        term: 3,
        leader,
        answered_by: NodeId(2),
        demo: false,
        may_fail: 1,
        next_id: NodeId(4),
        nodes: vec![
            node(1, "amber-fox", NodeStatus::Up, Some(Role::Leader)),
            node(2, "owl", NodeStatus::Down, None),
        ],
    };
    let expected = "\
Cluster   prod (c1)
Leader    node 1 (amber-fox)
Revision  120 in term 3, as node 2 tells
May lose  1 of its voters

ID  NAME       STATUS  ROLE    ZONE  LAG     RTT  CAN I LOSE IT?
 1  amber-fox  up      leader  a       0  1.2 ms  yes
 2  owl        down    -       a       -       -  yes
";
    assert_eq!(cluster(&cluster_of(Some(NodeId(1))), Paint::NONE), expected);
    assert!(cluster(&cluster_of(None), Paint::NONE).contains("Leader    none; writes fail"));
}

#[test]
fn events_are_sentences_in_columns() {
    let batch = EventBatch {
        revision: Revision(17),
        at: at(),
        actor: "node 1".to_owned(),
        request_id: "r".to_owned(),
        events: vec![Event::LeaderElected { term: 4, leader: NodeId(1) }],
    };
    let heading = event_heading(Paint::NONE);
    let row = events(&[batch], Paint::NONE);
    assert_eq!(row, "      17  2026-01-02T03:04:05.678Z  node 1           node 1 leads term 4\n");
    assert_eq!(heading.find("EVENT"), row.find("node 1 leads"));
}

fn example() -> Plan {
    Plan {
        id: PlanId(12),
        revision: Revision(120),
        action: Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(2) },
        summary: "Leadership moves.".to_owned(),
        footprint: Vec::new(),
        observations: Vec::new(),
        steps: vec![PlannedStep {
            name: "hand_over".to_owned(),
            title: "hand over".to_owned(),
            bound_ms: 1_500,
        }],
        impact: Impact {
            write_pause_ms: Some(12),
            write_pause_bound_ms: Some(600),
            voters_before: 3,
            voters_after: 3,
            may_fail_before: 1,
            may_fail_after: 2,
            leader_before: Some(NodeId(1)),
            leader_after: Some(NodeId(2)),
            ..Impact::default()
        },
        warnings: vec![Warning {
            code: "recently_up".to_owned(),
            detail: "it is up for 2 s".to_owned(),
            subject: "node/2".to_owned(),
        }],
        blockers: Vec::new(),
        undoable: true,
        created_at: at(),
        created_by: "ops".to_owned(),
        expires_at: at(),
        operation: None,
    }
}

#[test]
fn a_plan_says_all_it_knows() {
    let expected = "\
Plan 12: hand the cluster group to node 2
Leadership moves.
Made at revision 120 by ops.

Impact
  writes pause      600 ms at most; the last time, 12 ms
  leader            node 1 -> node 2
  voters            3
  may fail          1 -> 2

Warnings
  recently_up (node/2): it is up for 2 s

Steps
  1  hand_over  hand over (within 1.50 s)

It can be undone.
";
    assert_eq!(plan(&example(), Paint::NONE), expected);
}

#[test]
fn a_plan_says_what_to_do_with_it() {
    let mut plan = example();
    assert_eq!(how_to_apply(&plan), "To apply it, until 2026-01-02T03:04:05.678Z: ringmaster apply 12");
    plan.blockers.push(Blocker {
        code: "node_down".to_owned(),
        detail: "node 2 is down".to_owned(),
        subject: "node/2".to_owned(),
        lifted_by: "start node 2".to_owned(),
    });
    assert!(how_to_apply(&plan).starts_with("It is blocked"));
    let text = super::plan(&plan, Paint::NONE);
    assert!(text.contains("  node_down (node/2): node 2 is down\n    lifted by: start node 2\n"), "{text}");
    plan.operation = Some(OperationId(4));
    assert_eq!(how_to_apply(&plan), "It was applied, as operation 4.");
}
