use super::*;
use ringmaster_common::{
    action::Action,
    cluster::{CanLose, Node, Quorum},
    event::Event,
    id::{GroupId, Incarnation, NodeId, OperationId, PlanId, Revision, Token},
    lock::{Lock, LockDetail, LockFact, LockHolder, LockMode, LockRecord, LockWaiter, Wait},
    plan::{Blocker, PlannedStep, Warning},
};
use std::collections::BTreeMap;

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
fn the_status_of_a_cluster() {
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
        quorum: Quorum::of(&[[1, 2, 3].map(NodeId).into()], |id| id != NodeId(3)),
        failures_tolerated: 1,
        next_id: NodeId(4),
        warnings: Vec::new(),
        nodes: vec![
            node(1, "amber-fox", NodeStatus::Up, Some(Role::Leader)),
            node(2, "owl", NodeStatus::Down, None),
        ],
    };
    let expected = "\
Cluster   prod (c1)
Leader    node 1 (amber-fox)
Revision  120 in term 3, reported by node 2
Quorum    tolerates 1 voter failure

ID  NAME       STATUS  ROLE    ZONE  LAG     RTT  SAFE TO STOP
 1  amber-fox  up      leader  a       0  1.2 ms  yes
 2  owl        down    -       a       -       -  yes
";
    assert_eq!(cluster(&cluster_of(Some(NodeId(1))), Paint::NONE), expected);
    assert!(cluster(&cluster_of(None), Paint::NONE).contains("Leader    none; writes fail"));
}

#[test]
fn events_are_shown_in_columns() {
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
        scope: ringmaster_common::plan::Scope::Cluster,
        summary: "Leadership moves.".to_owned(),
        footprint: Vec::new(),
        observations: Vec::new(),
        steps: vec![PlannedStep {
            name: "transfer_leadership".to_owned(),
            title: "hand over".to_owned(),
            bound_ms: 1_500,
        }],
        impact: Impact {
            write_pause_ms: Some(12),
            write_pause_bound_ms: Some(600),
            voters_before: 3,
            voters_after: 3,
            failures_tolerated_before: 1,
            failures_tolerated_after: 2,
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
fn a_plan_is_shown_in_full() {
    let expected = "\
Plan 12: transfer leadership to node 2
Leadership moves.
Made at revision 120 by ops.

Impact
  writes pause        at most 600 ms; last time 12 ms
  leader              node 1 -> node 2
  voters              3
  tolerated failures  1 -> 2

Warnings
  recently_up (node/2): it is up for 2 s

Steps
  1  transfer_leadership  hand over (within 1.50 s)

It can be undone.
";
    assert_eq!(plan(&example(), Paint::NONE), expected);
}

#[test]
fn a_plan_ends_with_the_next_command() {
    let mut plan = example();
    assert_eq!(how_to_apply(&plan), "To apply it, until 2026-01-02T03:04:05.678Z: ringmaster apply 12");
    plan.blockers.push(Blocker {
        code: "node_down".to_owned(),
        detail: "node 2 is down".to_owned(),
        subject: "node/2".to_owned(),
        lifted_by: "start node 2".to_owned(),
    });
    let text = super::plan(&plan, Paint::NONE);
    assert!(text.contains("  node_down (node/2): node 2 is down\n    lifted by: start node 2\n"), "{text}");
    plan.operation = Some(OperationId(4));
    assert_eq!(how_to_apply(&plan), "It was applied as operation 4.");
}

#[test]
fn a_plan_to_release_a_lock_names_the_holder_and_the_next_owner() {
    let mut plan = example();
    let holder = |owner: &str, token| holder(owner, token, LockMode::Exclusive);
    plan.impact.lock = Some(LockImpact {
        holders: vec![holder("worker-7", 412)],
        promoted: vec![holder("worker-8", 413)],
        next_token: Token(413),
    });
    let text = super::plan(&plan, Paint::NONE);
    for line in [
        "  released from       worker-7 (token 412, 7.50 s left)\n",
        "  granted to          worker-8\n",
        "  next token          413 or higher\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    plan.impact.lock.as_mut().unwrap().promoted.clear();
    let text = super::plan(&plan, Paint::NONE);
    assert!(text.contains("  granted to          none; the queue is empty\n"), "{text}");
}

fn holder(owner: &str, token: u64, mode: LockMode) -> LockHolder {
    LockHolder {
        owner: owner.to_owned(),
        token: Token(token),
        mode,
        since: at(),
        ttl_ms: 10_000,
        expires_in_ms: 7_500,
        depth: 1,
        meta: [("command".to_owned(), "nightly.sh".to_owned())].into(),
    }
}

fn waiter(owner: &str, node: Option<u64>) -> LockWaiter {
    LockWaiter {
        owner: owner.to_owned(),
        mode: LockMode::Exclusive,
        since: at(),
        gives_up_in_ms: 30_000,
        node: node.map(NodeId),
        meta: BTreeMap::new(),
    }
}

fn a_lock(name: &str, holders: Vec<LockHolder>, waiters: Vec<LockWaiter>) -> Lock {
    Lock {
        name: name.to_owned(),
        limit: None,
        held_by: holders.len() as u64,
        holders,
        waited_by: waiters.len() as u64,
        waiters,
        fence: Token(412),
        delayed_for_ms: None,
        deadlocked: false,
        version: Revision(90),
    }
}

#[test]
fn the_list_of_locks() {
    let shared = |owner, token| holder(owner, token, LockMode::Shared);
    let list = [
        a_lock(
            "jobs/nightly",
            vec![holder("worker-7", 412, LockMode::Exclusive)],
            vec![waiter("worker-8", Some(1))],
        ),
        Lock { held_by: 4, ..a_lock("schema", vec![shared("a", 3), shared("b", 4)], vec![]) },
        Lock { limit: Some(3), deadlocked: true, ..a_lock("uploads", vec![shared("a", 9)], vec![]) },
        Lock { delayed_for_ms: Some(5_000), ..a_lock("z", vec![], vec![waiter("b", Some(1))]) },
    ];
    let expected = "\
NAME          MODE            HOLDER        TOKEN  REMAINING  WAITERS  REMARK
jobs/nightly  exclusive       worker-7        412     7.50 s        1
schema        shared          a and 3 more      3     7.50 s        0
uploads       shared, 1 of 3  a                 9     7.50 s        0  deadlocked
z             exclusive       -                 -          -        1  lock delay: not granted for 5 s
";
    assert_eq!(locks(&list, Paint::NONE), expected);
    assert_eq!(locks(&[], Paint::NONE), "No matching lock is in use.\n");
}

#[test]
fn one_lock_in_detail() {
    let detail = LockDetail {
        lock: a_lock(
            "jobs/nightly",
            vec![holder("worker-7", 412, LockMode::Exclusive)],
            vec![waiter("worker-8", Some(2)), waiter("worker-9", None)],
        ),
        history: vec![LockRecord {
            revision: Revision(90),
            at: at(),
            what: LockFact::Granted,
            owner: "worker-7".to_owned(),
            token: Some(Token(412)),
        }],
        waits: vec![Wait {
            waiter: "worker-8".to_owned(),
            lock: "jobs/nightly".to_owned(),
            holder: "worker-7".to_owned(),
            deadlocked: false,
        }],
    };
    let expected = "\
Lock   jobs/nightly
Mode   exclusive
Fence  no token below 412 is valid

Held by
TOKEN  OWNER     REMAINING   TTL  SINCE                     META
  412  worker-7     7.50 s  10 s  2026-01-02T03:04:05.678Z  command: nightly.sh

Next in the queue
NO  OWNER     MODE       GIVES UP IN  THROUGH           SINCE                     META
 1  worker-8  exclusive         30 s  node 2            2026-01-02T03:04:05.678Z
 2  worker-9  exclusive         30 s  its node is down  2026-01-02T03:04:05.678Z

Wait-for graph
  worker-8 waits for worker-7, which holds jobs/nightly

History
REVISION  TIME                      EVENT    OWNER     TOKEN
      90  2026-01-02T03:04:05.678Z  granted  worker-7    412
";
    assert_eq!(lock(&detail, Paint::NONE), expected);
}
