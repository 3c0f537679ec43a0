//! One spelling for each path.
//!
//! A path is normalised once, and the same bytes are routed and forwarded, so that no endpoint sees a path other than the
//! one whose route was taken. Needless escapes are removed, the others are written in capitals; dot segments and empty
//! segments are removed. A path that servers read in more than one way is refused: with escaped slashes around dot
//! segments, dot segments with parameters, backslashes, or bytes that no path may have.

use std::borrow::Cow;

/// The path as it is routed and forwarded; none if it is refused.
pub fn normalise(path: &str) -> Option<Cow<'_, str>> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/')
        || bytes.iter().any(|byte| !byte.is_ascii_graphic() || b"\\#".contains(byte))
    {
        return None;
    }
    let suspicious = |pair: &[u8]| pair[0] == b'/' && (pair[1] == b'/' || pair[1] == b'.');
    if !bytes.contains(&b'%') && !bytes.windows(2).any(suspicious) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(bytes)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    for segment in decoded.split('/') {
        ends_in_directory = true;
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            // %2F and what follows a semicolon have no special meaning, unless a server that decodes them would leave
            // the directory.
            _ if hides_dots(segment) => return None,
            _ => {
                segments.push(segment);
                ends_in_directory = false;
            }
        }
    }
    let mut normal = String::with_capacity(decoded.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if ends_in_directory || normal.is_empty() {
        normal.push('/');
    }
    Some(Cow::Owned(normal))
}

fn decode_unreserved(path: &[u8]) -> Option<String> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            decoded.push(char::from(*first));
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        rest = tail;
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let byte = digit(*high)? << 4 | digit(*low)?;
        match byte {
            0..0x20 | 0x7f => return None,
            _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => decoded.push(char::from(byte)),
            _ => {
                decoded.push('%');
                decoded.push(char::from(high.to_ascii_uppercase()));
                decoded.push(char::from(low.to_ascii_uppercase()));
            }
        }
    }
    Some(decoded)
}

/// Whether there is a dot segment between escaped slashes, or with parameters behind it.
fn hides_dots(segment: &str) -> bool {
    if !segment.contains(['%', ';']) {
        return false;
    }
    let parts = segment.replace("%5C", "%2F").replace("%3B", ";");
    parts.split("%2F").any(|part| {
        let name = part.split(';').next().unwrap_or(part);
        name == "." || name == ".."
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_spelling_for_each_path() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/../../a", "/a"),
            ("/%61dmin", "/admin"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2fb", "/a%2Fb"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/a/.", "/a/"),
            ("/%c3%a9", "/%C3%A9"),
        ] {
            assert_eq!(normalise(path).as_deref(), Some(normal), "{path}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for path in [
            "",
            "a",
            "*",
            "/a\\..\\b",
            "/a%2f..%2fb",
            "/..%5cadmin",
            "/public/..;/admin",
            "/public/.;x=1/admin",
            "/public/..%3b/admin",
            "/a%00",
            "/a%0d%0a",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a#b",
            "/é",
            "/a b",
        ] {
            assert_eq!(normalise(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normalised_path_stays_the_same_and_has_no_dot_segments(path in "/([a/.%25eF]|%2[eEfF]){0,24}") {
            if let Some(normal) = normalise(&path) {
                let again = normalise(&normal);
                prop_assert_eq!(again.as_deref(), Some(&*normal));
                prop_assert!(!normal.contains("//"));
                prop_assert!(normal.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }
    }
}
