//! The command line, against a real cluster.

use ringmaster_common::{cluster::Cluster as ClusterBody, operation::Operation, page::Page, plan::Plan};
use ringmaster_tests::{
    cluster::Cluster,
    process::{binary, free_ports},
};
use std::process::{Command, Output};

/// Runs `ringmaster` as a script would: no terminal anywhere.
async fn ringmaster(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env("RINGMASTER_URL", url);
    tokio::task::spawn_blocking(move || command.output().expect("it starts")).await.expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_command_line_and_back() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (to, url) = ((leader % 3 + 1).to_string(), &cluster.node(leader).url);

    let planned = ringmaster(url, &["plan", "transfer_leadership", "--to", &to]).await;
    assert_eq!(planned.status.code(), Some(0), "{planned:?}");
    let shown = text(&planned.stdout);
    assert!(shown.contains("transfer_leadership") && shown.contains("ringmaster apply"), "{shown}");
    assert_eq!(cluster.leader().await, leader, "a plan changes nothing");

    let unconfirmed = ringmaster(url, &["apply", "transfer_leadership", "--to", &to]).await;
    assert_eq!(unconfirmed.status.code(), Some(2), "{unconfirmed:?}");
    assert!(text(&unconfirmed.stderr).contains("--yes"), "{unconfirmed:?}");

    let applied = ringmaster(url, &["apply", "transfer_leadership", "--to", &to, "--yes"]).await;
    assert_eq!(applied.status.code(), Some(0), "{applied:?}");
    let shown = text(&applied.stdout);
    for step in ["preflight", "catch_up", "transfer_leadership", "verify"] {
        assert!(shown.contains(step), "{shown}");
    }
    assert_eq!(cluster.leader().await.to_string(), to);

    let operations = ringmaster(url, &["operations", "--json"]).await.stdout;
    let operations: Page<Operation> = serde_json::from_slice(&operations).expect("a page");
    let id = operations.items.iter().map(|operation| operation.id).max().expect("an operation").to_string();
    let undone = ringmaster(url, &["undo", &id, "--yes"]).await;
    assert_eq!(undone.status.code(), Some(0), "{undone:?}");
    assert_eq!(cluster.leader().await, leader);

    let audit = text(&ringmaster(url, &["audit"]).await.stdout);
    assert!(audit.contains("cli@127.0.0.1") && audit.contains("apply plan"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_that_of_the_api_and_tables_are_readable() {
    let cluster = Cluster::start(3).await;
    let url = &cluster.node(2).url;
    let status = ringmaster(url, &["status", "--json"]).await;
    let body: ClusterBody = serde_json::from_slice(&status.stdout).expect("the API's JSON");
    assert_eq!(body.nodes.len(), 3);
    let nodes = text(&ringmaster(url, &["nodes"]).await.stdout);
    assert_eq!(nodes.lines().filter(|line| line.contains("test-")).count(), 3, "{nodes}");
    assert!(!nodes.contains('\u{1b}'), "no colours where there is no terminal: {nodes:?}");
    let plan = ringmaster(url, &["plan", "transfer_leadership", "--to", "1", "--json"]).await;
    serde_json::from_slice::<Plan>(&plan.stdout).expect("a plan");
    let set = ringmaster(url, &["settings", "put", "team", "\"blue\""]).await;
    assert_eq!(set.status.code(), Some(0), "{set:?}");
    assert!(text(&ringmaster(url, &["settings", "get", "team"]).await.stdout).contains("blue"));
    assert!(text(&ringmaster(url, &["events"]).await.stdout).contains("setting team"));
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_messages_name_the_outcome() {
    let cluster = Cluster::start(1).await;
    let url = cluster.node(1).url.clone();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["plan", "transfer_leadership", "--to", "99"], 1, "members are 1"),
        (&["abort", "4711"], 1, "there is no operation 4711"),
        (&["settings", "put", "plans.ttl_ms", "\"soon\""], 1, "takes an integer"),
        (&["plan", "transfer_leadership"], 2, "--to"),
        (&["plan", "explode"], 2, "explode"),
        (&["frobnicate"], 2, "frobnicate"),
        (&["serve", "--api-addr", "192.0.2.1:7701", "--data-dir", "/nonexistent"], 2, "--insecure"),
    ];
    for (arguments, code, message) in cases {
        let output = ringmaster(&url, arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {said}");
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
    let unreachable = ringmaster("http://127.0.0.1:9", &["status"]).await;
    assert_eq!(unreachable.status.code(), Some(3), "{unreachable:?}");
    assert!(text(&unreachable.stderr).contains("127.0.0.1:9"), "{unreachable:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_used_once_and_belongs_to_one_node() {
    let mut cluster = Cluster::start(1).await;
    let serve = |cluster: &Cluster| -> Vec<String> { cluster.node(1).arguments().to_vec() };
    let mut arguments = serve(&cluster);
    let api = arguments.iter().position(|argument| argument == "--api-addr").expect("the flag") + 1;
    let peer = arguments.iter().position(|argument| argument == "--peer-addr").expect("the flag") + 1;
    let [api_port, peer_port] = free_ports();
    arguments[api] = format!("127.0.0.1:{api_port}");
    arguments[peer] = format!("127.0.0.1:{peer_port}");
    let run = async |arguments: &[String]| {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        ringmaster("http://127.0.0.1:9", &arguments).await
    };
    let second = run(&arguments).await;
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(text(&second.stderr).contains("in use"), "{second:?}");

    cluster.node_mut(1).kill();
    let id = arguments.iter().position(|argument| argument == "--id").expect("the flag") + 1;
    arguments[id] = "7".to_owned();
    let other = run(&arguments).await;
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    assert!(text(&other.stderr).contains("belongs to node 1"), "{other:?}");
    cluster.node_mut(1).start();
    cluster.leader().await;
}
