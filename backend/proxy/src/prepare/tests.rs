use super::*;
use crate::{table::Table, upstream::tests};
use std::net::Ipv4Addr;

fn forwarded(
    headers: &[(&str, &str)],
    connection: &[&str],
    change: impl Fn(&mut ringmaster_common::traffic::route::RouteSpec),
) -> String {
    let mut route = tests::route("r", "/", "u");
    change(&mut route.spec);
    let table = Table::default().next([tests::upstream("u", &[])].iter(), [route].iter(), 1);
    let route = table.find(None, "", "/").unwrap();
    let client =
        Client { ip: Ipv4Addr::new(192, 0, 2, 7).into(), addr: "192.0.2.7", host: "shop", listener: None };
    let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
    let mut out = Vec::new();
    request_headers(
        headers,
        |name| connection.iter().any(|named| named.eq_ignore_ascii_case(name)),
        client,
        route,
        &mut Random::seeded(),
        &mut out,
    );
    String::from_utf8(out).unwrap()
}

#[test]
fn the_client_address_is_ours_whatever_the_client_sends() {
    let sent = forwarded(
        &[
            ("Accept", "*/*"),
            ("X-Forwarded-For", "6.6.6.6"),
            ("X_Forwarded_For", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("Forwarded", "for=6.6.6.6"),
            ("Ringmaster-Epoch", "99"),
            ("X-Request-Id", "mine"),
            ("traceparent", "00-1-2-01"),
        ],
        // The attempt to have them taken away again.
        &["x-forwarded-for", "forwarded"],
        |_| {},
    );
    assert_eq!(
        sent,
        "Accept: */*\r\nX-Request-Id: mine\r\ntraceparent: 00-1-2-01\r\nx-forwarded-for: 192.0.2.7\r\n\
         x-forwarded-proto: http\r\nx-forwarded-host: shop\r\nforwarded: for=192.0.2.7;proto=http;host=\"shop\"\r\n"
    );
}

#[test]
fn a_route_behind_a_tls_terminator_sets_the_scheme() {
    let sent = forwarded(&[("X-Forwarded-Proto", "ws")], &[], |spec| {
        spec.set_request_headers.insert("X-Forwarded-Proto".to_owned(), "https".to_owned());
    });
    assert_eq!(sent.to_ascii_lowercase().matches("x-forwarded-proto").count(), 1, "{sent}");
    assert!(sent.contains("X-Forwarded-Proto: https\r\n") && sent.contains("proto=https;"), "{sent}");
}

#[test]
fn headers_of_the_connection_are_not_passed_on() {
    let sent = forwarded(
        &[
            ("Connection", "X-Secret"),
            ("X-Secret", "1"),
            ("Keep-Alive", "5"),
            ("TE", "trailers"),
            ("Trailer", "x"),
            ("Upgrade", "x"),
            ("Proxy-Connection", "x"),
            ("Proxy-Authorization", "x"),
            ("Transfer-Encoding", "chunked"),
            ("X-Stays", "1"),
        ],
        &["X-Secret"],
        |_| {},
    );
    assert!(sent.starts_with("X-Stays: 1\r\nx-forwarded-for"), "{sent}");
    assert!(sent.contains("\r\nx-request-id: "), "one is made if there is none");
}

#[test]
fn headers_set_by_a_route_replace_those_of_the_client() {
    let sent = forwarded(&[("X-ENV", "client"), ("A", "b")], &[], |spec| {
        spec.set_request_headers.insert("x-env".to_owned(), "prod".to_owned());
    });
    assert!(
        sent.starts_with("A: b\r\n") && sent.ends_with("x-env: prod\r\n") && !sent.contains("client"),
        "{sent}"
    );
}

#[test]
fn a_hash_key_is_found_or_replaced_by_the_address() {
    let key = |hash_key: HashKey, headers: &[(&str, &str)], ip: [u8; 4]| {
        let mut upstream = tests::upstream("u", &[]);
        (upstream.config.policy, upstream.config.hash_key) = (Policy::ConsistentHash, hash_key);
        upstream.config.sticky_cookie = Some("sid".to_owned());
        let table = Table::default().next([upstream].iter(), [tests::route("r", "/", "u")].iter(), 1);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        selection_hints(headers.into_iter(), IpAddr::from(ip), "/p", table.find(None, "", "/").unwrap())
    };
    let (one, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let user = || HashKey::Header { name: "X-User".to_owned() };
    assert_eq!(key(user(), &[("x-user", "ann")], one).key, key(user(), &[("X-User", "ann")], other).key);
    assert_ne!(key(user(), &[], one).key, key(user(), &[], other).key);
    let cookie = || HashKey::Cookie { name: "c".to_owned() };
    let found = key(cookie(), &[("Cookie", "a=1; c=xyz"), ("Cookie", "sid=00000000000000ff")], one);
    assert_eq!((found.key, found.sticky), (hash(b"xyz"), Some(255)));
    assert_eq!(key(HashKey::Path, &[], one).key, hash(b"/p"));
}

#[test]
fn a_rewrite_replaces_the_prefix() {
    let rewritten = |prefix: &str, replacement: &str, path: &str| {
        let mut route = tests::route("r", prefix, "u");
        route.spec.rewrite_prefix = Some(replacement.to_owned());
        let table = Table::default().next([tests::upstream("u", &[])].iter(), [route].iter(), 1);
        rewrite(table.find(None, "", path).unwrap(), path).into_owned()
    };
    for (prefix, replacement, path, expected) in [
        ("/api", "/", "/api", "/"),
        ("/api", "/", "/api/x", "/x"),
        ("/api", "/v1", "/api", "/v1"),
        ("/api/", "/v1/", "/api/x", "/v1/x"),
        ("/", "/v1", "/x", "/v1/x"),
        ("/", "/v1", "/", "/v1/"),
    ] {
        assert_eq!(rewritten(prefix, replacement, path), expected, "{prefix} {replacement} {path}");
    }
}
