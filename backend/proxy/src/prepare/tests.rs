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
    let prefix = route.spec.path_prefix.clone();
    let table = Table::default().next([tests::upstream("u", &[])].iter(), [route].iter(), 1);
    let route = table.find(None, "", &prefix).unwrap();
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
fn a_header_is_replaced_in_either_spelling() {
    let sent = forwarded(
        &[
            ("X_User", "b"),
            ("x-user", "c"),
            ("X_Request_Id", "r"),
            ("X_Users", "stays"),
            ("Content_Length", "9"),
            ("Transfer_Encoding", "chunked"),
        ],
        &[],
        |spec| {
            spec.set_request_headers.insert("X-User".to_owned(), "a".to_owned());
        },
    );
    let lower = sent.to_ascii_lowercase();
    assert!(
        sent.starts_with("X_Users: stays\r\nx-forwarded-for") && sent.ends_with("X-User: a\r\n"),
        "{sent}"
    );
    assert_eq!((lower.matches("request-id").count(), lower.matches("request_id").count()), (1, 0), "{sent}");
    let sent = forwarded(&[("X-User", "b")], &[], |spec| {
        spec.set_request_headers.insert("X_USER".to_owned(), "a".to_owned());
    });
    assert!(sent.starts_with("x-forwarded-for") && sent.ends_with("X_USER: a\r\n"), "{sent}");
}

#[test]
fn an_endpoint_learns_the_prefix_that_it_does_not_see() {
    let prefix = |path_prefix: &str, rewrite: Option<&str>, set: Option<&str>| {
        let sent = forwarded(&[("X-Forwarded-Prefix", "/evil")], &[], |spec| {
            spec.path_prefix = path_prefix.to_owned();
            spec.rewrite_prefix = rewrite.map(str::to_owned);
            if let Some(value) = set {
                spec.set_request_headers.insert("X-Forwarded-Prefix".to_owned(), value.to_owned());
            }
        });
        let lines = sent.lines().filter_map(|line| line.split_once(": "));
        let found = lines.filter(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-prefix"));
        found.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(prefix("/app/", Some("/"), None), ["/app"]);
    assert_eq!(prefix("/app", Some("/"), Some("/mine")), ["/mine"]);
    assert!(prefix("/app", None, None).is_empty(), "the endpoint sees it");
    assert!(prefix("/app", Some("/v1"), None).is_empty(), "another prefix takes its place");
    assert!(prefix("/", Some("/"), None).is_empty());
}

#[test]
fn a_request_without_a_host_gets_the_address_of_its_endpoint() {
    let endpoint = Endpoint::new("u", "e", "app.internal:8080", 1);
    for (host, expected) in [("shop", "shop"), ("", "app.internal:8080")] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let mut upstream = tests::upstream("u", &[]);
            upstream.config.protocol = protocol;
            let table = Table::default().next([upstream].iter(), [tests::route("r", "/", "u")].iter(), 1);
            let ip = Ipv4Addr::LOCALHOST.into();
            let client = Client { ip, addr: "127.0.0.1", host, listener: None };
            let line = RequestLine::new("GET", "/x?q", Framing::Empty, None);
            let (fields, mut out) = ([("Accept", &b"*/*"[..])], Vec::new());
            let route = table.find(None, host, "/x").unwrap();
            let mut random = Random::seeded();
            let prepared =
                prepare(route, line, fields.into_iter(), |_| false, client, &mut random, &mut out).unwrap();
            match &prepared.http2 {
                None => {
                    let head = prepared.head_for(&out, &endpoint).into_owned();
                    let head = String::from_utf8(head).unwrap();
                    let begin = format!("GET /x?q HTTP/1.1\r\nhost: {expected}\r\nAccept: */*\r\n");
                    assert!(head.starts_with(&begin) && head.ends_with("\r\n\r\n"), "{head}");
                }
                Some(head) => {
                    let head = prepared.http2_head_for(head, &endpoint).unwrap();
                    assert_eq!(head.uri().to_string(), format!("http://{expected}/x?q"));
                    assert_eq!(head.headers()["accept"], "*/*");
                }
            }
        }
    }
}

#[test]
fn characters_that_http2_does_not_take_are_escaped_for_it() {
    for (path, query, expected) in [
        ("/a|b^{c}", "?{d}", "/a|b^{c}?{d}"),
        ("/é", "?ü=ß", "/é?ü=ß"),
        ("/<a>`", "?\"b\"", "/%3Ca%3E%60?%22b%22"),
        ("//a", "", "//a"),
    ] {
        assert_eq!(http2_target(path, query).unwrap().as_str(), expected);
    }
}
