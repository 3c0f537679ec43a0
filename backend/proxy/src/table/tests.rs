use super::*;
use crate::upstream::tests::{route, upstream};

fn table(routes: &[(&str, Option<&str>, &str)]) -> Table {
    let upstream = upstream("u", &[("a", 1)]);
    let route = |(name, host, prefix): &(&str, Option<&str>, &str)| {
        let mut route = route(name, prefix, "u");
        route.spec.host = host.map(str::to_owned);
        route
    };
    let routes: Vec<_> = routes.iter().map(route).collect();
    Table::default().next([upstream].iter(), routes.iter(), 1)
}

fn found<'t>(table: &'t Table, host: &str, path: &str) -> Option<&'t str> {
    table.find(None, host, path).map(|route| route.name.as_str())
}

#[test]
fn the_longest_prefix_of_whole_segments_wins() {
    let table = table(&[
        ("root", None, "/"),
        ("api", None, "/api"),
        ("v2", None, "/api/v2/"),
        ("deep", None, "/x/y/z"),
    ]);
    for (path, name) in [
        ("/", "root"),
        ("/apis", "root"),
        ("/api", "api"),
        ("/api/", "api"),
        ("/api/v1", "api"),
        ("/api/v2", "v2"),
        ("/api/v2/x/y", "v2"),
        ("/api/v22", "api"),
        ("/x/y", "root"),
        ("/x/y/z/", "deep"),
    ] {
        assert_eq!(found(&table, "any", path), Some(name), "{path}");
    }
    let table = self::table(&[("api", None, "/api")]);
    assert_eq!(
        (found(&table, "h", "/"), found(&table, "h", "/apix"), found(&table, "h", "/api/x")),
        (None, None, Some("api"))
    );
}

#[test]
fn a_host_that_is_named_wins_and_falls_back() {
    let table = table(&[
        ("any", None, "/long/prefix"),
        ("wild", Some("*.example.org"), "/"),
        ("wilder", Some("*.a.example.org"), "/"),
        ("exact", Some("WWW.example.org"), "/shop"),
    ]);
    for (host, path, name) in [
        ("www.example.org", "/shop/1", Some("exact")),
        ("www.example.org:8080", "/shop", Some("exact")),
        ("Www.Example.Org.", "/shop", Some("exact")),
        ("www.example.org", "/other", Some("wild")),
        ("x.a.example.org", "/long/prefix", Some("wilder")),
        ("example.org", "/", None),
        ("notexample.org", "/", None),
        ("[::1]:80", "/long/prefix/1", Some("any")),
        ("", "/long/prefix", Some("any")),
    ] {
        assert_eq!(found(&table, host, path), name, "{host} {path}");
    }
}
