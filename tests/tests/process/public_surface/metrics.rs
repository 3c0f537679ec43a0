//! The metrics of a cluster in which something happens: each name with its labels, and the values of those labels that
//! are one of a few fixed words.

use futures::StreamExt;
use reqwest::Method;
use ringmaster_common::{action::Action, id::GroupId, id::NodeId};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Host, Program, parse},
    process::free_ports,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::{connect_async, tungstenite::Message};

/// Labels whose values are fixed words.
const WORDS: [&str; 4] = ["class", "code", "kind", "reason"];

/// The labels of a metric, with the values of those that are fixed words.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Three nodes with proxies, on which everything that is counted has happened once: writes, a read, a stream, a lock,
/// a transfer of leadership, a request through the proxy, and one that no endpoint answers.
pub async fn busy_cluster() -> Cluster {
    let hosts: Vec<Host> = (0..3).map(|_| Host::default()).collect();
    let cluster = Cluster::start_on(Program { proxies: true, ..Program::default() }, &hosts).await;
    let [unused] = free_ports();
    // A node's own API is as good an endpoint as any.
    let addr = cluster.node(1).url.trim_start_matches("http://").to_owned();
    for (name, addr) in [("answers", addr), ("refuses", format!("127.0.0.1:{unused}"))] {
        let upstream = json!({ "endpoints": [{ "id": "e1", "addr": addr }] });
        put(&cluster, &format!("/v1/upstreams/{name}"), upstream).await;
        put(
            &cluster,
            &format!("/v1/routes/{name}"),
            json!({ "path_prefix": "/", "host": name, "upstream": name }),
        )
        .await;
    }
    let lock = json!({ "name": "jobs", "owner": "me", "ttl_ms": 60_000 });
    let held = cluster.send(1, Method::POST, "/v1/locks/acquire", Some(lock)).await.expect("an answer");
    assert_eq!(held.status(), 200);
    let (mut stream, _) = connect_async(format!("{}/v1/stream", cluster.node(1).url.replace("http", "ws")))
        .await
        .expect("a stream");
    let mut kinds = BTreeSet::new();
    while !["view", "events", "sample"].iter().all(|kind| kinds.contains(*kind)) {
        let message = timeout(SOON, stream.next()).await.expect("in time").expect("the stream is open");
        let Message::Text(text) = message.expect("a message") else { continue };
        let message: Value = serde_json::from_str(&text).expect("JSON");
        kinds.insert(message["type"].as_str().expect("a type").to_owned());
        put(&cluster, "/v1/settings/seen", json!({ "value": kinds.len() })).await;
    }
    let leader = cluster.leader().await;
    let action = Action::TransferLeadership { group: GroupId::CLUSTER, to: NodeId(leader % 3 + 1) };
    let plan = cluster.plan(1, &action).await.expect("a plan");
    cluster.outcome(1, &cluster.apply(1, &plan).await.expect("it starts")).await;
    cluster
}

async fn put(cluster: &Cluster, path: &str, body: Value) {
    let _: Value = parse(cluster.send(1, Method::PUT, path, Some(body)).await.expect("an answer"))
        .await
        .unwrap_or_else(|problem| panic!("{path}: {problem}"));
}

/// The metrics once `is_complete` accepts them, or those that there are when the time for that is over.
pub async fn wait_complete(cluster: &Cluster, is_complete: impl Fn(&str) -> Result<(), String>) -> String {
    let deadline = Instant::now() + SOON / 2;
    loop {
        for node in 1..=3 {
            for host in ["answers", "refuses"] {
                let request = cluster.http.get(format!("{}/livez", cluster.node(node).proxy_url()));
                request.header("host", host).send().await.expect("the proxy answers");
            }
        }
        let text = outline(cluster).await;
        if is_complete(&text).is_ok() || Instant::now() > deadline {
            return text;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn outline(cluster: &Cluster) -> String {
    let mut kinds = BTreeMap::new();
    let mut labels = BTreeMap::<String, Labels>::new();
    for node in 1..=3 {
        let response = cluster.send(node, Method::GET, "/metrics", None).await.expect("an answer");
        for line in response.text().await.expect("a text").lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                read_sample(line, &mut labels);
            }
        }
    }
    let describe = |(name, kind): (&String, &String)| {
        let sampled = [name.clone(), format!("{name}_count")];
        let labels = sampled.iter().find_map(|name| labels.get(name));
        let labels = labels.into_iter().flatten().map(|(label, words)| {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            if words.is_empty() { label.clone() } else { format!("{label}={}", words.join("|")) }
        });
        format!("{kind} {name} {{{}}}\n", labels.collect::<Vec<_>>().join(", "))
    };
    kinds.iter().map(describe).collect()
}

/// Adds the labels of a line such as `name{label="value",other="value"} 1`.
fn read_sample(line: &str, labels: &mut BTreeMap<String, Labels>) {
    let (sample, _) = line.rsplit_once(' ').unwrap_or_else(|| panic!("a sample: {line}"));
    let (name, rest) = sample.split_once('{').unwrap_or((sample, ""));
    let known = labels.entry(name.to_owned()).or_default();
    for pair in rest.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty()) {
        let (label, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("labels: {line}"));
        let words = known.entry(label.to_owned()).or_default();
        if WORDS.contains(&label) {
            words.insert(value.trim_end_matches('"').to_owned());
        }
    }
}
