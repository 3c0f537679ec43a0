//! The page's own address: what is shown is in it, so that every state of the page can be sent to
//! somebody else.

/// The address with one query parameter set or taken away. The others keep their order.
pub fn with_parameter(path: &str, search: &str, key: &str, value: Option<&str>) -> String {
    let mut pairs: Vec<String> = search
        .trim_start_matches('?')
        .split('&')
        .filter(|pair| !pair.is_empty() && pair.split('=').next() != Some(key))
        .map(str::to_owned)
        .collect();
    if let Some(value) = value {
        pairs.push(format!("{key}={}", escaped(value)));
    }
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// Percent-encodes all but letters, digits and `-._~`.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_parameter_changes_and_the_others_stay() {
        for (search, value, expected) in [
            ("", None, "/nodes"),
            ("", Some("4"), "/nodes?plan=4"),
            ("?sort=lag", Some("4"), "/nodes?sort=lag&plan=4"),
            ("?plan=3&sort=lag", Some("4"), "/nodes?sort=lag&plan=4"),
            ("sort=lag&plan=3", None, "/nodes?sort=lag"),
            ("?planet=1", None, "/nodes?planet=1"),
            ("", Some("a b&ü"), "/nodes?plan=a%20b%26%C3%BC"),
        ] {
            assert_eq!(with_parameter("/nodes", search, "plan", value), expected);
        }
    }
}
