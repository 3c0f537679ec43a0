//! Headers: where they go, and which of them may be passed on.
//!
//! Headers of one connection end with it. Headers that only this proxy may set (`X-Forwarded-…`, `Forwarded`,
//! `Ringmaster-Epoch`) are never passed on from a client. Some servers take an underscore in a name for a dash, so
//! whatever is not passed on is not passed on in that spelling either.

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use std::{collections::BTreeMap, fmt::Write, io::Write as _, net::IpAddr};

/// Tells an endpoint which change of primaries made it the primary.
pub const EPOCH: &str = "ringmaster-epoch";

/// The `user-agent` of health checks.
pub const CHECK_USER_AGENT: &str = "ringmaster-health-check";

/// Where headers are written.
pub trait HeaderSink {
    fn header(&mut self, name: &str, value: &[u8]);
}

impl HeaderSink for Vec<u8> {
    fn header(&mut self, name: &str, value: &[u8]) {
        self.extend_from_slice(name.as_bytes());
        self.extend_from_slice(b": ");
        self.extend_from_slice(value);
        self.extend_from_slice(b"\r\n");
    }
}

impl HeaderSink for HeaderMap {
    fn header(&mut self, name: &str, value: &[u8]) {
        // Names and values were parsed before, or validated with the configuration.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value)) {
            self.append(name, value);
        }
    }
}

/// The headers of a map as text and bytes.
pub fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// The trailers that may be passed on: neither framing nor headers of this proxy.
pub fn trailers(all: HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(all.len());
    for (name, value) in &all {
        let framing = matches!(name.as_str(), "content-length" | "host");
        if !framing && !is_hop_by_hop(name.as_str()) && is_for_clients(name.as_str()) {
            kept.append(name, value.clone());
        }
    }
    kept
}

/// All but those that a route sets: servers may take a trailer for a header.
pub fn without(mut trailers: HeaderMap, set: &BTreeMap<String, String>) -> HeaderMap {
    let replaced: Vec<_> = trailers.keys().filter(|name| is_set(set, name.as_str())).cloned().collect();
    for name in replaced {
        trailers.remove(name);
    }
    trailers
}

/// Headers that are for the next hop alone (RFC 9110, 7.6.1), in either spelling.
pub fn is_hop_by_hop(name: &str) -> bool {
    let known: &[&str] = match name.len() {
        2 => &["te"],
        7 => &["upgrade", "trailer"],
        10 => &["connection", "keep-alive"],
        14 => &["http2-settings"],
        16 => &["proxy-connection"],
        17 => &["transfer-encoding"],
        18 => &["proxy-authenticate"],
        19 => &["proxy-authorization"],
        _ => &[],
    };
    known.iter().any(|known| is_spelt(name, known))
}

/// Whether a client may set it: it is none of those that only this proxy sets, and no second spelling of the length.
pub fn is_for_clients(name: &str) -> bool {
    const FORWARDED: &str = "x-forwarded-";
    match name.len() {
        9 => !name.eq_ignore_ascii_case("forwarded"),
        14 if is_spelt(name, "content-length") => !name.contains('_'),
        16 if is_spelt(name, EPOCH) => false,
        12.. => !(name.is_char_boundary(FORWARDED.len()) && is_spelt(&name[..FORWARDED.len()], FORWARDED)),
        _ => true,
    }
}

/// Whether both are the same name, with dashes or underscores, in any case.
pub fn is_spelt(name: &str, known: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == known.len() && name.bytes().map(dashed).eq(known.bytes().map(dashed))
}

/// What a route sets for a header, in either spelling.
pub fn value_of<'h>(headers: &'h BTreeMap<String, String>, name: &str) -> Option<&'h str> {
    headers.iter().find(|(set, _)| is_spelt(set, name)).map(|(_, value)| value.as_str())
}

pub fn is_set(headers: &BTreeMap<String, String>, name: &str) -> bool {
    value_of(headers, name).is_some()
}

/// A short text without an allocation. What does not fit is left out.
pub struct ShortText {
    bytes: [u8; 384],
    len: usize,
}

impl Default for ShortText {
    fn default() -> Self {
        ShortText { bytes: [0; 384], len: 0 }
    }
}

impl ShortText {
    pub fn put(&mut self, text: std::fmt::Arguments<'_>) {
        let mut room = &mut self.bytes[self.len..];
        let before = room.len();
        if room.write_fmt(text).is_ok() {
            self.len += before - room.len();
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// An address without its port, as headers have it.
pub fn addr_text(ip: IpAddr) -> String {
    let mut text = String::new();
    let ip = ip.to_canonical();
    write!(text, "{ip}").expect("writing to a string cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_trailer_does_not_take_the_place_of_a_header_that_a_route_sets() {
        let set = BTreeMap::from([("X-User".to_owned(), "a".to_owned())]);
        let mut sent = HeaderMap::new();
        for name in ["x-user", "x_user", "x-users", "grpc-status", "x-forwarded-for", "content_length"] {
            sent.header(name, b"b");
        }
        let left = without(trailers(sent), &set);
        let left: BTreeSet<_> = left.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, BTreeSet::from(["grpc-status", "x-users"]));
    }
}
