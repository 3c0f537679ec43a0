use super::*;
use crate::upstream::tests;

/// What the endpoint gets of a path, with these routes: prefixes and what replaces them.
fn forwarded(routes: &[(&str, Option<&str>)], path: &str) -> String {
    let routes: Vec<_> = routes
        .iter()
        .enumerate()
        .map(|(at, (prefix, rewrite))| {
            let mut route = tests::route(&format!("r{at}"), prefix, "u");
            route.spec.rewrite_prefix = rewrite.map(str::to_owned);
            route
        })
        .collect();
    let table = Table::default().next([tests::upstream("u", &[])].iter(), routes.iter(), 1);
    let normal = path::normalise(path).unwrap();
    let route = table.find(None, "", &normal).unwrap();
    let finds_route = |path: &str| table.find(None, "", path).is_some_and(|found| Arc::ptr_eq(found, route));
    forwarded_path(route, path, &normal, finds_route).into_owned()
}

#[test]
fn an_endpoint_gets_the_path_as_the_client_sent_it() {
    for path in [
        "/",
        "/fetch/https://example.org//a",
        "/p1//p2",
        "//a",
        "/a//",
        "/%7Euser/x%2Dy",
        "/a%2fb",
        "/a/./b",
        "/a/.",
        "/a/../b",
        "/C:\\x",
        "/a/%2e%2E/b",
        "/%c3%a9",
        "/é",
    ] {
        assert_eq!(forwarded(&[("/", None)], path), path);
    }
}

#[test]
fn a_path_that_could_be_read_past_its_route_is_forwarded_in_its_normal_form() {
    let routes = [("/", None), ("/admin", None), ("/api/v2", None)];
    for (path, expected) in [
        // For the endpoint of `/` these could be paths below `/admin`.
        ("/admin/../x", "/x"),
        ("/admin//../x", "/x"),
        ("/admin//../../x", "/x"),
        ("/x/../admin/%2e%2e/y", "/y"),
        ("/x/../admin//../%2e%2e/y", "/y"),
        ("/%61dmin/../x", "/x"),
        ("/api/v2/../v1", "/api/v1"),
        // These lead above the root.
        ("/../x", "/x"),
        ("/x/%2e%2e/../y", "/y"),
        // And this one a path of `/` for the endpoint of `/admin`.
        ("/x/../admin/y", "/admin/y"),
        // There is one way to read these.
        ("/x/../y", "/x/../y"),
        ("/admin/a/../b", "/admin/a/../b"),
        ("/admin//x", "/admin//x"),
        ("/api/v2/a/..", "/api/v2/a/.."),
    ] {
        assert_eq!(forwarded(&routes, path), expected, "{path}");
    }
    // Where there is no other route there is nothing to get past, but paths that have no route.
    assert_eq!(forwarded(&[("/api", None)], "/x/../api/y"), "/api/y");
}

#[test]
fn a_backslash_must_not_stand_for_a_slash() {
    let routes = [tests::route("all", "/", "u"), tests::route("admin", "/admin", "u")];
    let table = Table::default().next([tests::upstream("u", &[])].iter(), routes.iter(), 1);
    let ip = std::net::Ipv4Addr::LOCALHOST.into();
    let client = Client { ip, addr: "127.0.0.1", host: "t", listener: None };
    for (path, is_clear) in [
        ("/C:\\x", true),
        ("/admin/a\\b", true),
        // Behind a server that takes it for a slash these are below `/admin`, or are not.
        ("/admin\\x", false),
        ("/x/../admin\\y", false),
        ("/a\\b/../c", false),
    ] {
        let line = RequestLine::new("GET", path, Framing::Empty, None);
        let (fields, mut random, mut out) = (std::iter::empty(), Random::seeded(), Vec::new());
        let prepared = resolve(line, fields, |_| false, client, &table, &mut random, &mut out);
        assert_eq!(prepared.is_ok(), is_clear, "{path}");
        assert!(!is_clear || out.starts_with(format!("GET {path} HTTP/1.1\r\n").as_bytes()));
    }
}

#[test]
fn a_rewrite_replaces_the_prefix_and_leaves_the_rest() {
    for (prefix, replacement, path, expected) in [
        ("/api", "/", "/api", "/"),
        ("/api", "/", "/api/x", "/x"),
        ("/api", "/v1", "/api", "/v1"),
        ("/api/", "/v1/", "/api/x", "/v1/x"),
        ("/", "/v1", "/x", "/v1/x"),
        ("/", "/v1", "/", "/v1/"),
        ("/api", "/", "/api/https://example.org//a", "/https://example.org//a"),
        ("/api", "/v1", "/api/%7Eann//b/./c%2fd", "/v1/%7Eann//b/./c%2fd"),
        ("/", "/v1", "//x", "/v1//x"),
        // Behind a prefix that is spelt otherwise, the normal form follows.
        ("/api", "/v1", "/%61pi/%7Eann", "/v1/~ann"),
        ("/api", "/v1", "//api//x", "/v1/x"),
        // A path must not get out of the prefix that the endpoint gets.
        ("/api", "/v1", "/api/../api/x", "/v1/x"),
        ("/api", "/v1", "/api/x/../y", "/v1/y"),
        ("/api", "/v1", "/api/%2e%2e/api/x", "/v1/x"),
    ] {
        let routes = [(prefix, Some(replacement))];
        assert_eq!(forwarded(&routes, path), expected, "{prefix} {replacement} {path}");
    }
}
