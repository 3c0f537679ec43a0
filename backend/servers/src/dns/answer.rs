//! From a query to its response: what the message says beside its records, and how many of them it has.

use super::zone::{self, Records, ZONE, Zone};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode, emit_message_parts},
    rr::{DNSClass, Record, RecordType},
    serialize::binary::BinEncoder,
};
use ringmaster_proxy::discover::Discovered;

/// The largest packet that no network splits, and the smallest maximum of a client.
const MAX_PACKET: u16 = 1232;
const MIN_PACKET: u16 = 512;
/// The newest version of EDNS.
const EDNS_VERSION: u8 = 0;
const HEADER_BYTES: usize = 12;

/// How the query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// A response that does not fit into a packet is truncated, and the client asks again over TCP.
    Udp,
    Tcp,
}

/// None if the message is not a query. `find` looks up endpoints by `UPSTREAM` or `ENDPOINT.UPSTREAM`; none if there is
/// no such name.
pub fn answer(
    question: &[u8],
    over: Over,
    zone: Zone,
    find: impl Fn(&str) -> Option<Discovered>,
) -> Option<Vec<u8>> {
    let header: &[u8; HEADER_BYTES] = question.first_chunk()?;
    if header[2] & 0x80 != 0 {
        return None;
    }
    let Ok(question) = Message::from_vec(question) else { return Some(malformed(header)) };
    if question.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.checking_disabled = question.metadata.checking_disabled;
    answer.add_queries(question.queries.iter().cloned());
    if let Some(asked) = &question.edns {
        let mut edns = Edns::new();
        edns.set_version(EDNS_VERSION).set_max_payload(MAX_PACKET).set_dnssec_ok(asked.flags().dnssec_ok);
        answer.set_edns(edns);
    }
    answer.metadata.response_code = match question.queries.as_slice() {
        _ if question.edns.as_ref().is_some_and(|edns| edns.version() > EDNS_VERSION) => {
            ResponseCode::BADVERS
        }
        _ if question.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        [query] => resolve(query, &mut answer, zone, find),
        _ => ResponseCode::FormErr,
    };
    let room = match over {
        Over::Udp => question.max_payload().clamp(MIN_PACKET, MAX_PACKET),
        Over::Tcp => u16::MAX,
    };
    fit(answer, room)
}

/// The response to a query that cannot be parsed: its header alone.
fn malformed([id_high, id_low, flags, ..]: &[u8; HEADER_BYTES]) -> Vec<u8> {
    /// A response; and the bits of the query that it repeats: the kind of query and "recursion desired".
    const RESPONSE: u8 = 0x80;
    const REPEATED: u8 = 0x79;
    let mut response = vec![*id_high, *id_low, RESPONSE | flags & REPEATED, ResponseCode::FormErr.low()];
    response.resize(HEADER_BYTES, 0);
    response
}

fn resolve(
    query: &Query,
    answer: &mut Message,
    zone: Zone,
    find: impl Fn(&str) -> Option<Discovered>,
) -> ResponseCode {
    let labels: Vec<_> = query.name().iter().map(String::from_utf8_lossy).collect();
    let labels: Vec<_> = labels.iter().map(|label| &**label).collect();
    let [within @ .., apex] = labels.as_slice() else { return ResponseCode::Refused };
    let is_ours = apex.eq_ignore_ascii_case(ZONE);
    let is_transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) || !is_ours || is_transfer {
        return ResponseCode::Refused;
    }
    answer.metadata.authoritative = true;
    // A dot within a label separates nothing.
    let has_dot = within.iter().any(|label| label.contains('.'));
    let found = if has_dot { None } else { zone.records(query.name(), within, find) };
    let exists = found.is_some();
    let Records { answers, additionals } = found.unwrap_or_default();
    answer.add_answers(answers.into_iter().filter(|record| zone::is_asked_for(query.query_type(), record)));
    if answer.answers.is_empty() {
        answer.add_authority(zone::authority());
    } else if answer.answers.iter().any(names_a_host) {
        answer.add_additionals(additionals);
    }
    if exists { ResponseCode::NoError } else { ResponseCode::NXDomain }
}

fn names_a_host(record: &Record) -> bool {
    matches!(record.record_type(), RecordType::SRV | RecordType::NS)
}

/// The response within `room` bytes. Additional records are left out first: a client asks for those that it misses. Only
/// if answers are left out is the response truncated (RFC 2181, section 9).
fn fit(mut answer: Message, room: u16) -> Option<Vec<u8>> {
    if let Some(whole) = encode(&answer, answer.answers.len(), answer.additionals.len(), room) {
        return Some(whole);
    }
    let answers = most(answer.answers.len(), |count| encode(&answer, count, 0, room).is_some());
    answer.metadata.truncation = answers < answer.answers.len();
    let room_for = if answer.metadata.truncation { 0 } else { answer.additionals.len() };
    let additionals = most(room_for, |count| encode(&answer, answers, count, room).is_some());
    encode(&answer, answers, additionals, room)
}

/// The largest count up to `max` that fits, where each smaller one fits, too.
fn most(max: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut fitting, mut too_many) = (0, max + 1);
    while too_many - fitting > 1 {
        let middle = fitting + (too_many - fitting) / 2;
        if fits(middle) { fitting = middle } else { too_many = middle }
    }
    fitting
}

/// The first answers and additional records of a message; none if they do not fit.
fn encode(message: &Message, answers: usize, additionals: usize, room: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // Its own limit is of 64 KiB, and drops what is beyond. A smaller one would count names before their compression.
    let mut encoder = BinEncoder::new(&mut bytes);
    let header = emit_message_parts(
        &message.metadata,
        &mut message.queries.iter(),
        &mut message.answers[..answers].iter(),
        &mut message.authorities.iter(),
        &mut message.additionals[..additionals].iter(),
        message.edns.as_ref(),
        None,
        &mut encoder,
    );
    let is_whole = header.ok()?.metadata.truncation == message.metadata.truncation;
    (is_whole && bytes.len() <= usize::from(room)).then_some(bytes)
}

#[cfg(test)]
mod tests;
