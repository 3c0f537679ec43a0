//! Which browser pages may talk to this node.
//!
//! A request with an `Origin` comes from a page. Only pages of members are served, so that a page whose node died can
//! continue with another one. A request must also name a host of this node, or a page of a foreign name that resolves
//! to it could read everything (DNS rebinding). Every browser names a host, so a request without one comes from none. Probes
//! and metrics are answered under every name: load balancers and monitoring choose their own. The public URLs of members are read from the state at each request: a
//! removed member is refused at once.

use crate::http::{Api, policy::Policy, problem::ApiError};
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
    pub fn of(api: &Api, policy: &Policy, request: &Request) -> Result<OriginCheck, ApiError> {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let origin = origin_of(api, policy, headers)?;
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
const ALLOWED_HEADERS: &str =
    "content-type, idempotency-key, if-match, if-none-match, ringmaster-client, ringmaster-resent-after";

/// The names of the loopback interface.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];
/// The routes that are answered under the name of any host.
const ANY_HOST: [&str; 3] = ["/livez", "/readyz", "/metrics"];
/// The port of a host that names none.
const HTTP_PORT: u16 = 80;

/// The origin to name in the answer, if the request has one; an error if it is foreign.
fn origin_of(api: &Api, policy: &Policy, headers: &HeaderMap) -> Result<Option<HeaderValue>, ApiError> {
    let origin = headers.get(header::ORIGIN);
    let host = headers.get(header::HOST).map_or(Some(""), |host| host.to_str().ok());
    if origin.is_none() && (host == Some("") || ANY_HOST.contains(&policy.route)) {
        return Ok(None);
    }
    let text = host.unwrap_or_default();
    let host = Host::parse(text);
    // Most requests name an address of this node and no origin, and need no look at the members.
    let is_own =
        |host: &Host| is_of_this_node(api, host) || is_of_a_member(&api.services.group.state(), host);
    let Some(host) = host.filter(is_own) else {
        return Err(ApiError::new(
            Code::UnknownHost,
            format!("this node does not answer to the host {text:?}; use its public URL, {}", api.public_url),
        ));
    };
    let Some(origin) = origin else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    if host.is_of(text) || origins(&api.services.group.state()).any(|member| is_same(member, text)) {
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

/// A host as a request names it. Capitals and a final dot make no difference.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    fn parse(text: &str) -> Option<Host> {
        // The colons of an IPv6 address are within brackets.
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, Some(port.parse().ok()?)),
            _ => (text, None),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        (!name.is_empty()).then_some(Host { name, port })
    }

    /// Whether a request to this URL names the host: without a port, where the URL has that of its scheme.
    fn is_of(&self, url: &str) -> bool {
        let usual = if url.starts_with("https://") { 443 } else { HTTP_PORT };
        let of_url = authority(url).and_then(Host::parse);
        of_url.is_some_and(|url| {
            self.name == url.name && self.port.unwrap_or(usual) == url.port.unwrap_or(usual)
        })
    }

    fn is_at(&self, addr: &str) -> bool {
        Host::parse(addr)
            .is_some_and(|addr| self.name == addr.name && self.port_or_usual() == addr.port_or_usual())
    }

    fn port_or_usual(&self) -> u16 {
        self.port.unwrap_or(HTTP_PORT)
    }
}

fn is_of_this_node(api: &Api, host: &Host) -> bool {
    let is_loopback = LOOPBACK.contains(&host.name.as_str()) && host.port_or_usual() == api.port;
    is_loopback || host.is_of(&api.public_url)
}

fn is_of_a_member(state: &State, host: &Host) -> bool {
    state.membership.iter().any(|node| host.is_at(&node.api_addr) || host.is_of(&node.public_url))
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
    fn a_host_is_known_in_each_of_its_spellings() {
        let is_of = |host: &str, url: &str| Host::parse(host).is_some_and(|host| host.is_of(url));
        for host in ["node-1.example:7701", "Node-1.EXAMPLE:7701", "node-1.example.:7701"] {
            assert!(is_of(host, "http://node-1.example:7701"), "{host}");
            assert!(is_of(host, "https://Node-1.example:7701/base"), "{host}");
        }
        assert!(is_of("ringmaster", "http://ringmaster") && is_of("Ringmaster:80", "http://ringmaster"));
        assert!(
            is_of("ringmaster", "https://ringmaster:443") && is_of("ringmaster:443", "https://ringmaster")
        );
        assert!(is_of("[::1]:7701", "http://[::1]:7701") && is_of("[::1]", "http://[::1]"));
        for foreign in
            ["", ":7701", "ringmaster:81", "ringmaster.example", "ringmaster:", "ringmaster:x", "[::1]"]
        {
            assert!(!is_of(foreign, "http://ringmaster"), "{foreign:?}");
        }
        assert!(!is_of("ringmaster:80", "https://ringmaster"));
        assert!(Host::parse("10.0.0.1:7701").unwrap().is_at("10.0.0.1:7701"));
    }

    #[test]
    fn origins_are_cut_out_of_urls() {
        assert_eq!(origin("http://a:1"), Some("http://a:1"));
        assert_eq!(origin("https://a.example/base/"), Some("https://a.example"));
        assert_eq!(authority("https://a.example:8443/x"), Some("a.example:8443"));
        assert_eq!(origin("nonsense"), None);
    }
}
