//! From a query to its response. Pure, but for the lookup of endpoints.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, SOA, SRV},
    },
};
use ringmaster_proxy::discover::{Host, Place};
use std::net::IpAddr;

const ZONE: &str = "ringmaster";
/// In seconds.
const TTL: u32 = 2;
/// The largest packet that no network splits, and the smallest maximum of a client.
const MAX_PACKET: u16 = 1232;
const MIN_PACKET: u16 = 512;

/// How the query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// A response that does not fit into a packet is truncated, and the client asks again over TCP.
    Udp,
    Tcp,
}

/// None if the message is not a query. `find` looks up endpoints by `UPSTREAM` or `ENDPOINT.UPSTREAM`; none if there is
/// no such name.
pub fn answer(question: &[u8], over: Over, find: impl Fn(&str) -> Option<Vec<Place>>) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    if question.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.add_queries(question.queries.iter().cloned());
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_PACKET);
        answer.set_edns(edns);
    }
    answer.metadata.response_code = match question.queries.as_slice() {
        _ if question.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        [query] => resolve(query, &mut answer, find),
        _ => ResponseCode::FormErr,
    };
    let whole = answer.to_vec().ok()?;
    let room = usize::from(question.max_payload().clamp(MIN_PACKET, MAX_PACKET));
    if over == Over::Udp && whole.len() > room { answer.truncate().to_vec().ok() } else { Some(whole) }
}

fn resolve(query: &Query, answer: &mut Message, find: impl Fn(&str) -> Option<Vec<Place>>) -> ResponseCode {
    let labels: Vec<_> = query.name().iter().map(String::from_utf8_lossy).collect();
    let labels: Vec<_> = labels.iter().map(|label| &**label).collect();
    let is = |label: &str, known: &str| label.eq_ignore_ascii_case(known);
    let [within @ .., zone] = labels.as_slice() else { return ResponseCode::Refused };
    if query.query_class() != DNSClass::IN || !is(zone, ZONE) {
        return ResponseCode::Refused;
    }
    answer.metadata.authoritative = true;
    let found = match within {
        // Names above other names exist, and have no records.
        [] => Some(Vec::new()),
        [only] if is(only, "upstream") || is(only, "_tcp") => Some(Vec::new()),
        [service @ .., protocol] if is(protocol, "_tcp") => {
            let found = service.join(".").strip_prefix('_').and_then(&find);
            if query.query_type() == RecordType::SRV {
                let of = service.join(".");
                add_services(query, of.trim_start_matches('_'), found.as_deref().unwrap_or_default(), answer);
            }
            found
        }
        [upstream @ .., kind] if is(kind, "upstream") => {
            let found = find(&upstream.join("."));
            let addresses = found.iter().flatten().filter_map(|place| address(&query.name, place));
            answer.add_answers(addresses.filter(|record| record.record_type() == query.query_type()));
            found
        }
        _ => None,
    };
    if answer.answers.is_empty() {
        // Has the TTL of a negative response.
        answer.add_authorities(authority());
    }
    if found.is_some() { ResponseCode::NoError } else { ResponseCode::NXDomain }
}

/// An SRV record for each endpoint, and the addresses of names in our zone.
fn add_services(query: &Query, upstream: &str, places: &[Place], answer: &mut Message) {
    for place in places {
        let target = match &place.host {
            Host::Name(host) => Name::from_ascii(format!("{host}.")).ok(),
            Host::Ip(_) => {
                let labels = [&place.endpoint, upstream, "upstream", ZONE].join(".");
                Name::from_labels(labels.split('.').map(str::as_bytes)).ok()
            }
        };
        // A name that DNS does not allow is left out.
        let Some(target) = target else { continue };
        let service = SRV::new(0, place.weight, place.port, target.clone());
        answer.add_answer(Record::from_rdata(query.name.clone(), TTL, RData::SRV(service)));
        answer.add_additionals(address(&target, place));
    }
}

fn address(name: &Name, place: &Place) -> Option<Record> {
    let data = match &place.host {
        Host::Ip(IpAddr::V4(ip)) => RData::A(A(*ip)),
        Host::Ip(IpAddr::V6(ip)) => RData::AAAA(AAAA(*ip)),
        Host::Name(_) => return None,
    };
    Some(Record::from_rdata(name.clone(), TTL, data))
}

fn authority() -> Option<Record> {
    let zone = Name::from_labels([ZONE]).ok()?;
    let mailbox = Name::from_labels(["hostmaster", ZONE]).ok()?;
    // The zone is not transferred, so the serial and the intervals do not matter.
    let (serial, never) = (1, i32::MAX);
    let soa = SOA::new(zone.clone(), mailbox, serial, never, never, never, TTL);
    Some(Record::from_rdata(zone, TTL, RData::SOA(soa)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn place(endpoint: &str, host: &str) -> Place {
        let ip = |ip| Host::Ip(ip);
        let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), ip);
        Place { endpoint: endpoint.to_owned(), host, port: 8080, weight: 3 }
    }

    fn find(name: &str) -> Option<Vec<Place>> {
        match name {
            "web" => Some(vec![
                place("e1", "10.0.0.1"),
                place("e.2", "2001:db8::1"),
                place("e3", "app.example.org"),
            ]),
            "e1.web" => Some(vec![place("e1", "10.0.0.1")]),
            "down" => Some(Vec::new()),
            "many" => Some((0..200).map(|n| place(&format!("e{n}"), &format!("10.0.1.{n}"))).collect()),
            _ => None,
        }
    }

    fn asked(name: &str, kind: RecordType, over: Over, edns: Option<u16>) -> Message {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_str(name).unwrap(), kind));
        if let Some(room) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(room);
            question.set_edns(edns);
        }
        let answer = answer(&question.to_vec().unwrap(), over, find).unwrap();
        if over == Over::Udp {
            assert!(answer.len() <= edns.map_or(512, usize::from), "{} bytes", answer.len());
        }
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!((answer.metadata.id, answer.metadata.message_type), (7, MessageType::Response));
        answer
    }

    fn resolved(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let answer = asked(name, kind, Over::Udp, None);
        let code = answer.metadata.response_code;
        // A negative response has its TTL.
        let is_bare = answer.answers.is_empty() && code != ResponseCode::Refused;
        assert_eq!(answer.authorities.len(), usize::from(is_bare), "{name}");
        assert!(
            answer.answers.iter().all(|record| record.ttl == TTL && record.name == answer.queries[0].name)
        );
        (code, answer.answers.iter().map(|record| record.data.to_string()).collect())
    }

    #[test]
    fn endpoints_are_resolved() {
        use ResponseCode::{NXDomain, NoError, Refused};
        let all = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        assert_eq!(resolved("web.upstream.ringmaster.", RecordType::A), (NoError, all(&["10.0.0.1"])));
        assert_eq!(resolved("web.UPSTREAM.ringMaster.", RecordType::AAAA), (NoError, all(&["2001:db8::1"])));
        assert_eq!(resolved("e1.web.upstream.ringmaster.", RecordType::A), (NoError, all(&["10.0.0.1"])));
        let services = all(&[
            "0 3 8080 e1.web.upstream.ringmaster.",
            "0 3 8080 e.2.web.upstream.ringmaster.",
            "0 3 8080 app.example.org.",
        ]);
        assert_eq!(resolved("_web._tcp.ringmaster.", RecordType::SRV), (NoError, services));
        let answer = asked("_web._tcp.ringmaster.", RecordType::SRV, Over::Udp, None);
        assert_eq!(answer.additionals.len(), 2, "names in our zone come with their addresses");
        for (name, kind, code) in [
            ("down.upstream.ringmaster.", RecordType::A, NoError),
            ("_down._tcp.ringmaster.", RecordType::SRV, NoError),
            ("web.upstream.ringmaster.", RecordType::TXT, NoError),
            ("upstream.ringmaster.", RecordType::A, NoError),
            ("ringmaster.", RecordType::A, NoError),
            ("missing.upstream.ringmaster.", RecordType::A, NXDomain),
            ("_missing._tcp.ringmaster.", RecordType::SRV, NXDomain),
            ("web._tcp.ringmaster.", RecordType::SRV, NXDomain),
            ("web.ringmaster.", RecordType::A, NXDomain),
            ("example.org.", RecordType::A, Refused),
            (".", RecordType::A, Refused),
        ] {
            assert_eq!(resolved(name, kind), (code, Vec::new()), "{name} {kind}");
        }
    }

    #[test]
    fn a_response_too_large_for_udp_is_truncated() {
        for edns in [None, Some(1232), Some(65_000)] {
            let short = asked("many.upstream.ringmaster.", RecordType::A, Over::Udp, edns);
            assert!(short.metadata.truncation && short.answers.is_empty(), "{edns:?}");
            let whole = asked("many.upstream.ringmaster.", RecordType::A, Over::Tcp, edns);
            assert!(!whole.metadata.truncation && whole.answers.len() == 200);
        }
        assert!(!asked("web.upstream.ringmaster.", RecordType::A, Over::Udp, None).metadata.truncation);
    }

    #[test]
    fn a_message_that_is_not_a_query_is_ignored() {
        let response = Message::response(1, OpCode::Query).to_vec().unwrap();
        for bytes in [&response[..], b"", b"nonsense", &[0xff; 64]] {
            assert_eq!(answer(bytes, Over::Udp, find), None);
        }
        let update = Message::new(1, MessageType::Query, OpCode::Update).to_vec().unwrap();
        let refused = Message::from_vec(&answer(&update, Over::Udp, find).unwrap()).unwrap();
        assert_eq!(refused.metadata.response_code, ResponseCode::NotImp);
    }
}
