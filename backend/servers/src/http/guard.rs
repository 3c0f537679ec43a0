//! Who may talk to this node from a browser.
//!
//! A request with an `Origin` comes from a page; only pages of members are served, so that a page
//! which was loaded from a node that died can go on with another. A request must also name a host
//! that this node has, or a page of a foreign name that resolves to it (DNS rebinding) could read
//! what it likes. Members' public URLs are read from the state at each request: a member that is
//! removed drops out at once.

use crate::http::{Api, problem::Refused};
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    response::Response,
};
use ringmaster_cluster::State;
use ringmaster_common::error::Code;

/// How long a browser may remember what CORS allows.
const PREFLIGHT_MAX_AGE: &str = "60";

/// A page or a program that this node answers to.
#[derive(Debug)]
pub struct Visitor {
    /// Where the page is from, if it is one.
    origin: Option<HeaderValue>,
    asks_first: bool,
}

impl Visitor {
    pub fn admit(api: &Api, request: &Request) -> Result<Visitor, Refused> {
        let headers = request.headers();
        let asks_first = request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        Ok(Visitor { origin: origin_of(api, &api.group.state(), headers)?, asks_first })
    }

    /// Whether it is a browser's question what a page may do (a preflight).
    pub fn asks_first(&self) -> bool {
        self.asks_first
    }

    /// Says in the answer that the page may read it.
    pub fn welcome(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Some(origin) = self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static(
                    "etag, location, ringmaster-revision, ringmaster-age-ms, ringmaster-request-id",
                ),
            );
            if self.asks_first {
                let allowed = "content-type, idempotency-key, if-match, if-none-match, ringmaster-client";
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
                headers.insert(
                    header::ACCESS_CONTROL_ALLOW_METHODS,
                    HeaderValue::from_static("GET, PUT, POST, DELETE"),
                );
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_MAX_AGE));
            }
        }
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        response
    }
}

/// What the loopback interface is called.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// The origin to name in the answer, if the request has one; an error if it is foreign.
fn origin_of(api: &Api, state: &State, headers: &HeaderMap) -> Result<Option<HeaderValue>, Refused> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_own_host(api, state, host) {
        return Err(Refused::new(
            Code::UnknownHost,
            format!("this node does not answer to the host {host:?}; use its public URL, {}", api.public_url),
        ));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    let of_host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) == Some(host);
    if of_host || origins(state).any(|member| is_same(member, text)) {
        Ok(Some(origin.clone()))
    } else {
        Err(Refused::new(
            Code::ForeignOrigin,
            format!(
                "pages of {text:?} may not talk to this cluster; only those of its members' public URLs may"
            ),
        ))
    }
}

fn is_own_host(api: &Api, state: &State, host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    (LOOPBACK.contains(&name) && port.parse() == Ok(api.port))
        || authority(&api.public_url) == Some(host)
        || state
            .membership
            .iter()
            .any(|node| node.api_addr == host || authority(&node.public_url) == Some(host))
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

/// What every answer carries.
pub fn secure(api: &Api, response: &mut Response) {
    let headers = response.headers_mut();
    let is_page =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let policy = if is_page { page_policy(&api.group.state()) } else { no_page_policy() };
    let set = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    for (name, value) in set {
        headers.insert(name, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// What is no page does nothing, wherever a browser puts it.
fn no_page_policy() -> HeaderValue {
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")
}

/// A page talks to the members alone.
fn page_policy(state: &State) -> HeaderValue {
    let members: Vec<String> =
        origins(state).flat_map(|origin| [origin.to_owned(), origin.replacen("http", "ws", 1)]).collect();
    let policy = format!(
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' {}; \
         frame-ancestors 'none'; base-uri 'none'; object-src 'none'; form-action 'none'",
        members.join(" ")
    );
    HeaderValue::from_str(&policy).expect("what a public URL may hold fits a header")
}

#[cfg(test)]
mod tests {
    use super::*;

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
