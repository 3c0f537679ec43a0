//! The route of a request, and the path that its endpoint gets.
//!
//! A request is routed by the normal form of its path: the longest prefix that matches. The endpoint gets the path as
//! the client sent it. Some paths are forwarded in their normal form instead, because an endpoint might take them for a
//! path of another route, or of no route: one with `..` that leads above the root, or to another route if it is read
//! otherwise; and, if the prefix is replaced, one with `..` or another spelling of the prefix.

use crate::{
    coarse_clock::CoarseInstant,
    prepare::{self, Client, PreparedRequest, RequestLine},
    random::Random,
    table::{Route, Table},
    wire::{
        head::{Framing, malformed},
        path,
    },
};
use ringmaster_common::error::{Code, Refusal};
use std::{borrow::Cow, sync::Arc};

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
    if !path::fits_target(query) {
        return Err(malformed("the query has characters that must be escaped"));
    }
    let path = if path.is_empty() { "/" } else { path };
    let normal = path::normalise(path).ok_or_else(|| malformed("the path is invalid or ambiguous"))?;
    let Some(route) = table.find(client.listener, client.host, &normal) else {
        let detail = format!("no route for path {normal:.200} at host {:?}", client.host);
        return Err(Refusal::new(Code::NoRoute, detail));
    };
    let finds_route = |path: &str| {
        table.find(client.listener, client.host, path).is_some_and(|found| Arc::ptr_eq(found, route))
    };
    if matches!(normal, Cow::Owned(_)) && hides_slashes(path, finds_route) {
        return Err(malformed("the path is ambiguous: a backslash may be read as a slash"));
    }
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
    let forwarded = forwarded_path(route, path, &normal, finds_route);
    let line = RequestLine { path: &forwarded, normal: &normal, ..request };
    prepare::prepare(route, line, fields, named, client, random, out)
}

/// Whether the path has backslashes and leads elsewhere if they are slashes, as for servers that read URLs like browsers.
fn hides_slashes(path: &str, finds_route: impl Fn(&str) -> bool) -> bool {
    if !path.contains('\\') {
        return false;
    }
    let slashed = path.replace('\\', "/");
    path::goes_up(&slashed) || !path::normalise(&slashed).is_some_and(|normal| finds_route(&normal))
}

/// `finds_route`: whether a path leads to the same route.
fn forwarded_path<'p>(
    route: &Route,
    path: &'p str,
    normal: &'p str,
    finds_route: impl Fn(&str) -> bool,
) -> Cow<'p, str> {
    let goes_up = path != normal && path::goes_up(path);
    let Some(rewrite) = &route.spec.rewrite_prefix else {
        let is_safe =
            !goes_up || !path::leaves_root(path) && path::readings(path).all(|read| finds_route(&read));
        return Cow::Borrowed(if is_safe { path } else { normal });
    };
    let (prefix, rest) = normal.split_at(route.prefix_len);
    let rest = match path.strip_prefix(prefix) {
        Some(as_sent) if !goes_up && (as_sent.is_empty() || as_sent.starts_with('/')) => as_sent,
        _ => rest,
    };
    match (rewrite.trim_end_matches('/'), rest) {
        ("", "") => Cow::Borrowed("/"),
        ("", rest) => Cow::Borrowed(rest),
        (prefix, rest) => Cow::Owned(format!("{prefix}{rest}")),
    }
}

#[cfg(test)]
mod tests;
