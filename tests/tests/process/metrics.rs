//! `/metrics`: its content, its formats, and that every query of the board in `docs/` finds data.

use reqwest::Method;
use ringmaster_common::{action::Action, id::GroupId, id::NodeId};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Host, Program},
    eventually,
    process::python,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};
use tokio::process::Command;

/// The samples of a node, as names with labels, and values.
async fn scrape(cluster: &Cluster, node: u64) -> Result<Vec<(String, f64)>, String> {
    let response = cluster.send(node, Method::GET, "/metrics", None).await?;
    assert_eq!(response.status(), 200);
    let kind = response.headers()["content-type"].to_str().expect("a media type").to_owned();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.map_err(|error| error.to_string())?;
    Ok(text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("a sample: {line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("a number: {line}")))
        })
        .collect())
}

/// The only sample whose name and labels begin like this and hold that.
fn value(samples: &[(String, f64)], name: &str, labels: &str) -> f64 {
    let found: Vec<_> = samples
        .iter()
        .filter(|(sample, _)| sample.split('{').next() == Some(name) && sample.contains(labels))
        .collect();
    assert_eq!(found.len(), 1, "one sample of {name} with {labels:?}: {found:?}");
    found[0].1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_shows_its_state() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let followers: Vec<_> =
        (1..=3).filter(|peer| *peer != leader).map(|peer| format!("peer=\"{peer}\"")).collect();
    // Links and replication follow an election; they are not there with it.
    let before = eventually("both followers in the leader's metrics", SOON, async || {
        let samples = scrape(&cluster, leader).await?;
        let there = |name: &str, peer: &String| {
            samples.iter().any(|(sample, value)| {
                sample.starts_with(name) && sample.contains(peer.as_str()) && *value > 0.0
            })
        };
        let all = followers.iter().all(|peer| {
            there("ringmaster_peer_connected", peer) && there("ringmaster_raft_peer_matched_index", peer)
        });
        if all { Ok(samples) } else { Err(format!("{samples:?}")) }
    })
    .await;
    let elections = value(&before, "ringmaster_raft_elections_total", "group=\"0\"");
    assert!(elections >= 1.0, "it has seen who leads");
    assert_eq!(value(&before, "ringmaster_raft_is_leader", "group=\"0\""), 1.0);
    assert!(value(&before, "ringmaster_journal_bytes", "") > 0.0);
    assert!(value(&before, "ringmaster_journal_segments", "") >= 1.0);
    assert!(value(&before, "process_resident_memory_bytes", "") > 1e6);
    assert!(value(&before, "process_cpu_seconds_total", "") > 0.0);
    assert!(value(&before, "process_open_fds", "") > 5.0);
    assert_eq!(value(&before, "ringmaster_build_info", "version="), 1.0);
    for peer in &followers {
        assert_eq!(value(&before, "ringmaster_peer_connected", peer), 1.0);
        assert!(value(&before, "ringmaster_raft_peer_lag_entries", peer) >= 0.0);
    }

    for number in 0..20 {
        cluster.put_setting(leader, "counted", json!(number)).await.expect("it is set");
    }
    // Metrics of consensus may follow a moment after the fact.
    let after = eventually("the metrics to have grown", SOON, async || {
        let after = scrape(&cluster, leader).await?;
        for (name, labels) in [
            ("ringmaster_raft_proposals_total", "group=\"0\""),
            ("ringmaster_raft_commit_duration_seconds_count", "group=\"0\""),
            ("ringmaster_raft_applied_index", "group=\"0\""),
            ("ringmaster_journal_fsyncs_total", ""),
            ("ringmaster_journal_fsync_duration_seconds_count", ""),
        ] {
            let grown = value(&after, name, labels) - value(&before, name, labels);
            if grown < 20.0 {
                return Err(format!("{name} has grown by {grown}"));
            }
        }
        Ok(after)
    })
    .await;
    // Keys are no labels: the route is.
    let put = r#"route="/v1/settings/{*key}",method="PUT""#;
    for (status, times) in [(201, 1.0), (200, 19.0)] {
        let labels = format!("{put},status=\"{status}\"");
        assert_eq!(value(&after, "ringmaster_http_requests_total", &labels), times, "{status}");
    }
    assert_eq!(value(&after, "ringmaster_http_request_duration_seconds_count", put), 20.0);

    let action = Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(follower) };
    let plan = cluster.plan(leader, &action).await.expect("a plan");
    cluster.outcome(follower, &cluster.apply(leader, &plan).await.expect("it starts")).await;
    eventually("the former leader to notice", SOON, async || {
        let now = scrape(&cluster, leader).await?;
        let noticed = value(&now, "ringmaster_raft_elections_total", "") > elections;
        let follows = value(&now, "ringmaster_raft_is_leader", "") == 0.0;
        if noticed && follows { Ok(()) } else { Err(format!("noticed: {noticed}, follows: {follows}")) }
    })
    .await;
    let lagging = scrape(&cluster, leader).await.expect("metrics");
    assert!(!lagging.iter().any(|(name, _)| name.starts_with("ringmaster_raft_peer_lag_entries")));
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_bounded() {
    let cluster = Cluster::start(1).await;
    let series = async || scrape(&cluster, 1).await.expect("metrics").len();
    let ask = async |number: u64| {
        for path in
            ["/v1/nodes/", "/v1/settings/free/", "/v1/plans/", "/nothing/", "/assets/", "/v1/nothing/"]
        {
            cluster.send(1, Method::GET, &format!("{path}{number}"), None).await.expect("an answer");
        }
        let method = Method::from_bytes(format!("MADE-UP-{number}").as_bytes()).expect("a method");
        cluster.send(1, method, "/v1/cluster", None).await.expect("an answer");
    };
    ask(100).await;
    series().await;
    let before = series().await;
    for number in 101..120 {
        ask(number).await;
    }
    assert_eq!(series().await, before, "what clients make up makes no series");
}

/// The parser of Python's prometheus-client reads all of it. Prometheus itself takes a histogram without `+Inf`, and
/// then has no quantiles.
#[tokio::test(flavor = "multi_thread")]
async fn a_strict_parser_reads_the_metrics() {
    let program = Program { proxies: true, ..Program::default() };
    let cluster = Cluster::start_on(program, &[Host::default()]).await;
    let addr = cluster.node(1).url.trim_start_matches("http://").to_owned();
    let body = json!({ "endpoints": [{ "id": "e1", "addr": addr }] });
    let put = cluster.send(1, Method::PUT, "/v1/upstreams/web", Some(body)).await.expect("an answer");
    assert_eq!(put.status(), 201);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("compatibility/metrics.py");
    let url = cluster.node(1).url.clone();
    eventually("metrics that can be read", SOON, async || {
        let arguments = [url.as_str(), "ringmaster_proxy_request_duration_seconds"];
        let output =
            Command::new(python()).arg(&script).args(arguments).output().await.expect("Python starts");
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_gets_open_metrics() {
    let cluster = Cluster::start(1).await;
    let accept = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let url = format!("{}/metrics", cluster.node(1).url);
    let response = cluster.http.get(url).header("accept", accept).send().await.expect("an answer");
    let kind = response.headers()["content-type"].to_str().expect("a media type").to_owned();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let vary: Vec<_> =
        response.headers().get_all("vary").iter().map(|value| value.to_str().expect("text")).collect();
    assert!(vary.contains(&"accept"), "{vary:?}");
    let text = response.text().await.expect("a text");
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("# TYPE ringmaster_raft_proposals counter"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_board_finds_data() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let url = format!("{}/v1/stream", cluster.node(leader).url.replace("http", "ws"));
    let (_stream, _) = tokio_tungstenite::connect_async(url).await.expect("a stream");
    let upstream = json!({"endpoints": [{"id": "e1", "addr": "127.0.0.1:9"}]});
    let put = cluster.send(leader, Method::PUT, "/v1/upstreams/web", Some(upstream)).await;
    assert_eq!(put.expect("an answer").status(), 201);
    let wanted = board_names();
    assert!(wanted.len() > 20, "{wanted:?}");
    eventually("every metric of the board", SOON, async || {
        let mut there = BTreeSet::new();
        for node in 1..=3 {
            let samples = scrape(&cluster, node).await?;
            there.extend(samples.iter().filter_map(|(name, _)| name.split('{').next().map(str::to_owned)));
        }
        let missing: Vec<_> = wanted.difference(&there).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("no node has {missing:?}")) }
    })
    .await;
}

/// Every name of a metric in the expressions of the board.
fn board_names() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grafana.json");
    let board: Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("the board")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels").iter();
    let expressions: Vec<String> = panels
        .flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default())
        .map(|target| target["expr"].as_str().expect("an expression").to_owned())
        .chain(
            board["templating"]["list"]
                .as_array()
                .expect("variables")
                .iter()
                .filter_map(|variable| variable["query"].as_str().map(str::to_owned)),
        )
        .collect();
    expressions
        .iter()
        .flat_map(|expression| expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("ringmaster_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}
