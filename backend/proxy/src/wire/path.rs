//! The normal form of a path, by which it is routed, and the other ways in which servers read it.
//!
//! In the normal form needless escapes are removed and the others written in capitals; dot segments and empty segments
//! are removed. An endpoint gets the path as the client sent it, unless that could lead past a route
//! ([`crate::route`]). A path that servers read in more ways than that is refused: with escaped slashes or backslashes
//! around dot segments, dot segments with parameters, control characters, or a fragment.

use std::borrow::Cow;

/// What a server does before it looks at a path.
#[derive(Clone, Copy)]
struct Reading {
    /// Removes needless escapes.
    decodes: bool,
    /// Takes several slashes for one.
    merges_slashes: bool,
    /// Goes up a directory for each `..`.
    goes_up: bool,
}

const NORMAL: Reading = Reading { decodes: true, merges_slashes: true, goes_up: true };

/// The normal form of a path; none if the path is refused.
pub fn normalise(path: &str) -> Option<Cow<'_, str>> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return None;
    }
    let suspicious = |pair: &[u8]| pair[0] == b'/' && (pair[1] == b'/' || pair[1] == b'.');
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"%\\#".contains(byte);
    if bytes.iter().all(is_plain) && !bytes.windows(2).any(suspicious) {
        return Some(Cow::Borrowed(path));
    }
    if !fits_target(path) {
        return None;
    }
    // %2F and what follows a semicolon have no special meaning, unless a server that decodes them would leave the
    // directory.
    if decode_unreserved(path)?.split('/').any(hides_dots) {
        return None;
    }
    read(path, NORMAL).map(Cow::Owned)
}

/// Whether a path or a query has no character that must be escaped. Letters of other scripts should be; since clients
/// send them as they are, and servers take them, they are let through.
pub fn fits_target(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    text.bytes().all(fits)
        || text
            .chars()
            .all(|letter| if letter.is_ascii() { fits(letter as u8) } else { !letter.is_control() })
}

/// Whether a segment of the path is `..`, however it is spelt.
pub fn goes_up(path: &str) -> bool {
    path.split('/').any(|segment| dots(segment) == 2)
}

/// Whether a path has a `..` where there is no directory to go up from.
pub fn leaves_root(path: &str) -> bool {
    let mut depth = 0_usize;
    path.split('/').any(|segment| {
        match dots(segment) {
            0 if segment.is_empty() => {}
            0 => depth += 1,
            1 => {}
            _ if depth == 0 => return true,
            _ => depth -= 1,
        }
        false
    })
}

/// How many dots a segment has that consists of one or two dots, else 0.
fn dots(segment: &str) -> usize {
    if segment.len() > 2 * "%2e".len() {
        return 0;
    }
    match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
        "." => 1,
        ".." => 2,
        _ => 0,
    }
}

/// What servers may take a path for that [`normalise`] did not refuse: they remove escapes, empty segments and `..`, or
/// leave some of them alone.
pub fn readings(path: &str) -> impl Iterator<Item = String> {
    let either = [true, false];
    let readings = either.into_iter().flat_map(move |decodes| {
        either.into_iter().flat_map(move |merges_slashes| {
            either.into_iter().map(move |goes_up| Reading { decodes, merges_slashes, goes_up })
        })
    });
    readings.filter_map(move |reading| read(path, reading))
}

fn read(path: &str, reading: Reading) -> Option<String> {
    let decoded = if reading.decodes { Cow::Owned(decode_unreserved(path)?) } else { Cow::Borrowed(path) };
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    for segment in decoded.split('/').skip(1) {
        ends_in_directory = true;
        match segment {
            "" if reading.merges_slashes => {}
            "." => {}
            ".." if reading.goes_up => {
                segments.pop();
            }
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
    Some(normal)
}

/// Without needless escapes, and with those that are missing; none if an escape is malformed or hides a control
/// character.
fn decode_unreserved(path: &str) -> Option<String> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {}
            b'\\' | 0x80.. => {
                escape(*first, &mut decoded);
                continue;
            }
            _ => {
                decoded.push(char::from(*first));
                continue;
            }
        }
        let [high, low, tail @ ..] = rest else { return None };
        rest = tail;
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let byte = digit(*high)? << 4 | digit(*low)?;
        match byte {
            0..0x20 | 0x7f => return None,
            _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => decoded.push(char::from(byte)),
            _ => escape(byte, &mut decoded),
        }
    }
    Some(decoded)
}

pub fn escape(byte: u8, out: &mut String) {
    let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
    out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

/// Whether there is a dot segment between escaped slashes, or with parameters behind it.
fn hides_dots(segment: &str) -> bool {
    if !segment.contains(['%', ';']) {
        return false;
    }
    let parts = segment.replace("%5C", "%2F").replace("%3B", ";");
    parts.split("%2F").any(|part| is_dots(part.split(';').next().unwrap_or(part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

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
            ("/é", "/%C3%A9"),
            ("/a\\b", "/a%5Cb"),
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
            "/..\\admin",
            "/public/..;/admin",
            "/public/.;x=1/admin",
            "/public/..%3b/admin",
            "/a%00",
            "/a%0d%0a",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a#b",
            "/a\u{85}b",
            "/a b",
        ] {
            assert_eq!(normalise(path), None, "{path}");
        }
    }

    #[test]
    fn servers_read_a_path_with_dots_in_many_ways() {
        let ways = |path: &'static str| readings(path).collect::<BTreeSet<_>>();
        assert_eq!(ways("/a/b"), BTreeSet::from(["/a/b".to_owned()]));
        let read = ways("/x/%2e%2e/a//../b");
        for way in ["/b", "/a/b", "/x/%2e%2e/b", "/x/../a/../b", "/x/%2e%2e/a//../b"] {
            assert!(read.contains(way), "{way} is one of {read:?}");
        }
        for (path, up) in
            [("/a/..", true), ("/%2E./a", true), ("/.%2e", true), ("/...", false), ("/a..", false)]
        {
            assert_eq!(goes_up(path), up, "{path}");
        }
        for (path, leaves) in [("/..", true), ("/a/../..", true), ("/a//../%2E.", true), ("/./a/..", false)] {
            assert_eq!(leaves_root(path), leaves, "{path}");
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
                prop_assert!(readings(&path).any(|read| read == *normal));
                // Without `..` no way of reading leads to a path whose normal form is another.
                for read in readings(&path).filter(|_| !goes_up(&path)) {
                    let read = normalise(&read);
                    prop_assert_eq!(read.as_deref(), Some(&*normal));
                }
            }
        }
    }
}
