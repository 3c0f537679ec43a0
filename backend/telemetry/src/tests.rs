//! Relayed reports, and the trouble with links.

use crate::{
    checkpoint::Checkpoint,
    measure::trouble,
    message::{Message, Position, busy},
    store::Telemetry,
};
use ringmaster_common::{
    cluster::{Liveness, MAX_NODES},
    id::{NodeId, Revision},
    telemetry::{FRESH_MS, Link, NodeReport, Reachability},
    traffic::{
        health::ReceivedHeartbeat,
        live::{DrainingEndpoint, UpstreamMetrics},
    },
};
use ringmaster_peer::LinkState;
use std::{collections::BTreeMap, time::Duration};

/// The report of `node`, which sees each of these peers so.
fn report(node: u64, sees: &[(u64, Liveness)]) -> NodeReport {
    let link = |(peer, sees): &(u64, Liveness)| Link { peer: NodeId(*peer), sees: *sees, ..Link::default() };
    NodeReport { node: NodeId(node), links: sees.iter().map(link).collect(), ..NodeReport::default() }
}

fn aged(age_ms: u64, report: NodeReport) -> Message {
    Message {
        age_ms,
        report,
        opinions: [].into(),
        heartbeats: [].into(),
        traffic: [].into(),
        applied_table_revision: Revision::default(),
        draining: [].into(),
        failed_listeners: [].into(),
        applied: Position::default(),
        checkpoints: Vec::new(),
        remembered: BTreeMap::new(),
        unresolvable_names: [].into(),
    }
}

fn known(telemetry: &Telemetry) -> Vec<u64> {
    telemetry.latest().iter().map(|aged| aged.report.node.0).collect()
}

#[test]
fn a_node_that_hears_both_relays_their_reports() {
    let all = [1, 2, 3].map(|id| Telemetry::new(NodeId(id)));
    let cut = [
        report(1, &[(2, Liveness::Dead), (3, Liveness::Alive)]),
        report(2, &[(1, Liveness::Dead), (3, Liveness::Alive)]),
        report(3, &[(1, Liveness::Alive), (2, Liveness::Alive)]),
    ];
    let [one, _, three] = &all;
    for (from, to) in [(0, 2), (1, 2), (2, 0)] {
        all[to].receive(cut[from].node, &aged(0, cut[from].clone()).encode());
    }
    let missing = three.reports_missing_at(NodeId(1));
    assert_eq!(missing.iter().map(|message| message.report.node).collect::<Vec<_>>(), [NodeId(2)]);
    assert_eq!(known(one), [3]);
    one.receive(NodeId(3), &missing[0].encode());
    assert_eq!(known(one), [2, 3]);
    // A relayed report is not relayed again.
    one.receive(NodeId(4), &aged(0, report(4, &[(2, Liveness::Dead)])).encode());
    assert!(one.reports_missing_at(NodeId(4)).is_empty());
    // A node ignores its own report.
    one.receive(NodeId(3), &aged(0, report(1, &[])).encode());
    assert_eq!(known(one), [2, 3, 4]);
}

#[test]
fn a_late_relayed_report_is_ignored() {
    let telemetry = Telemetry::new(NodeId(1));
    let term = || telemetry.latest()[0].report.term;
    let with_term = |term| NodeReport { term, ..report(2, &[]) };
    telemetry.receive(NodeId(2), &aged(0, with_term(7)).encode());
    telemetry.receive(NodeId(3), &aged(500, with_term(6)).encode());
    assert_eq!(term(), 7);
    telemetry.receive(NodeId(3), &aged(0, with_term(8)).encode());
    assert_eq!(term(), 8);
    telemetry.receive(NodeId(2), &aged(0, with_term(9)).encode());
    assert_eq!(term(), 9);
}

#[test]
fn relayed_reports_are_bounded() {
    let telemetry = Telemetry::new(NodeId(1));
    for node in 2..100 {
        telemetry.receive(NodeId(2), &aged(0, report(node, &[])).encode());
    }
    assert_eq!(telemetry.latest().len(), MAX_NODES);
}

#[test]
fn a_report_without_an_age_is_understood() {
    let telemetry = Telemetry::new(NodeId(1));
    let body = rmp_serde::to_vec_named(&report(2, &[(1, Liveness::Alive)])).unwrap();
    telemetry.receive(NodeId(2), &body);
    assert_eq!(known(&telemetry), [2]);
    // And it can read what this version sends.
    let sent = aged(0, report(2, &[(1, Liveness::Alive)])).encode();
    assert_eq!(rmp_serde::from_slice::<NodeReport>(&sent).unwrap(), report(2, &[(1, Liveness::Alive)]));
}

#[test]
fn the_trouble_with_a_link_names_both_nodes() {
    let state = |connected, trouble: Option<&str>| LinkState {
        peer: NodeId(2),
        connected,
        rtt: None,
        silent_for: None,
        phi: 0.0,
        feature_level: None,
        trouble: trouble.map(str::to_owned),
        reachability: Reachability::Unknown,
    };
    let trouble_of = |sees, reachability, state: &LinkState, is_isolated| {
        let link = Link { reachability, ..report(1, &[(2, sees)]).links.remove(0) };
        trouble(NodeId(1), &link, state, is_isolated)
    };
    let (up, lost) = (state(true, None), state(false, Some("no TCP connection")));
    assert_eq!(trouble_of(Liveness::Alive, Reachability::BothWays, &up, false), None);
    assert_eq!(
        trouble_of(Liveness::Dead, Reachability::InOnly, &lost, true).unwrap(),
        "packets from node 1 do not reach node 2; packets from node 2 reach node 1"
    );
    assert_eq!(
        trouble_of(Liveness::Alive, Reachability::BothWays, &lost, false).unwrap(),
        "node 1 hears from node 2, but cannot connect to it: no TCP connection"
    );
    assert_eq!(
        trouble_of(Liveness::Dead, Reachability::Unknown, &lost, false).unwrap(),
        "node 1 cannot connect to node 2: no TCP connection"
    );
    assert!(
        trouble_of(Liveness::Suspect, Reachability::Unknown, &lost, true)
            .unwrap()
            .contains("node 1 hears from no other node")
    );
}

#[test]
fn heartbeats_received_by_others_have_an_age() {
    let telemetry = Telemetry::new(NodeId(1));
    let heartbeat = |endpoint: &str| ReceivedHeartbeat {
        upstream: "web".to_owned(),
        endpoint: endpoint.to_owned(),
        addr: "127.0.0.1:9001".to_owned(),
        age_ms: 40,
    };
    telemetry.store(NodeId(1), Message { heartbeats: [heartbeat("own")].into(), ..aged(0, report(1, &[])) });
    let message = Message { heartbeats: [heartbeat("e1")].into(), ..aged(100, report(2, &[])) };
    telemetry.receive(NodeId(3), &message.encode());
    let received = telemetry.received_heartbeats();
    assert_eq!(received.len(), 1, "its own heartbeats are not among them");
    assert!(
        received[0].0 >= Duration::from_millis(100) && *received[0].1 == [heartbeat("e1")],
        "{received:?}"
    );
}

#[test]
fn metrics_are_reported_for_busy_upstreams_alone() {
    let metrics = |upstream: &str, in_flight| UpstreamMetrics {
        upstream: upstream.to_owned(),
        node: NodeId(2),
        requests_per_s: 0.0,
        failures_per_s: 0.0,
        retries_per_s: 0.0,
        p50_us: None,
        p99_us: None,
        in_flight,
        checked: true,
        endpoints: Vec::new(),
    };
    let reported = busy(&[metrics("idle", 0), metrics("web", 3)]);
    let telemetry = Telemetry::new(NodeId(1));
    telemetry.receive(NodeId(2), &Message { traffic: reported, ..aged(0, report(2, &[])) }.encode());
    assert_eq!(telemetry.traffic().concat(), [metrics("web", 3)]);
    // Metrics of a silent node are not shown.
    telemetry.receive(
        NodeId(3),
        &Message { traffic: busy(&[metrics("db", 1)]), ..aged(FRESH_MS + 1, report(3, &[])) }.encode(),
    );
    assert_eq!(telemetry.traffic().concat(), [metrics("web", 3)]);
}

#[test]
fn a_node_that_comes_back_with_less_hears_how_far_it_had_come() {
    let all = [1, 2].map(|id| Telemetry::new(NodeId(id)));
    let [one, two] = &all;
    let at = |term, index| Position { term, index: Revision(index) };
    let applied = |position| Message { applied: position, ..aged(0, report(2, &[])) };
    one.receive(NodeId(2), &applied(at(3, 262)).encode());
    // It has started again.
    one.receive(NodeId(2), &applied(at(3, 63)).encode());
    assert_eq!(one.positions(), [(NodeId(2), at(3, 262))].into());

    let heard = two.watch_remembered();
    two.receive(NodeId(1), &Message { remembered: one.positions(), ..aged(0, report(1, &[])) }.encode());
    two.receive(
        NodeId(1),
        &Message { remembered: [(NodeId(2), at(2, 900))].into(), ..aged(0, report(1, &[])) }.encode(),
    );
    assert_eq!(heard.borrow().position, at(3, 262));
    assert_eq!(heard.borrow().by, [NodeId(1)].into());
}

#[test]
fn a_difference_between_states_is_the_first_warning() {
    let telemetry = Telemetry::new(NodeId(1));
    let checkpoint = |digest: &str| Checkpoint {
        revision: Revision(10),
        digest: digest.to_owned(),
        version: "1".to_owned(),
    };
    for (node, digest, lost_through) in [(1, "a", Some(7)), (2, "a", None), (3, "b", None)] {
        let report = NodeReport { lost_through, ..report(node, &[]) };
        let message = Message { checkpoints: vec![checkpoint(digest)], ..aged(0, report) };
        telemetry.store(NodeId(node), message);
    }
    let warnings = telemetry.warnings();
    let found: Vec<_> = warnings.iter().map(|warning| (&*warning.code, &*warning.subject)).collect();
    assert_eq!(found, [("state_differs", "node/3"), ("entries_lost", "node/1")]);
    assert_eq!(
        warnings[0].detail,
        "the state of node 3 differs from that of nodes 1, 2 at revision 10: reads of them disagree. Decide which of \
         them is right, keep copies of the data directories, remove the others, and let them join with empty data \
         directories"
    );
}

#[test]
fn what_drains_is_the_sum_of_the_nodes_and_names_those_that_have_not_confirmed() {
    let telemetry = Telemetry::new(NodeId(1));
    let draining = |upstream: &str, addr: &str, in_flight| DrainingEndpoint {
        upstream: upstream.to_owned(),
        endpoint: "e1".to_owned(),
        addr: addr.to_owned(),
        in_flight,
    };
    let receive = |node: u64, revision, draining: &[DrainingEndpoint]| {
        let message = Message {
            applied_table_revision: Revision(revision),
            draining: draining.into(),
            ..aged(0, report(node, &[]))
        };
        telemetry.receive(NodeId(node), &message.encode());
    };
    receive(2, 7, &[draining("web", "a:1", 2), draining("other", "a:1", 9)]);
    receive(3, 6, &[draining("web", "a:1", 3), draining("web", "b:1", 1)]);
    let nodes = || [2, 3, 4].into_iter().map(NodeId);
    let (found, unconfirmed) = telemetry.draining("web", Revision(7), nodes());
    assert_eq!(found, [draining("web", "a:1", 5), draining("web", "b:1", 1)]);
    assert_eq!(unconfirmed, [NodeId(3), NodeId(4)], "an older routing table, and no report");
    receive(3, 8, &[]);
    receive(4, 7, &[]);
    let (found, unconfirmed) = telemetry.draining("web", Revision(7), nodes());
    assert_eq!((found, unconfirmed), (vec![draining("web", "a:1", 2)], Vec::new()));
}
