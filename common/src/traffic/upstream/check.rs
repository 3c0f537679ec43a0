//! Validation of an upstream's configuration.

use super::{ActiveStandby, EndpointSpec, HashKey, MAX_WEIGHT, Protocol, UpstreamSpec};
use crate::traffic::{MAX_ENDPOINTS, check_name, health::HealthCheck, within};
use std::collections::BTreeSet;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

impl UpstreamSpec {
    /// Says what is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        if self.endpoints.len() > MAX_ENDPOINTS {
            return Err(format!(
                "an upstream has up to {MAX_ENDPOINTS} endpoints, not {}",
                self.endpoints.len()
            ));
        }
        let (mut ids, mut addrs) = (BTreeSet::new(), BTreeSet::new());
        for endpoint in &self.endpoints {
            endpoint.check()?;
            if !ids.insert(&endpoint.id) {
                return Err(format!("two endpoints are called {}", endpoint.id));
            }
            if !addrs.insert(&endpoint.addr) {
                return Err(format!("two endpoints have the address {}", endpoint.addr));
            }
        }
        match &self.hash_key {
            HashKey::Header { name } => check_token("a header", name)?,
            HashKey::Cookie { name } => check_token("a cookie", name)?,
            HashKey::ClientAddress | HashKey::Path => {}
        }
        if let Some(name) = &self.sticky_cookie {
            check_token("a cookie", name)?;
        }
        if let Some(check) = &self.health_check {
            check.check()?;
        }
        let outliers = &self.outlier_ejection;
        within("outlier_ejection.consecutive_failures", outliers.consecutive_failures.into(), 0, 1_000)?;
        within("outlier_ejection.base_ms", outliers.base_ms, 100, HOUR)?;
        within("outlier_ejection.max_ms", outliers.max_ms, outliers.base_ms, 24 * HOUR)?;
        within("outlier_ejection.max_ejected_percent", outliers.max_ejected_percent.into(), 0, 100)?;
        within("retries.attempts", self.retries.attempts.into(), 0, 10)?;
        within("retries.budget_percent", self.retries.budget_percent.into(), 0, 100)?;
        within("timeouts.connect_ms", self.timeouts.connect_ms, 1, MINUTE)?;
        within("timeouts.response_ms", self.timeouts.response_ms, 1, HOUR)?;
        within("timeouts.idle_ms", self.timeouts.idle_ms, 10, 24 * HOUR)?;
        within("connections.idle_ms", self.connections.idle_ms, 0, HOUR)?;
        within("connections.max_age_ms", self.connections.max_age_ms, 0, 24 * HOUR)?;
        within("slow_start_ms", self.slow_start_ms, 0, HOUR)?;
        within("max_in_flight", self.max_in_flight.into(), 1, 65_536)?;
        within("drain_ms", self.drain_ms, 0, HOUR)?;
        if self.protocol == Protocol::Tcp {
            let http_alone = [
                (self.sticky_cookie.is_some(), "sticky_cookie"),
                (!matches!(self.hash_key, HashKey::ClientAddress), "this hash_key"),
                (matches!(self.health_check, Some(HealthCheck::Http { .. })), "a health check by HTTP"),
                (matches!(self.health_check, Some(HealthCheck::Grpc { .. })), "a health check by gRPC"),
            ];
            if let Some((_, what)) = http_alone.iter().find(|(asked, _)| *asked) {
                return Err(format!(
                    "an upstream of protocol tcp cannot have {what}: nothing reads its bytes"
                ));
            }
        }
        if self.protocol == Protocol::Http1 && matches!(self.health_check, Some(HealthCheck::Grpc { .. })) {
            return Err(
                "an upstream of protocol http1 cannot have a health check by gRPC; gRPC servers speak http2"
                    .to_owned(),
            );
        }
        if self.protocol == Protocol::Http2 && self.send_proxy_protocol {
            return Err("an upstream of protocol http2 cannot have send_proxy_protocol: clients share its connections"
                .to_owned());
        }
        match &self.active_standby {
            Some(standby) => standby.check(),
            None => Ok(()),
        }
    }
}

impl EndpointSpec {
    /// Says what is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        check_name("an endpoint", &self.id)?;
        check_addr(&self.addr)?;
        within(&format!("the weight of endpoint {}", self.id), self.weight.into(), 1, MAX_WEIGHT.into())
    }
}

impl ActiveStandby {
    fn check(&self) -> Result<(), String> {
        within("active_standby.grace_ms", self.grace_ms, 0, HOUR)?;
        within("active_standby.hold_down_ms", self.hold_down_ms, 0, 24 * HOUR)?;
        match &self.fence_webhook {
            Some(url) if !is_webhook(url) => Err(format!(
                "active_standby.fence_webhook is a URL such as http://127.0.0.1:9000/fence, not {url:?}"
            )),
            _ => Ok(()),
        }
    }
}

/// Whether it is `http://host[:port]` with any path, in visible characters of ASCII.
fn is_webhook(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://").filter(|_| url.len() <= 1024) else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let addr = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    rest.bytes().all(|byte| byte.is_ascii_graphic()) && check_addr(&addr).is_ok()
}

/// Whether it is `host:port`, of letters that a host has, with a port other than 0.
pub fn check_addr(addr: &str) -> Result<(), String> {
    let wrong = || format!("an address is host:port, such as 127.0.0.1:9001 or [::1]:9001, not {addr:?}");
    let (host, port) = addr.rsplit_once(':').ok_or_else(wrong)?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || port.parse::<u16>().is_ok_and(|port| port == 0) || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        }
    };
    if fits { Ok(()) } else { Err(wrong()) }
}

/// The names of headers and cookies, as HTTP defines them.
pub fn check_token(what: &str, name: &str) -> Result<(), String> {
    let fits = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if fits { Ok(()) } else { Err(format!("{name:?} is no name of {what}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_connections_have_bounds() {
        let check = |connections: &str| {
            let spec = format!(r#"{{"connections": {connections}}}"#);
            serde_json::from_str::<UpstreamSpec>(&spec).map_err(|error| error.to_string())?.check()
        };
        for fits in
            ["{}", r#"{"idle_ms": 0, "max_age_ms": 0}"#, r#"{"idle_ms": 3600000, "max_age_ms": 86400000}"#]
        {
            assert_eq!(check(fits), Ok(()));
        }
        let refused = |connections| check(connections).unwrap_err();
        assert_eq!(refused(r#"{"idle_ms": 3600001}"#), "connections.idle_ms is 0 to 3600000, not 3600001");
        assert_eq!(
            refused(r#"{"max_age_ms": 86400001}"#),
            "connections.max_age_ms is 0 to 86400000, not 86400001"
        );
        assert!(refused(r#"{"max_age": 1}"#).contains("unknown field `max_age`"));
    }

    #[test]
    fn a_webhook_is_a_url_with_a_host() {
        for url in
            ["http://127.0.0.1:9000/fence", "http://[::1]:9000", "http://fence", "http://fence.example/a?b=c"]
        {
            assert!(is_webhook(url), "{url}");
        }
        for url in [
            "",
            "http://",
            "http:///fence",
            "http://?a",
            "http://:9000/",
            "http://a:0/",
            "http://a:99999/",
            "http://user@a/",
            "http://a/b c",
            "http://a/\n",
            "https://a/",
            "fence",
        ] {
            assert!(!is_webhook(url), "{url:?}");
        }
    }
}
