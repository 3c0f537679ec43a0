//! Headers on their way through, in whatever form they come and go.
//!
//! First everything goes that belongs to the client's connection, then what only this proxy may say is said.
//! In the other order a client could name our headers in `Connection`, and have them removed. What
//! a client says of who it is (`X-Forwarded-…`, `Forwarded`) is not believed, whether it is spelt with dashes
//! or, as some servers take for the same, with underscores.

use super::{pick, pick::Wish, random::Random, table::Route, upstream::Tried};
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use ringmaster_common::traffic::upstream::{HashKey, Policy};
use std::{collections::BTreeMap, fmt::Write, io::Write as _, net::IpAddr};

/// Tells an endpoint which change of primaries made it the one.
const EPOCH: &str = "ringmaster-epoch";
const REQUEST_ID: &str = "x-request-id";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Where headers go.
pub trait Sink {
    fn header(&mut self, name: &str, value: &[u8]);
}

impl Sink for Vec<u8> {
    fn header(&mut self, name: &str, value: &[u8]) {
        self.extend_from_slice(name.as_bytes());
        self.extend_from_slice(b": ");
        self.extend_from_slice(value);
        self.extend_from_slice(b"\r\n");
    }
}

impl Sink for HeaderMap {
    fn header(&mut self, name: &str, value: &[u8]) {
        // What was parsed before, or checked when it was configured, fits.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value)) {
            self.append(name, value);
        }
    }
}

/// What a map has, as text and bytes.
pub fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub ip: IpAddr,
    /// The same as text.
    pub addr: &'a str,
    pub host: &'a str,
}

/// What an endpoint is told. Whom the request is for is left to the caller: where it stands depends
/// on the protocol.
pub fn request<'h>(
    headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    named: impl Fn(&str) -> bool,
    client: Client<'_>,
    route: &Route,
    random: &mut Random,
    sink: &mut impl Sink,
) {
    let mut has_id = false;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("host") {
            continue;
        }
        if belongs_to_connection(name)
            || named(name)
            || is_ours(name)
            || is_set(&route.spec.set_request_headers, name)
        {
            continue;
        }
        has_id |= name.eq_ignore_ascii_case(REQUEST_ID);
        sink.header(name, value);
    }
    sink.header("x-forwarded-for", client.addr.as_bytes());
    // Who ends TLS in front of this proxy has its routes say so, and they speak for themselves below.
    let set = value_of(&route.spec.set_request_headers, FORWARDED_PROTO);
    if set.is_none() {
        sink.header(FORWARDED_PROTO, b"http");
    }
    let proto = if set == Some("https") { "https" } else { "http" };
    let mut forwarded = Text::default();
    let bracket = if client.ip.is_ipv6() { ("\"[", "]\"") } else { ("", "") };
    forwarded.put(format_args!("for={}{}{};proto={}", bracket.0, client.addr, bracket.1, proto));
    if !client.host.is_empty() {
        sink.header("x-forwarded-host", client.host.as_bytes());
        forwarded.put(format_args!(";host=\"{}\"", client.host));
    }
    sink.header("forwarded", forwarded.bytes());
    if !has_id && !is_set(&route.spec.set_request_headers, REQUEST_ID) {
        let mut id = Text::default();
        id.put(format_args!("{:016x}{:016x}", random.next(), random.next()));
        sink.header(REQUEST_ID, id.bytes());
    }
    if let Some(epoch) = &route.upstream.epoch {
        sink.header(EPOCH, epoch.as_bytes());
    }
    for (name, value) in &route.spec.set_request_headers {
        sink.header(name, value.as_bytes());
    }
}

/// What a client is told. `sticky` names the endpoint to come back to.
pub fn response<'h>(
    headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    named: impl Fn(&str) -> bool,
    route: &Route,
    sticky: Option<u64>,
    sink: &mut impl Sink,
) {
    for (name, value) in headers {
        if !belongs_to_connection(name) && !named(name) && !is_set(&route.spec.set_response_headers, name) {
            sink.header(name, value);
        }
    }
    if let (Some(cookie), Some(token)) = (&route.upstream.config.sticky_cookie, sticky) {
        let mut text = Text::default();
        text.put(format_args!("{cookie}={token:016x}; Path=/; HttpOnly; SameSite=Lax"));
        sink.header("set-cookie", text.bytes());
    }
    for (name, value) in &route.spec.set_response_headers {
        sink.header(name, value.as_bytes());
    }
}

/// What goes on of trailers: neither what frames a message nor what only this proxy says.
pub fn trailers(all: HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(all.len());
    for (name, value) in &all {
        let framing = matches!(name.as_str(), "content-length" | "host");
        if !framing && !belongs_to_connection(name.as_str()) && !is_ours(name.as_str()) {
            kept.append(name, value.clone());
        }
    }
    kept
}

/// What of a request matters to the choice of an endpoint.
pub fn wish<'h>(
    headers: impl Iterator<Item = (&'h str, &'h [u8])> + Clone,
    client: IpAddr,
    path: &str,
    route: &Route,
) -> Wish {
    let config = &route.upstream.config;
    let header = |wanted: &str| {
        headers.clone().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let cookie = |wanted: &str| {
        let cookies = headers.clone().filter(|(name, _)| name.eq_ignore_ascii_case("cookie"));
        cookies.flat_map(|(_, value)| value.split(|byte| *byte == b';')).find_map(|pair| {
            let pair = str::from_utf8(pair).ok()?.trim();
            pair.split_once('=').filter(|(name, _)| *name == wanted).map(|(_, value)| value)
        })
    };
    let by_address = || match client {
        IpAddr::V4(ip) => pick::hash(&ip.octets()),
        IpAddr::V6(ip) => pick::hash(&ip.octets()),
    };
    let key = match &config.hash_key {
        _ if config.policy != Policy::ConsistentHash => 0,
        HashKey::ClientAddress => by_address(),
        HashKey::Path => pick::hash(path.as_bytes()),
        HashKey::Header { name } => header(name).map_or_else(by_address, pick::hash),
        HashKey::Cookie { name } => {
            cookie(name).map_or_else(by_address, |value| pick::hash(value.as_bytes()))
        }
    };
    let sticky = config.sticky_cookie.as_deref().and_then(cookie);
    Wish {
        key,
        sticky: sticky.and_then(|token| u64::from_str_radix(token, 16).ok()),
        tried: Tried::default(),
    }
}

/// Headers that are for the next hop alone (RFC 9110, 7.6.1).
pub fn belongs_to_connection(name: &str) -> bool {
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
    known.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// What only this proxy says.
fn is_ours(name: &str) -> bool {
    const FORWARDED: &str = "x-forwarded-";
    match name.len() {
        9 => name.eq_ignore_ascii_case("forwarded"),
        16 if same(name, EPOCH) => true,
        12.. => name.is_char_boundary(FORWARDED.len()) && same(&name[..FORWARDED.len()], FORWARDED),
        _ => false,
    }
}

fn same(name: &str, known: &str) -> bool {
    let spelt = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == known.len() && name.bytes().map(spelt).eq(known.bytes())
}

fn is_set(headers: &BTreeMap<String, String>, name: &str) -> bool {
    value_of(headers, name).is_some()
}

fn value_of<'h>(headers: &'h BTreeMap<String, String>, name: &str) -> Option<&'h str> {
    headers.iter().find(|(set, _)| set.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// A short text, without an allocation. What does not fit is left out.
struct Text {
    bytes: [u8; 384],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Text { bytes: [0; 384], len: 0 }
    }
}

impl Text {
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        let mut room = &mut self.bytes[self.len..];
        let before = room.len();
        if room.write_fmt(text).is_ok() {
            self.len += before - room.len();
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// An address without its port, as headers have it.
pub fn addr_text(ip: IpAddr) -> String {
    let mut text = String::new();
    let ip = ip.to_canonical();
    write!(text, "{ip}").expect("a string takes all that is written");
    text
}

#[cfg(test)]
mod tests;
