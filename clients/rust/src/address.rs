//! Addresses of nodes, and path segments.

use std::{fmt, str::FromStr};

/// The address of a node: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let url = reqwest::Url::parse(text)
            .ok()
            .filter(|url| url.scheme() == "http" && url.has_host())
            .filter(|url| url.path() == "/" && url.query().is_none() && url.fragment().is_none())
            .filter(|url| url.username().is_empty() && url.password().is_none());
        match url {
            Some(url) => Ok(Address(url.as_str().trim_end_matches('/').to_owned())),
            None => Err("the address of a node looks like http://127.0.0.1:7701".to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Percent-encodes a path segment.
pub fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_http_origin() {
        for text in ["http://127.0.0.1:7701", "http://[::1]:7701/", "http://node-1:80"] {
            assert!(text.parse::<Address>().is_ok(), "{text}");
        }
        for text in
            ["127.0.0.1:7701", "https://a", "http://", "http://a/v1", "http://a?x", "http://u:p@a", ""]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert_eq!("http://a:1/".parse::<Address>().unwrap().to_string(), "http://a:1");
    }

    #[test]
    fn a_segment_holds_any_key() {
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
    }
}
