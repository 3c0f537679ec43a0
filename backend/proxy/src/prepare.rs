//! A prepared request: its route, and the head that its endpoint gets, in the protocol that the endpoint speaks.
//!
//! First everything is left out that belongs to the client's connection, then headers of this proxy are added. In the
//! other order a client could name our headers in `Connection`, and have them removed.

use crate::{
    endpoint::Endpoint,
    error::UpstreamError,
    hash::hash,
    random::Random,
    selection::SelectionHints,
    table::Route,
    wire::{
        head::{Framing, malformed},
        headers::{EPOCH, HeaderSink, ShortText, is_for_clients, is_hop_by_hop, is_set, is_spelt, value_of},
        path,
    },
};
use hyper::{
    HeaderMap, Method, Request, Uri,
    header::HeaderValue,
    http::uri::{Authority, Parts, PathAndQuery, Scheme},
};
use ringmaster_common::{
    error::{Code, Refusal},
    traffic::upstream::{HashKey, Policy, Protocol},
};
use std::{borrow::Cow, fmt::Display, net::IpAddr};

const REQUEST_ID: &str = "x-request-id";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED_PREFIX: &str = "x-forwarded-prefix";

/// A request that can be sent to an endpoint of its route.
#[derive(Debug)]
pub struct PreparedRequest<'t> {
    pub route: &'t Route,
    pub hints: SelectionHints,
    /// Of the body.
    pub framing: Framing,
    /// How much of the prepared head is method and path, without the query; for people to read.
    pub line_len: usize,
    /// Where the host is missing in the prepared head: the client names none, and each endpoint gets its own address.
    host_missing_at: Option<usize>,
    /// The head for an endpoint that speaks HTTP/2.
    pub http2: Option<Box<Request<()>>>,
    pub is_idempotent: bool,
    /// It is a HEAD request.
    pub is_head: bool,
    pub wants_upgrade: bool,
}

impl PreparedRequest<'_> {
    /// Whether it may be sent twice: it is idempotent and has no body.
    pub fn is_resendable(&self) -> bool {
        self.is_idempotent && self.framing == Framing::Empty
    }

    /// The head for an HTTP/1 endpoint, of which `prepared` was written.
    pub fn head_for<'h>(&self, prepared: &'h [u8], endpoint: &Endpoint) -> Cow<'h, [u8]> {
        let Some(at) = self.host_missing_at else { return Cow::Borrowed(prepared) };
        let mut head = prepared[..at].to_vec();
        head.header("host", endpoint.addr.as_bytes());
        head.extend_from_slice(&prepared[at..]);
        Cow::Owned(head)
    }

    /// The head for an HTTP/2 endpoint, of which `prepared` is in this request.
    pub fn http2_head_for<'h>(
        &self,
        prepared: &'h Request<()>,
        endpoint: &Endpoint,
    ) -> Result<Cow<'h, Request<()>>, UpstreamError> {
        if self.host_missing_at.is_none() {
            return Ok(Cow::Borrowed(prepared));
        }
        let path = prepared.uri().path_and_query().cloned();
        let uri = http2_uri(&endpoint.addr, path).map_err(UpstreamError::BadRequest)?;
        let mut head = prepared.clone();
        *head.uri_mut() = uri;
        Ok(Cow::Owned(head))
    }
}

/// The request line or what stands for it in HTTP/2, and the framing of the body.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'b> {
    pub method: &'b str,
    pub path: &'b str,
    /// The normal form of the path.
    pub normal: &'b str,
    /// With its question mark, if there is one.
    pub query: &'b str,
    pub framing: Framing,
    pub upgrade: Option<&'b str>,
}

impl<'b> RequestLine<'b> {
    /// `target` is path and query.
    pub fn new(
        method: &'b str,
        target: &'b str,
        framing: Framing,
        upgrade: Option<&'b str>,
    ) -> RequestLine<'b> {
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        RequestLine { method, path, normal: path, query, framing, upgrade }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub ip: IpAddr,
    /// The same as text.
    pub addr: &'a str,
    /// The host that the client asks for; empty if it names none.
    pub host: &'a str,
    /// The listener that it connected to; none for the node's own.
    pub listener: Option<&'a str>,
}

/// Writes the head to `out` for HTTP/1. For HTTP/2 the head is in the result, and `out` has method and path alone.
pub fn prepare<'t, 'h>(
    route: &'t Route,
    request: RequestLine<'_>,
    fields: impl Iterator<Item = (&'h str, &'h [u8])> + Clone,
    named: impl Fn(&str) -> bool,
    client: Client<'_>,
    random: &mut Random,
    out: &mut Vec<u8>,
) -> Result<PreparedRequest<'t>, Refusal> {
    let RequestLine { method, path, normal, query, framing, upgrade } = request;
    out.clear();
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_bytes());
    let mut prepared = PreparedRequest {
        route,
        hints: selection_hints(fields.clone(), client.ip, normal, route),
        framing,
        line_len: out.len(),
        host_missing_at: None,
        http2: None,
        is_idempotent: is_idempotent(method),
        is_head: method == "HEAD",
        wants_upgrade: false,
    };
    match route.upstream.config.protocol {
        Protocol::Http1 => {
            out.extend_from_slice(query.as_bytes());
            out.extend_from_slice(b" HTTP/1.1\r\n");
            match client.host {
                "" => prepared.host_missing_at = Some(out.len()),
                host => out.header("host", host.as_bytes()),
            }
            // Some servers refuse such a request if it does not say that it has no body (RFC 9110, 8.6).
            let says_empty = framing == Framing::Empty
                && matches!(method, "POST" | "PUT" | "PATCH")
                && !fields.clone().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            request_headers(fields, named, client, route, random, out);
            if says_empty {
                out.header("content-length", b"0");
            }
            if framing == Framing::Chunked {
                out.header("transfer-encoding", b"chunked");
            }
            if let Some(upgrade) = upgrade {
                prepared.wants_upgrade = true;
                out.header("connection", b"upgrade");
                out.header("upgrade", upgrade.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
        Protocol::Http2 => {
            let mut headers = HeaderMap::new();
            // `TE: trailers` is repeated at each hop (RFC 9113, 8.2.2); gRPC servers insist on it.
            if fields.clone().any(|(name, value)| name.eq_ignore_ascii_case("te") && value == b"trailers") {
                headers.insert("te", HeaderValue::from_static("trailers"));
            }
            request_headers(fields, named, client, route, random, &mut headers);
            // The proxy answers it itself: the endpoint's window says whether it wants the body.
            headers.remove("expect");
            prepared.host_missing_at = client.host.is_empty().then_some(out.len());
            prepared.http2 = Some(Box::new(http2_head(method, client.host, path, query, headers)?));
        }
        Protocol::Tcp => {
            let detail = format!("upstream {} speaks plain TCP, the client HTTP", route.upstream.name);
            return Err(Refusal::new(Code::BadGateway, detail));
        }
    }
    Ok(prepared)
}

fn http2_head(
    method: &str,
    host: &str,
    path: &str,
    query: &str,
    headers: HeaderMap,
) -> Result<Request<()>, Refusal> {
    let method: Method = method.parse().map_err(|_| malformed("the method is invalid"))?;
    let target = http2_target(path, query)?;
    let uri = if host.is_empty() { Uri::from(target) } else { http2_uri(host, Some(target))? };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

fn http2_uri(host: &str, target: Option<PathAndQuery>) -> Result<Uri, Refusal> {
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(host.parse::<Authority>().map_err(impossible)?);
    parts.path_and_query = target;
    Uri::from_parts(parts).map_err(impossible)
}

/// A few characters that should be escaped pass by HTTP/1 as they are, and by HTTP/2 only with their escapes.
fn http2_target(path: &str, query: &str) -> Result<PathAndQuery, Refusal> {
    let target = format!("{path}{query}");
    target.parse().or_else(|_| {
        let mut escaped = String::with_capacity(target.len());
        for letter in target.chars() {
            match letter {
                '"' | '<' | '>' | '`' => path::escape(letter as u8, &mut escaped),
                letter => escaped.push(letter),
            }
        }
        escaped.parse().map_err(impossible)
    })
}

fn impossible(error: impl Display) -> Refusal {
    malformed(format!("not possible in HTTP/2: {error}"))
}

/// The headers that an endpoint gets. The host is left to the caller: where it stands depends on the protocol.
fn request_headers<'h>(
    fields: impl Iterator<Item = (&'h str, &'h [u8])>,
    named: impl Fn(&str) -> bool,
    client: Client<'_>,
    route: &Route,
    random: &mut Random,
    out: &mut impl HeaderSink,
) {
    let set_by_route = &route.spec.set_request_headers;
    let mut has_id = false;
    for (name, value) in fields {
        let is_id = is_spelt(name, REQUEST_ID);
        if name.eq_ignore_ascii_case("host")
            || is_hop_by_hop(name)
            || named(name)
            || !is_for_clients(name)
            || is_set(set_by_route, name)
            || is_id && name.contains('_')
        {
            continue;
        }
        has_id |= is_id;
        out.header(name, value);
    }
    out.header("x-forwarded-for", client.addr.as_bytes());
    // If TLS is terminated in front of this proxy, the route sets this header itself.
    let set = value_of(set_by_route, FORWARDED_PROTO);
    if set.is_none() {
        out.header(FORWARDED_PROTO, b"http");
    }
    let proto = if set == Some("https") { "https" } else { "http" };
    let mut forwarded = ShortText::default();
    let bracket = if client.ip.is_ipv6() { ("\"[", "]\"") } else { ("", "") };
    forwarded.put(format_args!("for={}{}{};proto={}", bracket.0, client.addr, bracket.1, proto));
    if !client.host.is_empty() {
        out.header("x-forwarded-host", client.host.as_bytes());
        forwarded.put(format_args!(";host=\"{}\"", client.host));
    }
    out.header("forwarded", forwarded.bytes());
    // An endpoint that does not see the prefix needs it for the links that it writes.
    let prefix = &route.spec.path_prefix[..route.prefix_len];
    if route.spec.rewrite_prefix.as_deref() == Some("/")
        && !prefix.is_empty()
        && !is_set(set_by_route, FORWARDED_PREFIX)
    {
        out.header(FORWARDED_PREFIX, prefix.as_bytes());
    }
    if !has_id && !is_set(set_by_route, REQUEST_ID) {
        let mut id = ShortText::default();
        id.put(format_args!("{:016x}{:016x}", random.next(), random.next()));
        out.header(REQUEST_ID, id.bytes());
    }
    if let Some(epoch) = &route.upstream.epoch {
        out.header(EPOCH, epoch.as_bytes());
    }
    for (name, value) in set_by_route {
        out.header(name, value.as_bytes());
    }
}

/// The parts of a request that matter to the choice of an endpoint.
pub fn selection_hints<'h>(
    fields: impl Iterator<Item = (&'h str, &'h [u8])> + Clone,
    client: IpAddr,
    path: &str,
    route: &Route,
) -> SelectionHints {
    let config = &route.upstream.config;
    let header = |wanted: &str| {
        fields.clone().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let cookie = |wanted: &str| {
        let cookies = fields.clone().filter(|(name, _)| name.eq_ignore_ascii_case("cookie"));
        cookies.flat_map(|(_, value)| value.split(|byte| *byte == b';')).find_map(|pair| {
            let pair = str::from_utf8(pair).ok()?.trim();
            pair.split_once('=').filter(|(name, _)| *name == wanted).map(|(_, value)| value)
        })
    };
    let by_address = || match client {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    };
    let key = match &config.hash_key {
        _ if config.policy != Policy::ConsistentHash => 0,
        HashKey::ClientAddress => by_address(),
        HashKey::Path => hash(path.as_bytes()),
        HashKey::Header { name } => header(name).map_or_else(by_address, hash),
        HashKey::Cookie { name } => cookie(name).map_or_else(by_address, |value| hash(value.as_bytes())),
    };
    let sticky = config.sticky_cookie.as_deref().and_then(cookie);
    let sticky = sticky.and_then(|token| u64::from_str_radix(token, 16).ok());
    SelectionHints { key, sticky, ..SelectionHints::default() }
}

/// Whether a request may be sent twice (RFC 9110, 9.2.2).
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}

pub fn body_too_large(route: &Route) -> Refusal {
    let detail = format!("route {} is limited to bodies of {} bytes", route.name, route.spec.max_body_bytes);
    Refusal::new(Code::BodyTooLarge, detail)
}

#[cfg(test)]
mod tests;
