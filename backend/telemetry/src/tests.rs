//! Reports by way of others, and what is said of links.

use super::{measure::trouble, *};
use ringmaster_common::telemetry::{Link, Reachability};
use ringmaster_peer::LinkState;

/// What `node` reports, who sees each of these so.
fn report(node: u64, sees: &[(u64, Liveness)]) -> NodeReport {
    let link = |(peer, sees): &(u64, Liveness)| Link { peer: NodeId(*peer), sees: *sees, ..Link::default() };
    NodeReport { node: NodeId(node), links: sees.iter().map(link).collect(), ..NodeReport::default() }
}

fn aged(age_ms: u64, report: NodeReport) -> Message {
    let (endpoints, beats, traffic) = Default::default();
    Message { age_ms, report, endpoints, beats, traffic, deaf: [].into(), routed: Revision::default() }
}

fn known(telemetry: &Telemetry) -> Vec<u64> {
    telemetry.latest().iter().map(|aged| aged.report.node.0).collect()
}

#[test]
fn who_hears_both_passes_their_reports_on() {
    let all = [1, 2, 3].map(|id| Telemetry::new(NodeId(id)));
    let cut = [
        report(1, &[(2, Liveness::Dead), (3, Liveness::Alive)]),
        report(2, &[(1, Liveness::Dead), (3, Liveness::Alive)]),
        report(3, &[(1, Liveness::Alive), (2, Liveness::Alive)]),
    ];
    let [one, _, three] = &all;
    for (from, to) in [(0, 2), (1, 2), (2, 0)] {
        all[to].receive(cut[from].node, &encode(&aged(0, cut[from].clone())));
    }
    let lacked = three.lacked_by(NodeId(1));
    assert_eq!(lacked.iter().map(|message| message.report.node).collect::<Vec<_>>(), [NodeId(2)]);
    assert_eq!(known(one), [3]);
    one.receive(NodeId(3), &encode(&lacked[0]));
    assert_eq!(known(one), [2, 3]);
    // What came by way of another goes no further, whoever lacks it.
    one.receive(NodeId(4), &encode(&aged(0, report(4, &[(2, Liveness::Dead)]))));
    assert!(one.lacked_by(NodeId(4)).is_empty());
    // And nobody is told what it said itself.
    one.receive(NodeId(3), &encode(&aged(0, report(1, &[]))));
    assert_eq!(known(one), [2, 3, 4]);
}

#[test]
fn what_comes_late_by_way_of_another_is_no_news() {
    let telemetry = Telemetry::new(NodeId(1));
    let term = || telemetry.latest()[0].report.term;
    let with_term = |term| NodeReport { term, ..report(2, &[]) };
    telemetry.receive(NodeId(2), &encode(&aged(0, with_term(7))));
    telemetry.receive(NodeId(3), &encode(&aged(500, with_term(6))));
    assert_eq!(term(), 7);
    telemetry.receive(NodeId(3), &encode(&aged(0, with_term(8))));
    assert_eq!(term(), 8);
    telemetry.receive(NodeId(2), &encode(&aged(0, with_term(9))));
    assert_eq!(term(), 9);
}

#[test]
fn reports_by_way_of_another_are_bounded() {
    let telemetry = Telemetry::new(NodeId(1));
    for node in 2..100 {
        telemetry.receive(NodeId(2), &encode(&aged(0, report(node, &[]))));
    }
    assert_eq!(telemetry.latest().len(), MAX_NODES);
}

/// A node of the version before this one sends its report without an age.
#[test]
fn an_older_version_is_understood() {
    let telemetry = Telemetry::new(NodeId(1));
    let body = rmp_serde::to_vec_named(&report(2, &[(1, Liveness::Alive)])).unwrap();
    telemetry.receive(NodeId(2), &body);
    assert_eq!(known(&telemetry), [2]);
    // And it can read what this version sends.
    let sent = encode(&aged(0, report(2, &[(1, Liveness::Alive)])));
    assert_eq!(rmp_serde::from_slice::<NodeReport>(&sent).unwrap(), report(2, &[(1, Liveness::Alive)]));
}

#[test]
fn the_words_name_both_nodes() {
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
    let words = |sees, reachability, state: &LinkState, deaf| {
        let link = Link { reachability, ..report(1, &[(2, sees)]).links.remove(0) };
        trouble(NodeId(1), &link, state, deaf)
    };
    let (up, lost) = (state(true, None), state(false, Some("no TCP connection")));
    assert_eq!(words(Liveness::Alive, Reachability::BothWays, &up, false), None);
    assert_eq!(
        words(Liveness::Dead, Reachability::InOnly, &lost, true).unwrap(),
        "packets from node 1 do not reach node 2; packets from node 2 reach node 1"
    );
    assert_eq!(
        words(Liveness::Alive, Reachability::BothWays, &lost, false).unwrap(),
        "node 1 hears node 2, but cannot connect to it: no TCP connection"
    );
    assert_eq!(
        words(Liveness::Dead, Reachability::Unknown, &lost, false).unwrap(),
        "node 1 cannot connect to node 2: no TCP connection"
    );
    assert!(
        words(Liveness::Suspect, Reachability::Unknown, &lost, true).unwrap().contains("node 1 hears nobody")
    );
}

#[test]
fn heartbeats_that_others_have_heard_are_known_with_their_age() {
    let telemetry = Telemetry::new(NodeId(1));
    let beat = |endpoint: &str| ReceivedHeartbeat {
        upstream: "web".to_owned(),
        endpoint: endpoint.to_owned(),
        addr: "127.0.0.1:9001".to_owned(),
        age_ms: 40,
    };
    telemetry.store(NodeId(1), Message { beats: [beat("own")].into(), ..aged(0, report(1, &[])) });
    let message = Message { beats: [beat("e1")].into(), ..aged(100, report(2, &[])) };
    telemetry.receive(NodeId(3), &encode(&message));
    let heard = telemetry.heard_beats();
    assert_eq!(heard.len(), 1, "what this node has heard itself it knows");
    assert!(heard[0].0 >= Duration::from_millis(100) && *heard[0].1 == [beat("e1")], "{heard:?}");
}

#[test]
fn what_proxies_do_is_reported_unless_they_idle() {
    let figures = |upstream: &str, in_flight| UpstreamMetrics {
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
    let told = busy(&[figures("idle", 0), figures("web", 3)]);
    let telemetry = Telemetry::new(NodeId(1));
    telemetry.receive(NodeId(2), &encode(&Message { traffic: told, ..aged(0, report(2, &[])) }));
    assert_eq!(telemetry.traffic().concat(), [figures("web", 3)]);
    // A node that has fallen silent does nothing that is known.
    telemetry.receive(
        NodeId(3),
        &encode(&Message { traffic: busy(&[figures("db", 1)]), ..aged(FRESH_MS + 1, report(3, &[])) }),
    );
    assert_eq!(telemetry.traffic().concat(), [figures("web", 3)]);
}
