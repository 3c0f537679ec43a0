//! The route of a request: one spelling of its path, then the longest prefix that matches.
//!
//! The path that is routed is also the path that is forwarded, so no endpoint sees a path other than the one whose
//! route was taken.

use crate::{
    coarse_clock::CoarseInstant,
    prepare::{self, Client, PreparedRequest, RequestLine},
    random::Random,
    table::Table,
    wire::{
        head::{Framing, malformed},
        path,
    },
};
use ringmaster_common::error::{Code, Refusal};

/// Finds the route of a request, and prepares the head that its endpoint gets: in `out` for HTTP/1.
pub fn resolve<'t, 'h>(
    request: RequestLine<'_>,
    fields: impl Iterator<Item = (&'h str, &'h [u8])> + Clone,
    named: impl Fn(&str) -> bool,
    client: Client<'_>,
    table: &'t Table,
    random: &mut Random,
    out: &mut Vec<u8>,
) -> Result<PreparedRequest<'t>, Refusal> {
    let RequestLine { method, path, query, .. } = request;
    if matches!(method, "CONNECT" | "TRACE") {
        return Err(Refusal::new(Code::MethodNotAllowed, format!("the proxy does not support {method}")));
    }
    if !query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(malformed("the query has characters that must be escaped"));
    }
    let path = path::normalise(if path.is_empty() { "/" } else { path })
        .ok_or_else(|| malformed("the path is invalid or ambiguous"))?;
    let Some(route) = table.find(client.listener, client.host, &path) else {
        let detail = format!("no route for path {path:.200} at host {:?}", client.host);
        return Err(Refusal::new(Code::NoRoute, detail));
    };
    if let Some(limit) = &route.limit
        && !limit.admits(CoarseInstant::now())
    {
        let rate = route.spec.rate_limit_per_s.unwrap_or_default();
        let detail = format!("route {} is limited to {rate} requests a second on each node", route.name);
        return Err(Refusal::new(Code::RateLimited, detail));
    }
    if let Framing::Length(length) = request.framing
        && length > route.spec.max_body_bytes
    {
        return Err(prepare::body_too_large(route));
    }
    prepare::prepare(route, RequestLine { path: &path, ..request }, fields, named, client, random, out)
}
