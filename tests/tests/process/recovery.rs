//! The way back from a lost quorum: `ringmaster recover` on the data directory of a node that is left.

use reqwest::Method;
use ringmaster_common::{lock::LockGrant, page::Page, traffic::upstream::Upstream};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, parse},
    crash_points::check_strace,
    eventually,
    process::binary,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// How far revisions, fencing tokens and epochs move on.
const GAP: u64 = 1_000_000_000_000;

fn recover(arguments: &[&str]) -> Output {
    Command::new(binary()).arg("recover").args(arguments).output().expect("the program runs")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// What `--inspect` reports.
fn inspect(dir: &Path) -> Value {
    let output = recover(&["--inspect", "--json", "--data-dir", &text(dir)]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

/// The refusal of a recovery, with exit code 1.
fn refusal(arguments: &[&str]) -> String {
    let output = recover(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn acquire(cluster: &Cluster, name: &str) -> LockGrant {
    let body = json!({ "name": name, "owner": "ada", "ttl_ms": 600_000 });
    let answer = cluster.send(1, Method::POST, "/v1/locks/acquire", Some(body)).await.expect("an answer");
    parse(answer).await.expect("it is granted")
}

async fn put(cluster: &Cluster, path: &str, body: Value) {
    let answer = cluster.send(1, Method::PUT, path, Some(body)).await.expect("an answer");
    assert!(answer.status().is_success(), "{:?}", answer.text().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_on_from_one_node_of_three() {
    let mut cluster = Cluster::start(3).await;
    for key in 0..20 {
        cluster.put_setting(1, &format!("key-{key}"), json!(key)).await.expect("it is written");
    }
    let endpoints = json!([{ "id": "a", "addr": "127.0.0.1:9" }, { "id": "b", "addr": "127.0.0.1:10" }]);
    let standby = json!({ "endpoints": endpoints, "active_standby": { "automatic": false } });
    put(&cluster, "/v1/upstreams/db", standby).await;
    put(&cluster, "/v1/routes/all", json!({ "path_prefix": "/", "upstream": "db" })).await;
    let held = acquire(&cluster, "held").await;
    let before = cluster.cluster(1).await.expect("the cluster");
    cluster.wait_level().await;
    for node in 1..=3 {
        cluster.node_mut(node).kill();
    }

    let dir = cluster.data_dir(1);
    let report = inspect(&dir);
    assert_eq!((&report["node"], &report["voters"]), (&json!(1), &json!([1, 2, 3])), "{report}");
    assert!(report["last_index"].as_u64() >= Some(before.revision.0), "{report}");
    let done = recover(&["--data-dir", &text(&dir), "--confirm", &before.id]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{done:?}");
    let saved = dir.with_file_name("node-1.before-recovery");
    assert!(said.contains(&format!("Saved the data as it was: {}", text(&saved))), "{said}");
    assert!(said.contains("incarnation 2") && said.contains("nodes 2, 3: refused"), "{said}");
    assert_eq!(inspect(&saved)["last_index"], report["last_index"], "the copy is as it was");

    cluster.node_mut(1).start();
    eventually("the node to lead", SOON, async || {
        let now = cluster.cluster(1).await?;
        now.leader.map(drop).ok_or_else(|| format!("{now:?}"))
    })
    .await;
    let now = cluster.cluster(1).await.expect("the cluster");
    assert_eq!((now.id, now.name, now.incarnation.0), (before.id, before.name, before.incarnation.0 + 1));
    assert_eq!(now.nodes.len(), 1);
    assert_eq!(now.next_id.0, 4, "the ids of the lost nodes are never reused");
    assert!(now.revision.0 > before.revision.0 + GAP, "{}", now.revision);
    for key in 0..20 {
        let setting: Value = cluster.get(1, &format!("/v1/settings/key-{key}")).await.expect("it is there");
        assert_eq!(setting["value"], json!(key));
    }
    let upstream: Upstream = cluster.get(1, "/v1/upstreams/db").await.expect("it is there");
    let primary = upstream.primary.expect("it has one");
    assert_eq!(primary.endpoint.as_deref(), Some("a"));
    assert!(primary.epoch > GAP, "{primary:?}");
    cluster.get::<Value>(1, "/v1/routes/all").await.expect("it is there");
    let renew = json!({ "name": "held", "owner": "ada", "token": held.token, "ttl_ms": 600_000 });
    let renewed = cluster.send(1, Method::POST, "/v1/locks/renew", Some(renew)).await.expect("an answer");
    assert!(renewed.status().is_success(), "the lease lasts: {:?}", renewed.text().await);
    assert!(acquire(&cluster, "next").await.token.0 > held.token.0 + GAP);
    let events: Page<Value> = cluster.get(1, "/v1/events?limit=500").await.expect("the events");
    let of_recovery =
        events.items.iter().flat_map(|batch| batch["events"].as_array().cloned().unwrap_or_default());
    let recovered: Vec<_> = of_recovery.filter(|event| event["type"] == "cluster_recovered").collect();
    assert_eq!(recovered.len(), 1, "{events:?}");
    assert_eq!(recovered[0]["former_members"], json!([1, 2, 3]));
    assert_eq!(recovered[0]["last_revision"], report["last_index"]);
    let audit: Page<Value> = cluster.get(1, "/v1/audit").await.expect("the audit");
    let asked = "recover the cluster from node 1, as incarnation 2";
    assert!(audit.items.iter().any(|entry| entry["request"] == asked), "{audit:?}");

    // Those that were lost come back together: they would have been a quorum.
    for node in [2, 3] {
        cluster.node_mut(node).start();
    }
    for node in [2, 3] {
        let status = cluster.node_mut(node).process().wait(SOON);
        let said = cluster.node(node).log();
        assert_eq!(status.code(), Some(1), "{said}");
        let why = "node 1 refuses this node: the cluster was recovered from a lost quorum without this peer";
        assert!(said.contains(why), "{said}");
        cluster.node_mut(node).kill();
    }
    assert!(cluster.node(1).log().contains("earlier incarnation"), "{}", cluster.node(1).log());

    cluster.add();
    cluster.add();
    cluster.wait_formed(3).await;
    let nodes = cluster.cluster(4).await.expect("the cluster").nodes;
    assert_eq!(nodes.iter().map(|info| info.node.id.0).collect::<Vec<_>>(), [1, 4, 5]);
    cluster.put_setting(5, "after", json!("it")).await.expect("it is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_would_do_harm_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let id = cluster.cluster(1).await.expect("the cluster").id;
    let (dir, empty) = (cluster.data_dir(3), cluster.dir().join("empty"));
    let path = text(&dir);
    let confirmed = ["--data-dir", path.as_str(), "--confirm", id.as_str()];
    assert!(refusal(&confirmed).contains("in_use: "), "the node runs");
    assert!(refusal(&["--inspect", "--data-dir", &path]).contains("in_use: "));
    cluster.node_mut(3).terminate();
    let said = refusal(&confirmed);
    assert!(said.contains("quorum_not_lost: node 1 answers at"), "{said}");
    assert!(refusal(&["--data-dir", &text(&empty), "--confirm", &id]).contains("not_a_data_directory: "));
    assert!(!empty.exists(), "nothing is created");
    cluster.node_mut(1).kill();
    cluster.node_mut(2).kill();

    let before = inspect(&dir);
    let said = refusal(&["--data-dir", &path, "--confirm", "another"]);
    assert!(said.contains("wrong_confirmation: ") && said.contains(&id), "{said}");
    let unconfirmed = recover(&["--data-dir", &path]);
    assert_eq!(unconfirmed.status.code(), Some(2), "{unconfirmed:?}");
    let said = String::from_utf8_lossy(&unconfirmed.stdout).into_owned();
    assert!(said.contains("lost is what the other nodes had acknowledged"), "{said}");
    let missing = text(&empty.join("copy"));
    let said = refusal(&["--data-dir", &path, "--confirm", &id, "--save-to", &missing]);
    assert!(said.contains("copy_failed: ") && said.contains("--save-to"), "{said}");
    assert_eq!(inspect(&dir), before, "nothing has changed");

    let identity = dir.join("identity.json");
    let whole = fs::read_to_string(&identity).expect("it is there");
    fs::write(&identity, whole.replace("\"format\": 1", "\"format\": 9")).expect("it can be written");
    assert!(refusal(&confirmed).contains("newer_format: "));
    fs::write(&identity, whole).expect("it can be written");
    let segment =
        fs::read_dir(dir.join("journal")).expect("the journal").map(|entry| entry.expect("an entry").path());
    let segment = segment.filter(|path| path.to_string_lossy().ends_with(".log")).min().expect("a segment");
    let mut bytes = fs::read(&segment).expect("it is there");
    // In the first frame, with others behind it.
    bytes[100] ^= 1;
    fs::write(&segment, bytes).expect("it can be written");
    let said = refusal(&confirmed);
    assert!(said.contains("damaged: ") && said.contains(&text(&segment)), "{said}");
}

/// `strace` kills the recovery at its n-th rename, or its n-th fsync, for every n.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_is_cut_short_leaves_the_old_state_or_the_new_one() {
    check_strace().expect("it is needed");
    let mut cluster = Cluster::start_with(1, &["--snapshot-every=100"]).await;
    for key in 0..150 {
        cluster.put_setting(1, "key", json!(key)).await.expect("it is written");
    }
    let id = cluster.cluster(1).await.expect("the cluster").id;
    cluster.node_mut(1).kill();
    let whole = cluster.data_dir(1);
    let before = inspect(&whole);
    let last = before["last_index"].as_u64().expect("a number");
    let temp = tempfile::tempdir().expect("a directory");
    let mut outcomes = Vec::new();
    for call in ["rename", "fsync"] {
        for nth in 1.. {
            let dir = temp.path().join(format!("{call}-{nth}"));
            let copied = Command::new("cp").arg("-r").args([&whole, &dir]).status().expect("cp runs");
            assert!(copied.success());
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={nth}"));
            let mut traced = Command::new("strace");
            traced.args(["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject]).arg(binary());
            traced.args(["recover", "--data-dir", &text(&dir), "--confirm", &id]);
            let killed = !traced.output().expect("strace runs").status.success();
            let after = inspect(&dir);
            let is_new = after["incarnation"] == 2;
            if is_new {
                assert_eq!(after["last_index"], json!(last + GAP), "{call} {nth}");
                assert_eq!(after["voters"], json!([1]));
            } else {
                assert!(killed);
                let same =
                    |of: &Value| [of["last_index"].clone(), of["digest"].clone(), of["voters"].clone()];
                assert_eq!(same(&after), same(&before), "{call} {nth}");
                let again = recover(&["--data-dir", &text(&dir), "--confirm", &id]);
                assert!(again.status.success(), "{call} {nth}: {again:?}");
                assert_eq!(inspect(&dir)["last_index"], json!(last + GAP), "{call} {nth}");
            }
            outcomes.push(is_new);
            if !killed {
                break;
            }
        }
    }
    assert!(outcomes.len() > 10 && outcomes.contains(&false), "{outcomes:?}");

    let recovered = recover(&["--data-dir", &text(&whole), "--confirm", &id]);
    assert!(recovered.status.success(), "{recovered:?}");
    cluster.node_mut(1).start();
    cluster.wait_healthy().await;
    let setting: Value = cluster.get(1, "/v1/settings/key").await.expect("it is there");
    assert_eq!(setting["value"], json!(149));
}
