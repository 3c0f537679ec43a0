//! The names of the zone and their records. Pure, but for the lookup of endpoints.

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, NS, SOA, SRV},
};
use ringmaster_proxy::discover::{Discovered, Host, Place};
use std::{collections::HashSet, net::IpAddr};

pub const ZONE: &str = "ringmaster";
/// In seconds.
pub const TTL: u32 = 2;

/// How the zone is served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Zone {
    /// The address of this server, if it listens on one address alone.
    pub server: Option<IpAddr>,
}

/// All records of a name, of any type.
#[derive(Debug, Default, PartialEq)]
pub struct Records {
    pub answers: Vec<Record>,
    /// The addresses of names in the answers.
    pub additionals: Vec<Record>,
}

impl Zone {
    /// The records of a name; none if there is no such name. `labels` are those before the zone's own. `find` looks up
    /// endpoints by `UPSTREAM` or `ENDPOINT.UPSTREAM`.
    pub fn records(
        self,
        name: &Name,
        labels: &[&str],
        find: impl Fn(&str) -> Option<Discovered>,
    ) -> Option<Records> {
        let is = |label: &str, known: &str| label.eq_ignore_ascii_case(known);
        match labels {
            [] => Some(self.apex(name)),
            [only] if is(only, "ns") => {
                Some(Records { answers: self.server_address(name), ..Records::default() })
            }
            // Names above other names exist, and have no records.
            [only] if is(only, "upstream") || is(only, "_tcp") => Some(Records::default()),
            [service @ .., protocol] if is(protocol, "_tcp") => {
                let service = service.join(".");
                match service.strip_prefix('_').and_then(|upstream| Some((upstream, find(upstream)?))) {
                    Some((upstream, Discovered::Upstream(places))) => Some(services(name, upstream, &places)),
                    Some(_) => None,
                    None => matches!(find(&service), Some(Discovered::Parent)).then(Records::default),
                }
            }
            [upstream @ .., kind] if is(kind, "upstream") => {
                let places = match find(&upstream.join("."))? {
                    Discovered::Upstream(places) => places,
                    Discovered::Endpoint(place) => place.into_iter().collect(),
                    Discovered::Parent => Vec::new(),
                };
                // Endpoints on one host have one address.
                let mut seen = HashSet::new();
                let places = places.iter().filter(|place| seen.insert(&place.host));
                Some(Records {
                    answers: places.filter_map(|place| address(name, place)).collect(),
                    ..Records::default()
                })
            }
            _ => None,
        }
    }

    fn apex(self, name: &Name) -> Records {
        let server = server_name();
        let ns = Record::from_rdata(name.clone(), TTL, RData::NS(NS(server.clone())));
        Records { answers: vec![soa(name.clone()), ns], additionals: self.server_address(&server) }
    }

    fn server_address(self, name: &Name) -> Vec<Record> {
        self.server.map(|ip| ip_address(name, ip)).into_iter().collect()
    }
}

/// An SRV record for each endpoint, and the addresses of names in our zone.
fn services(name: &Name, upstream: &str, places: &[Place]) -> Records {
    let (mut records, mut seen) = (Records::default(), HashSet::new());
    let heaviest = places.iter().map(|place| place.weight).max().unwrap_or_default();
    for place in places {
        // A name that DNS cannot have is left out; the proxy reports it.
        let Some(target) = target(upstream, place) else { continue };
        if !seen.insert((target.clone(), place.port)) {
            continue;
        }
        let service = SRV::new(0, scaled(place.weight, heaviest), place.port, target.clone());
        records.answers.push(Record::from_rdata(name.clone(), TTL, RData::SRV(service)));
        records.additionals.extend(address(&target, place));
    }
    records
}

/// The host of an endpoint, or its own name in the zone.
fn target(upstream: &str, place: &Place) -> Option<Name> {
    let host = match &place.host {
        Host::Name(host) => host.strip_suffix('.').unwrap_or(host).to_owned(),
        Host::Ip(_) => [&place.endpoint, upstream, "upstream", ZONE].join("."),
    };
    Name::from_labels(host.split('.').map(str::as_bytes)).ok()
}

/// A weight in the full range of SRV records, where the heaviest endpoint has the largest: clients reduce it to a range
/// of their own. 0 would mean that an endpoint gets nothing, so it stands for 0 alone.
fn scaled(weight: u32, heaviest: u32) -> u16 {
    if weight == 0 {
        return 0;
    }
    let (weight, heaviest) = (u64::from(weight), u64::from(heaviest.max(weight)));
    let scaled = (weight * u64::from(u16::MAX) + heaviest / 2) / heaviest;
    u16::try_from(scaled.max(1)).unwrap_or(u16::MAX)
}

fn address(name: &Name, place: &Place) -> Option<Record> {
    match &place.host {
        Host::Ip(ip) => Some(ip_address(name, *ip)),
        Host::Name(_) => None,
    }
}

fn ip_address(name: &Name, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(name.clone(), TTL, data)
}

/// The start of authority. It has the TTL of negative responses.
pub fn authority() -> Record {
    soa(name_in_zone(&[]))
}

fn soa(zone: Name) -> Record {
    // The zone is not transferred, so the serial and the intervals do not matter.
    let (serial, never) = (1, i32::MAX);
    let soa = SOA::new(server_name(), name_in_zone(&["hostmaster"]), serial, never, never, never, TTL);
    Record::from_rdata(zone, TTL, RData::SOA(soa))
}

fn server_name() -> Name {
    name_in_zone(&["ns"])
}

fn name_in_zone(labels: &[&str]) -> Name {
    Name::from_labels(labels.iter().chain(&[ZONE]).map(|label| label.as_bytes()))
        .expect("short labels are a name")
}

/// Whether a query of this type gets this record.
pub fn is_asked_for(query: RecordType, record: &Record) -> bool {
    query == RecordType::ANY || record.record_type() == query
}

#[cfg(test)]
mod tests;
