//! Addresses of members, as browsers and other nodes are given them. They stand in headers of every
//! answer, so what they may hold is narrow.

/// The longest origin or address, in bytes.
pub const MAX_ORIGIN_BYTES: usize = 256;

/// Whether `url` is `http://host[:port]` or the same with https, and nothing else.
pub fn check_origin(url: &str) -> Result<(), String> {
    let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let fits = url.len() <= MAX_ORIGIN_BYTES
        && authority.is_some_and(|authority| match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => is_host(host) && is_port(port),
            _ => is_host(authority),
        });
    if fits {
        Ok(())
    } else {
        Err(format!("it is like http://10.0.0.1:7701, with nothing after the port, unlike {}", quoted(url)))
    }
}

/// Whether `address` is `host:port`.
pub fn check_address(address: &str) -> Result<(), String> {
    let parts = address.rsplit_once(':').filter(|_| address.len() <= MAX_ORIGIN_BYTES);
    if parts.is_some_and(|(host, port)| is_host(host) && is_port(port)) {
        Ok(())
    } else {
        Err(format!("it is host:port, unlike {}", quoted(address)))
    }
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.'),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'),
    }
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A foreign text for an error message, cut to a bounded length.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_a_scheme_a_host_and_perhaps_a_port() {
        for good in
            ["http://a", "https://a.example", "http://127.0.0.1:7701", "http://[::1]:80", "http://[::1]"]
        {
            assert_eq!(check_origin(good), Ok(()), "{good}");
        }
        let long = format!("http://{}", "a".repeat(MAX_ORIGIN_BYTES));
        for bad in [
            "",
            "a:1",
            "ftp://a",
            "http://",
            "http://a/",
            "http://a:0",
            "http://a:70000",
            "http://a b",
            "http://a\nb",
            "http://u@a",
            "http://a; script-src *",
            "http://[x]",
            &long,
        ] {
            assert!(check_origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["10.0.0.1:7801", "node-3.internal:1", "[fe80::1]:9"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in ["", "nowhere", ":1", "a:", "a:0", "a:x", "a b:1", "http://a:1"] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
