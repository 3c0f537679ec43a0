use super::*;
use hickory_proto::rr::Name;
use ringmaster_proxy::discover::{Host, Place};
use std::str::FromStr;

fn place(endpoint: &str, host: &str) -> Place {
    let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Ip);
    Place { endpoint: endpoint.to_owned(), host, port: 8080, weight: 3 }
}

fn places(count: usize, id: &str) -> Vec<Place> {
    (0..count).map(|n| place(&format!("{id}{n}"), &format!("10.0.1.{n}"))).collect()
}

fn find(name: &str) -> Option<Discovered> {
    match name.to_ascii_lowercase().as_str() {
        "web" => Some(Discovered::Upstream(vec![
            place("e1", "10.0.0.1"),
            place("e.2", "2001:db8::1"),
            place("e3", "app.example.org"),
        ])),
        "e1.web" => Some(Discovered::Endpoint(Some(place("e1", "10.0.0.1")))),
        "drained.web" => Some(Discovered::Endpoint(None)),
        "web.v2" => Some(Discovered::Upstream(vec![place("e1", "10.0.0.9")])),
        "v2" | "2.web" => Some(Discovered::Parent),
        "down" => Some(Discovered::Upstream(Vec::new())),
        "many" => Some(Discovered::Upstream(places(200, "e"))),
        long if long == "u".repeat(60) => Some(Discovered::Upstream(places(256, &"e".repeat(60)))),
        _ => None,
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    question
}

fn response(question: &Message, over: Over) -> Message {
    let server = Some("127.0.0.1".parse().unwrap());
    let answer = answer(&question.to_vec().unwrap(), over, Zone { server }, find).unwrap();
    if over == Over::Udp {
        let room = question.edns.as_ref().map_or(512, |edns| usize::from(edns.max_payload()));
        assert!(answer.len() <= room.max(512), "{} bytes", answer.len());
    }
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.message_type), (7, MessageType::Response));
    answer
}

fn asked(name: &str, kind: RecordType, over: Over, edns: Option<u16>) -> Message {
    let mut question = query(name, kind);
    if let Some(room) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(room);
        question.set_edns(edns);
    }
    response(&question, over)
}

fn resolved(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let answer = asked(name, kind, Over::Udp, None);
    let code = answer.metadata.response_code;
    // A negative response has its TTL.
    let is_bare = answer.answers.is_empty() && code != ResponseCode::Refused;
    assert_eq!(answer.authorities.len(), usize::from(is_bare), "{name}");
    assert!(
        answer.answers.iter().all(|record| record.ttl == zone::TTL && record.name == answer.queries[0].name)
    );
    (code, answer.answers.iter().map(|record| record.data.to_string()).collect())
}

fn all(list: &[&str]) -> Vec<String> {
    list.iter().map(|one| (*one).to_owned()).collect()
}

#[test]
fn endpoints_are_resolved() {
    use ResponseCode::{NXDomain, NoError, Refused};
    assert_eq!(resolved("web.upstream.ringmaster.", RecordType::A), (NoError, all(&["10.0.0.1"])));
    assert_eq!(resolved("web.UPSTREAM.ringMaster.", RecordType::AAAA), (NoError, all(&["2001:db8::1"])));
    assert_eq!(
        resolved("web.upstream.ringmaster.", RecordType::ANY),
        (NoError, all(&["10.0.0.1", "2001:db8::1"]))
    );
    assert_eq!(resolved("e1.web.upstream.ringmaster.", RecordType::A), (NoError, all(&["10.0.0.1"])));
    let services = all(&[
        "0 65535 8080 e1.web.upstream.ringmaster.",
        "0 65535 8080 e.2.web.upstream.ringmaster.",
        "0 65535 8080 app.example.org.",
    ]);
    assert_eq!(resolved("_web._tcp.ringmaster.", RecordType::SRV), (NoError, services.clone()));
    assert_eq!(resolved("_web._tcp.ringmaster.", RecordType::ANY), (NoError, services));
    let answer = asked("_web._tcp.ringmaster.", RecordType::SRV, Over::Udp, None);
    assert_eq!(answer.additionals.len(), 2, "names in our zone come with their addresses");
    for (name, kind, code) in [
        ("down.upstream.ringmaster.", RecordType::A, NoError),
        ("drained.web.upstream.ringmaster.", RecordType::A, NoError),
        ("_down._tcp.ringmaster.", RecordType::SRV, NoError),
        ("_web._tcp.ringmaster.", RecordType::A, NoError),
        ("web.upstream.ringmaster.", RecordType::TXT, NoError),
        ("upstream.ringmaster.", RecordType::A, NoError),
        ("missing.upstream.ringmaster.", RecordType::A, NXDomain),
        ("_missing._tcp.ringmaster.", RecordType::SRV, NXDomain),
        ("_e1.web._tcp.ringmaster.", RecordType::SRV, NXDomain),
        ("web._tcp.ringmaster.", RecordType::SRV, NXDomain),
        ("web.ringmaster.", RecordType::A, NXDomain),
        ("e1\\.web.upstream.ringmaster.", RecordType::A, NXDomain),
        ("example.org.", RecordType::A, Refused),
        (".", RecordType::A, Refused),
        ("ringmaster.", RecordType::AXFR, Refused),
    ] {
        assert_eq!(resolved(name, kind), (code, Vec::new()), "{name} {kind}");
    }
}

/// A resolver that minimises queries asks for these first, and takes NXDOMAIN for the whole tree (RFC 8020).
#[test]
fn a_name_above_another_exists() {
    for name in
        ["v2.upstream.ringmaster.", "2.web.upstream.ringmaster.", "v2._tcp.ringmaster.", "_tcp.ringmaster."]
    {
        assert_eq!(resolved(name, RecordType::A), (ResponseCode::NoError, Vec::new()), "{name}");
    }
    let services = all(&["0 65535 8080 e1.web.v2.upstream.ringmaster."]);
    assert_eq!(resolved("_web.v2._tcp.ringmaster.", RecordType::SRV), (ResponseCode::NoError, services));
}

#[test]
fn the_apex_has_its_records_in_the_answer() {
    let soa = "ns.ringmaster. hostmaster.ringmaster. 1 2147483647 2147483647 2147483647 2";
    for (kind, records) in [
        (RecordType::SOA, &[soa][..]),
        (RecordType::NS, &["ns.ringmaster."]),
        (RecordType::ANY, &[soa, "ns.ringmaster."]),
        // These are the parent's.
        (RecordType::DS, &[]),
        (RecordType::A, &[]),
    ] {
        assert_eq!(resolved("ringmaster.", kind), (ResponseCode::NoError, all(records)), "{kind}");
    }
    assert_eq!(asked("ringmaster.", RecordType::NS, Over::Udp, None).additionals.len(), 1);
    assert_eq!(resolved("ns.ringmaster.", RecordType::A), (ResponseCode::NoError, all(&["127.0.0.1"])));
    assert_eq!(resolved("ns.ringmaster.", RecordType::AAAA), (ResponseCode::NoError, Vec::new()));
}

#[test]
fn a_response_too_large_for_udp_has_the_records_that_fit() {
    // An A record takes 16 bytes after a question of 42, or of 53 with EDNS: (512 - 42) / 16 and so on.
    for (edns, count) in [(None, 29), (Some(512), 28), (Some(1232), 73), (Some(65_000), 73)] {
        let short = asked("many.upstream.ringmaster.", RecordType::A, Over::Udp, edns);
        assert!(short.metadata.truncation, "{edns:?}");
        assert_eq!((short.answers.len(), short.edns.is_some()), (count, edns.is_some()), "{edns:?}");
        let whole = asked("many.upstream.ringmaster.", RecordType::A, Over::Tcp, edns);
        assert!(!whole.metadata.truncation && whole.answers.len() == 200);
    }
    assert!(!asked("web.upstream.ringmaster.", RecordType::A, Over::Udp, None).metadata.truncation);
    let services = asked("_many._tcp.ringmaster.", RecordType::SRV, Over::Udp, Some(512));
    assert!(services.metadata.truncation && services.answers.len() == 9 && services.additionals.is_empty());
}

/// unbound 1.17.1 and bind 9.18.49 answer SERVFAIL for a truncated response over TCP.
#[test]
fn additional_records_that_do_not_fit_are_left_out_without_truncation() {
    let long = format!("_{}._tcp.ringmaster.", "u".repeat(60));
    let answer = asked(&long, RecordType::SRV, Over::Tcp, None);
    assert!(!answer.metadata.truncation);
    assert_eq!(answer.answers.len(), 256);
    assert!((1..256).contains(&answer.additionals.len()), "{} fit", answer.additionals.len());
    // Here the records fit, and their addresses do not.
    let few = |name: &str| {
        let many = find(name)?;
        let Discovered::Upstream(places) = many else { return None };
        Some(Discovered::Upstream(places[..8].to_vec()))
    };
    let question = query("_many._tcp.ringmaster.", RecordType::SRV).to_vec().unwrap();
    let bytes = super::answer(&question, Over::Udp, Zone::default(), few).unwrap();
    let answer = Message::from_vec(&bytes).unwrap();
    assert!(!answer.metadata.truncation && bytes.len() <= 512);
    assert_eq!(answer.answers.len(), 8);
    assert!(answer.additionals.len() < 8);
}

#[test]
fn a_newer_version_of_edns_is_refused() {
    let mut question = query("web.upstream.ringmaster.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1).set_dnssec_ok(true);
    question.set_edns(edns);
    let refused = response(&question, Over::Udp);
    // 16 is BADVERS with an OPT record.
    assert_eq!(u16::from(refused.metadata.response_code), 16);
    let edns = refused.edns.expect("our version");
    assert_eq!((edns.version(), edns.flags().dnssec_ok), (0, true));
    assert!(refused.answers.is_empty());
}

#[test]
fn a_message_that_is_not_a_query_is_ignored() {
    let response = Message::response(1, OpCode::Query).to_vec().unwrap();
    for bytes in [&response[..], b"", b"nonsense", &[0xff; 64]] {
        assert_eq!(answer(bytes, Over::Udp, Zone::default(), find), None);
    }
    let update = Message::new(1, MessageType::Query, OpCode::Update).to_vec().unwrap();
    let refused = Message::from_vec(&answer(&update, Over::Udp, Zone::default(), find).unwrap()).unwrap();
    assert_eq!(refused.metadata.response_code, ResponseCode::NotImp);
}

#[test]
fn a_malformed_query_gets_an_error() {
    let whole = query("web.upstream.ringmaster.", RecordType::A).to_vec().unwrap();
    let mut two_opts = whole.clone();
    two_opts[11] = 2;
    two_opts.extend([[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]; 2].concat());
    let nine_questions = [0, 7, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0];
    for malformed in [&whole[..20], &two_opts[..], &nine_questions[..]] {
        let bytes = answer(malformed, Over::Udp, Zone::default(), find).unwrap();
        let refused = Message::from_vec(&bytes).unwrap();
        assert_eq!((refused.metadata.id, refused.metadata.response_code), (7, ResponseCode::FormErr));
        assert!(refused.queries.is_empty());
    }
}
