//! Which browser pages may talk to this node.
//!
//! A request with an `Origin` comes from a page. Only pages of members are served, so that a page whose node died can
//! continue with another one. A request must also name a host of this node, or a page of a foreign name that resolves
//! to it could read everything (DNS rebinding). The public URLs of members are read from the state at each request: a
//! removed member is refused at once.

use crate::http::{Api, problem::ApiError};
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
};
use ringmaster_cluster::State;
use ringmaster_common::error::Code;

/// How long a browser may remember what CORS allows.
const PREFLIGHT_MAX_AGE: &str = "60";

/// An accepted origin.
#[derive(Debug)]
pub struct OriginCheck {
    /// The origin of the page, if the request comes from one.
    origin: Option<HeaderValue>,
    is_preflight: bool,
}

impl OriginCheck {
    pub fn of(api: &Api, request: &Request) -> Result<OriginCheck, ApiError> {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let origin = origin_of(api, headers)?;
        Ok(OriginCheck { origin, is_preflight })
    }

    /// Whether a browser asks which requests a page may make.
    pub fn is_preflight(&self) -> bool {
        self.is_preflight
    }

    /// Allows the page to read the response.
    pub fn apply_cors(self, headers: &mut HeaderMap) {
        if let Some(origin) = self.origin {
            let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
            set(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
            if self.is_preflight {
                set(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
                set(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, PUT, POST, DELETE");
                set(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
            }
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

/// The headers of responses that a page may read.
const EXPOSED_HEADERS: &str = "etag, location, ringmaster-revision, ringmaster-age-ms, ringmaster-request-id";
/// The headers of requests that a page may set.
const ALLOWED_HEADERS: &str = "content-type, idempotency-key, if-match, if-none-match, ringmaster-client";

/// The names of the loopback interface.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// The origin to name in the answer, if the request has one; an error if it is foreign.
fn origin_of(api: &Api, headers: &HeaderMap) -> Result<Option<HeaderValue>, ApiError> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // Most requests name an address of this node and no origin, and need no look at the members.
    let is_own = is_of_this_node(api, host) || is_of_a_member(&api.services.group.state(), host);
    if !is_own {
        return Err(ApiError::new(
            Code::UnknownHost,
            format!("this node does not answer to the host {host:?}; use its public URL, {}", api.public_url),
        ));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    let of_host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) == Some(host);
    if of_host || origins(&api.services.group.state()).any(|member| is_same(member, text)) {
        Ok(Some(origin.clone()))
    } else {
        Err(ApiError::new(
            Code::ForeignOrigin,
            format!(
                "pages of {text:?} may not talk to this cluster; only those of its members' public URLs may"
            ),
        ))
    }
}

fn is_of_this_node(api: &Api, host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    (LOOPBACK.contains(&name) && port.parse() == Ok(api.port)) || authority(&api.public_url) == Some(host)
}

fn is_of_a_member(state: &State, host: &str) -> bool {
    state.membership.iter().any(|node| node.api_addr == host || authority(&node.public_url) == Some(host))
}

/// Whether two origins are one: the names of the loopback interface all mean the same.
fn is_same(one: &str, other: &str) -> bool {
    let loopback = |origin: &str| {
        let (scheme, authority) = origin.split_once("://")?;
        let port = LOOPBACK.iter().find_map(|name| authority.strip_prefix(name))?;
        Some((scheme.to_owned(), port.to_owned()))
    };
    one == other || loopback(one).is_some_and(|one| loopback(other) == Some(one))
}

/// The members' public URLs, as origins.
fn origins(state: &State) -> impl Iterator<Item = &str> {
    state.membership.iter().filter_map(|node| origin(&node.public_url))
}

/// `http://host:port` of a URL.
fn origin(url: &str) -> Option<&str> {
    let after_scheme = url.find("://")? + 3;
    let end = url[after_scheme..].find('/').map_or(url.len(), |slash| after_scheme + slash);
    Some(&url[..end])
}

fn authority(url: &str) -> Option<&str> {
    origin(url)?.split_once("://").map(|(_, authority)| authority)
}

/// Sets the security headers that every response has.
pub fn set_security_headers(api: &Api, headers: &mut HeaderMap) {
    let is_page =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let policy = if is_page { page_policy(&api.services.group.state()) } else { NO_PAGE_POLICY };
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
/// A response that is no page may do nothing, wherever a browser puts it.
const NO_PAGE_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// A page talks to the members alone.
fn page_policy(state: &State) -> HeaderValue {
    let members: Vec<String> = origins(state)
        .map(csp_source)
        .flat_map(|source| [source.replacen("http", "ws", 1), source])
        .collect();
    let policy = format!(
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' {}; \
         frame-ancestors 'none'; base-uri 'none'; object-src 'none'; form-action 'none'",
        members.join(" ")
    );
    HeaderValue::from_str(&policy).expect("a public URL fits a header")
}

/// The source of a content security policy that matches an origin. Sources know no IPv6 addresses: browsers ignore them.
/// Any host at the port is the narrowest source that they take.
fn csp_source(origin: &str) -> String {
    match origin.split_once("://[") {
        Some((scheme, rest)) => {
            let port = rest.split_once("]:").map(|(_, port)| format!(":{port}"));
            format!("{scheme}://*{}", port.unwrap_or_default())
        }
        None => origin.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chromium 156 says of `http://[::1]:7701` "contains an invalid source … It will be ignored".
    #[test]
    fn a_source_has_no_ipv6_address() {
        assert_eq!(csp_source("http://[::1]:7701"), "http://*:7701");
        assert_eq!(csp_source("https://[2001:db8::7]"), "https://*");
        assert_eq!(csp_source("http://10.0.0.1:7701"), "http://10.0.0.1:7701");
    }

    #[test]
    fn the_loopback_interface_has_many_names() {
        assert!(is_same("http://127.0.0.1:7702", "http://localhost:7702"));
        assert!(is_same("http://[::1]:7702", "http://127.0.0.1:7702"));
        assert!(!is_same("http://127.0.0.1:7702", "http://localhost:7703"));
        assert!(!is_same("http://127.0.0.1:7702", "https://localhost:7702"));
        assert!(!is_same("http://10.0.0.1:7702", "http://localhost:7702"));
        assert!(!is_same("http://127.0.0.1.evil:7702", "http://localhost:7702"));
    }

    #[test]
    fn origins_are_cut_out_of_urls() {
        assert_eq!(origin("http://a:1"), Some("http://a:1"));
        assert_eq!(origin("https://a.example/base/"), Some("https://a.example"));
        assert_eq!(authority("https://a.example:8443/x"), Some("a.example:8443"));
        assert_eq!(origin("nonsense"), None);
    }
}
