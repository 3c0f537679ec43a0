//! Routes: the mapping from requests to upstreams.
//!
//! Among the routes that match a request, a route with a host precedes one for any host, and then the longest path
//! prefix wins. Routes therefore have no order, and two routes that match the same requests are refused.

use super::{check_name, upstream::check_token, within};
use crate::{Timestamp, id::Revision};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The body of `PUT /v1/routes/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// The listener, `host:port` [default: each node's proxy listener].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// The host of the requests [default: any]; `*.example.org` matches any subdomain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub host: Option<String>,
    /// Whole segments: `/api` matches `/api` and `/api/x`, not `/apis`.
    #[serde(default = "root")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1024))]
    pub path_prefix: String,
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub upstream: String,
    /// Replaces the prefix in the path that is sent to the endpoint. Answers are not rewritten: a `Location` or the path of
    /// a cookie stays as the endpoint wrote it. If the value is `/`, `X-Forwarded-Prefix` has the prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1024))]
    pub rewrite_prefix: Option<String>,
    /// Headers set on the request; they replace headers of the client, in either spelling: `X-User` and `X_User`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_request_headers: BTreeMap<String, String>,
    /// Headers set on the response; they replace headers of the endpoint.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_response_headers: BTreeMap<String, String>,
    /// The maximum rate at each node; requests beyond it are answered with 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10000000))]
    pub rate_limit_per_s: Option<u32>,
    /// Connections to the listener must start with a PROXY protocol header, version 1 or 2; others are closed.
    /// It applies to a listener as soon as one of its routes sets it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_proxy_protocol: bool,
    /// The longest body of a request, in bytes; longer ones are answered with 413.
    #[serde(default = "default_max_body")]
    #[cfg_attr(feature = "openapi", schema(maximum = 1099511627776i64))]
    pub max_body_bytes: u64,
}

fn root() -> String {
    "/".to_owned()
}

fn default_max_body() -> u64 {
    64 * 1024 * 1024
}

impl RouteSpec {
    /// Checks the route; the error says which value is wrong.
    pub fn check(&self) -> Result<(), String> {
        check_name("an upstream", &self.upstream)?;
        if let Some(listener) = &self.listener {
            super::upstream::check_addr(listener)?;
        }
        if self.accept_proxy_protocol && self.listener.is_none() {
            return Err("accept_proxy_protocol is for a route with a listener of its own: the nodes' own is for clients"
                .to_owned());
        }
        if let Some(host) = &self.host {
            check_host(host)?;
        }
        check_prefix("path_prefix", &self.path_prefix)?;
        if let Some(prefix) = &self.rewrite_prefix {
            check_prefix("rewrite_prefix", prefix)?;
        }
        for headers in [&self.set_request_headers, &self.set_response_headers] {
            within("the number of headers that are set", headers.len() as u64, 0, 32)?;
            let mut known = BTreeSet::new();
            for (name, value) in headers {
                check_token("a header", name)?;
                // Many servers take an underscore in a name for a dash.
                let spelt = name.to_ascii_lowercase().replace('_', "-");
                let never = NEVER_SET.contains(&spelt.as_str());
                if !known.insert(spelt) {
                    return Err(format!(
                        "{name} is set twice: case, dashes and underscores make no difference"
                    ));
                }
                if never {
                    return Err(format!("{name} is for the proxy alone to say and cannot be set"));
                }
                if value.len() > 1024 || !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
                    return Err(format!(
                        "the value of {name} is up to 1024 bytes of plain ASCII, not {value:?}"
                    ));
                }
            }
        }
        if let Some(rate) = self.rate_limit_per_s {
            within("rate_limit_per_s", rate.into(), 1, 10_000_000)?;
        }
        within("max_body_bytes", self.max_body_bytes, 0, 1 << 40)
    }

    /// Whether both match the very same requests.
    pub fn shadows(&self, other: &RouteSpec) -> bool {
        let host = |route: &RouteSpec| route.host.as_deref().map(str::to_ascii_lowercase);
        let prefix = |route: &RouteSpec| route.path_prefix.trim_end_matches('/').to_owned();
        self.listener == other.listener && host(self) == host(other) && prefix(self) == prefix(other)
    }
}

/// Headers that frame the message, belong to the connection, or are set by the proxy alone.
const NEVER_SET: &[&str] = &[
    "connection",
    "content-length",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "ringmaster-epoch",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
];

fn check_host(host: &str) -> Result<(), String> {
    if let Some(name) = host.strip_suffix('.') {
        return Err(format!(
            "a route's host is written without a dot at its end, as in {name:?}; requests may have one"
        ));
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    if name.len() <= 253 && name.split('.').all(is_label) {
        Ok(())
    } else {
        Err(format!("a route's host is a name without port, or *. and a name, not {host:?}"))
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn check_prefix(what: &str, prefix: &str) -> Result<(), String> {
    let fits = prefix.starts_with('/')
        && prefix.len() <= 1024
        && prefix.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\%".contains(&byte))
        && !prefix.contains("//")
        && !prefix.split('/').any(|segment| segment == "." || segment == "..");
    if fits {
        Ok(())
    } else {
        Err(format!("{what} begins with / and is a plain path without // . .. % ? #, unlike {prefix:?}"))
    }
}

/// A route, at the version that its ETag names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Route {
    pub name: String,
    #[serde(flatten)]
    pub spec: RouteSpec,
    pub version: Revision,
    pub updated_at: Timestamp,
    pub updated_by: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(field: &str) -> Result<(), String> {
        let text = format!(r#"{{"upstream": "web", {field}}}"#);
        serde_json::from_str::<RouteSpec>(&text).unwrap().check()
    }

    #[test]
    fn a_host_is_spelt_as_requests_spell_it() {
        for host in [
            "app.example.org",
            "*.example.org",
            "APP.example.org",
            "localhost",
            "127.0.0.1",
            "_x.my_app",
            "a-b",
        ] {
            assert_eq!(checked(&format!(r#""host": "{host}""#)), Ok(()), "{host}");
        }
        let long = format!("{}.org", "x".repeat(64));
        for host in [
            "",
            ".",
            "*.",
            "*",
            "*.example.org.",
            "..example.org",
            "a..b",
            ".x",
            "-x",
            "x-",
            "a.-b.c",
            "a:80",
            "[::1]",
            "é",
            &long,
        ] {
            let error = checked(&format!(r#""host": "{host}""#)).unwrap_err();
            assert!(error.contains("a route's host is"), "{host}: {error}");
        }
        let error = checked(r#""host": "app.example.org.""#).unwrap_err();
        assert!(
            error.contains("without a dot at its end") && error.contains(r#""app.example.org""#),
            "{error}"
        );
    }

    #[test]
    fn a_header_is_set_once_and_not_in_place_of_the_proxy() {
        assert_eq!(checked(r#""set_request_headers": {"X-User": "a", "X-Users": "b"}"#), Ok(()));
        for twice in ["x-user", "X_User"] {
            let error = checked(&format!(r#""set_request_headers": {{"X-User": "a", "{twice}": "b"}}"#));
            assert!(error.unwrap_err().contains("set twice"), "{twice}");
        }
        for name in ["Host", "X-Forwarded-For", "X_Forwarded_For", "content_length", "Transfer-Encoding"] {
            let error = checked(&format!(r#""set_request_headers": {{"{name}": "a"}}"#));
            assert!(error.unwrap_err().contains("for the proxy alone"), "{name}");
        }
    }
}
