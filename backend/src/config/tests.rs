use super::*;
use std::collections::BTreeSet;

fn options(toml: &str) -> NodeOptions {
    toml::from_str(toml).expect("the test's TOML is valid")
}

fn complete(toml: &str) -> Result<NodeConfig, String> {
    options(&format!("data_dir = \"d\"\n{toml}")).complete().map_err(|error| error.to_string())
}

#[test]
fn defaults_are_enough() {
    let config = complete("bootstrap = true").unwrap();
    assert_eq!(config.start, Start::Bootstrap);
    assert_eq!(config.api_addr, "127.0.0.1:7701".parse().unwrap());
    assert_eq!(config.public_url, "http://127.0.0.1:7701");
    assert_eq!((config.zone.as_str(), config.weight), ("default", 1));
    assert_eq!(config.elections, Elections::default());
    assert_eq!(complete("").unwrap().start, Start::Resume);
}

#[test]
fn every_option_can_be_set_in_the_file() {
    let config = complete(
        r#"
        id = 3
        name = "grey-owl"
        api_addr = "10.0.0.3:8080"
        peer_addr = "10.0.0.3:8081"
        proxy_addr = "10.0.0.3:8082"
        heartbeat_addr = "10.0.0.3:8083"
        dns_addr = "10.0.0.3:53"
        public_url = "https://three.example.org/"
        join = ["http://10.0.0.1:8080", "http://10.0.0.2:8080/"]
        member = ["2=10.0.0.2:8081", "3=10.0.0.3:8081"]
        cluster_name = "prod"
        zone = "b"
        weight = 2
        insecure = true
        log_format = "json"
        heartbeat_ms = 100
        election_timeout_min_ms = 500
        election_timeout_max_ms = 900
        "#,
    )
    .unwrap();
    assert_eq!(config.id, Some(NodeId(3)));
    assert_eq!(config.public_url, "https://three.example.org");
    assert_eq!(
        config.start,
        Start::Join(vec!["http://10.0.0.1:8080".to_owned(), "http://10.0.0.2:8080".to_owned()])
    );
    assert_eq!(config.moved.keys().copied().collect::<Vec<_>>(), [NodeId(2), NodeId(3)]);
    assert_eq!(config.moved[&NodeId(2)], "10.0.0.2:8081".parse().unwrap());
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.elections.timeout_max, Duration::from_millis(900));
}

#[test]
fn a_flag_overrides_the_file() {
    let file = options("data_dir = \"file\"\nzone = \"a\"\nbootstrap = true");
    let flags = options("zone = \"b\"\njoin = [\"http://127.0.0.1:7701\"]");
    let config = flags.or(file).complete().unwrap();
    assert_eq!(config.zone, "b");
    assert_eq!(config.data_dir, Path::new("file"));
    assert_eq!(config.start, Start::Join(vec!["http://127.0.0.1:7701".to_owned()]));
}

#[test]
fn an_unknown_key_is_named_in_the_error() {
    let error = toml::from_str::<NodeOptions>("heartbeat = 5").unwrap_err().to_string();
    assert!(error.contains("unknown field `heartbeat`"), "{error}");
}

#[test]
fn invalid_options_are_named_in_the_error() {
    for (toml, expected) in [
        ("id = 0", "id 0 is not a node id"),
        ("id = 9007199254740992", "id is at most 9007199254740991"),
        ("name = \"a b\"", "name is 1 to 64 letters"),
        ("name = \"--x\"", "name is 1 to 64 letters"),
        ("api_addr = \"0.0.0.0:7701\"", "not an address that members can reach"),
        ("api_addr = \"127.0.0.1:0\"", "has port 0"),
        ("api_addr = \"192.168.1.1:7701\"", "pass --insecure"),
        ("proxy_addr = \"[2001:db8::1]:80\"", "pass --insecure"),
        ("peer_addr = \"127.0.0.1:7701\"", "peer_addr 127.0.0.1:7701 is also the address of api_addr"),
        ("public_url = \"http://a/b\"", "public_url is invalid"),
        ("public_url = \"node1\"", "public_url is invalid"),
        ("join = [\"https://a\"]", "is not an http:// URL"),
        ("bootstrap = true\njoin = [\"http://a\"]", "bootstrap and join exclude each other"),
        ("member = [\"10.0.0.2:7801\"]", "member is the id of a node and its peer address"),
        ("member = [\"0=127.0.0.1:7801\"]", "member is the id of a node and its peer address"),
        ("member = [\"2=10.0.0.2:7801\"]", "pass --insecure"),
        ("member = [\"2=127.0.0.1:1\", \"2=127.0.0.1:2\"]", "member has two addresses for node 2"),
        (
            "id = 1\nmember = [\"1=127.0.0.1:9\"]",
            "member says 127.0.0.1:9 for this node, and peer_addr is 127.0.0.1:7801",
        ),
        ("weight = 0", "weight is 1 to 1000"),
        ("heartbeat_ms = 1", "heartbeat_ms is at least 10"),
        ("heartbeat_ms = 100", "election_timeout_min_ms is at least twice"),
        ("election_timeout_max_ms = 150", "election_timeout_max_ms is more than"),
        ("election_timeout_max_ms = 60001", "election_timeout_max_ms is at most 60000"),
    ] {
        let error = complete(toml).expect_err(toml);
        assert!(error.contains(expected), "{toml}: {error}");
    }
    let error = options("").complete().unwrap_err().to_string();
    assert!(error.contains("data_dir is missing"), "{error}");
}

#[test]
fn made_up_names_are_stable_and_distinct() {
    assert_eq!(made_up_name(NodeId(1)), "amber-fox");
    assert_eq!(made_up_name(NodeId(2)), made_up_name(NodeId(2)));
    let names: BTreeSet<_> = (1..=256).map(|id| made_up_name(NodeId(id))).collect();
    assert_eq!(names.len(), 256);
    assert!(names.iter().all(|name| check_name("name", name.clone()).is_ok()));
}
