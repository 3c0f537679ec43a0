use super::*;
use std::str::FromStr;

fn place(endpoint: &str, host: &str, port: u16, weight: u32) -> Place {
    let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Ip);
    Place { endpoint: endpoint.to_owned(), host, port, weight }
}

fn data(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.data.to_string()).collect()
}

fn services_of(places: &[Place]) -> Vec<String> {
    let name = Name::from_str("_web._tcp.ringmaster.").unwrap();
    data(&services(&name, "web", places).answers)
}

/// HAProxy 2.6 makes (weight + 255) / 256 of it: 3, 8 and 256 here.
#[test]
fn weights_have_the_full_range() {
    let weights = |weights: &[u32]| {
        let heaviest = weights.iter().copied().max().unwrap();
        weights.iter().map(|weight| scaled(*weight, heaviest)).collect::<Vec<_>>()
    };
    assert_eq!(weights(&[1, 3, 100]), [655, 1966, 65_535]);
    assert_eq!(weights(&[1, 1000]), [66, 65_535]);
    assert_eq!(weights(&[2, 2]), [65_535, 65_535]);
    assert_eq!(weights(&[0, 1, u32::MAX]), [0, 1, 65_535]);
    assert_eq!(weights(&[0, 0]), [0, 0]);
    let places = [place("a", "10.0.0.1", 80, 1), place("b", "10.0.0.2", 80, 3)];
    assert_eq!(
        services_of(&places),
        ["0 21845 80 a.web.upstream.ringmaster.", "0 65535 80 b.web.upstream.ringmaster."]
    );
}

#[test]
fn each_address_comes_once() {
    let places = [
        place("a", "10.0.0.1", 80, 1),
        place("b", "10.0.0.1", 81, 1),
        place("c", "10.0.0.2", 80, 1),
        place("d", "app.example.org", 80, 1),
        place("e", "APP.example.org.", 80, 1),
        place("f", "app.example.org", 81, 1),
    ];
    let name = Name::from_str("web.upstream.ringmaster.").unwrap();
    let find = |_: &str| Some(Discovered::Upstream(places.to_vec()));
    let found = Zone::default().records(&name, &["web", "upstream"], find).unwrap();
    assert_eq!(data(&found.answers), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(
        services_of(&places),
        [
            "0 65535 80 a.web.upstream.ringmaster.",
            "0 65535 81 b.web.upstream.ringmaster.",
            "0 65535 80 c.web.upstream.ringmaster.",
            "0 65535 80 app.example.org.",
            "0 65535 81 app.example.org.",
        ]
    );
}

#[test]
fn a_name_that_dns_cannot_have_is_left_out() {
    let places = [
        place(&"e".repeat(64), "10.0.0.1", 80, 1),
        place("a..b", "10.0.0.2", 80, 1),
        place("c", "no..host", 80, 1),
        place("d", "10.0.0.3", 80, 1),
    ];
    assert_eq!(services_of(&places), ["0 65535 80 d.web.upstream.ringmaster."]);
}
