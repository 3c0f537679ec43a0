//! The command line while a cluster starts, has no quorum, or was set up anew; and files and outputs that fail.

use ringmaster_common::{
    id::Revision,
    traffic::{
        import::{Import, Put},
        upstream::{EndpointSpec, UpstreamSpec},
    },
};
use ringmaster_tests::{
    SOON,
    cluster::Cluster,
    eventually,
    process::{Process, binary},
};
use serde_json::{Value, json};
use std::{
    fs,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long a read that a leader has to confirm waits for one, and somewhat less.
const LEADER_WAIT: Duration = Duration::from_millis(2_500);

async fn ringmaster(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env("RINGMASTER_URL", url).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().expect("it starts")).await.expect("it ends")
}

async fn succeeds(url: &str, arguments: &[&str]) -> String {
    let output = ringmaster(url, arguments).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

fn upstream(endpoints: usize) -> UpstreamSpec {
    let endpoint = |nth: usize| EndpointSpec {
        id: format!("endpoint-{nth}"),
        addr: format!("10.{}.{}.7:8080", nth / 256, nth % 256),
        weight: 1,
    };
    UpstreamSpec { endpoints: (0..endpoints).map(endpoint).collect(), ..UpstreamSpec::default() }
}

async fn import(cluster: &Cluster, import: &Import) {
    let body = serde_json::to_value(import).expect("it is JSON");
    let answer =
        cluster.send(1, reqwest::Method::POST, "/v1/traffic/import", Some(body)).await.expect("an answer");
    assert_eq!(answer.status(), 204, "{:?}", answer.text().await);
}

fn put<T>(name: &str, spec: T) -> Put<T> {
    Put { name: name.to_owned(), version: None, spec }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_can_be_saved_without_a_quorum() {
    let mut cluster = Cluster::start(3).await;
    cluster.put_setting(1, "team", json!("blue")).await.expect("it is set");
    import(&cluster, &Import { upstreams: vec![put("web", upstream(2))], routes: Vec::new() }).await;
    let url = cluster.node(1).url.clone();
    let whole = succeeds(&url, &["config", "export", "-"]).await;
    cluster.node_mut(2).kill();
    cluster.node_mut(3).kill();
    eventually("the quorum to be gone", SOON, async || {
        let quorum = cluster.cluster(1).await?.quorum;
        if quorum.has { Err(format!("{quorum:?}")) } else { Ok(()) }
    })
    .await;

    assert_eq!(succeeds(&url, &["config", "export", "-", "--stale"]).await, whole);
    for (list, word) in [
        (&["settings", "list"][..], "blue"),
        (&["settings", "get", "team"], "blue"),
        (&["upstreams"], "web"),
        (&["upstreams", "web"], "endpoint-1"),
        (&["routes"], ""),
        (&["locks"], ""),
        (&["operations"], ""),
        (&["audit"], "set team"),
        (&["events"], "setting team"),
        (&["status"], "none: 1 of 3 voters"),
        (&["status"], "docs/recovery.md"),
        (&["nodes"], "none: 1 of 3 voters"),
    ] {
        let mut fastest = SOON;
        // On a busy machine a process may take long to start.
        for _ in 0..5 {
            let began = Instant::now();
            let shown = succeeds(&url, &[list, &["--stale"]].concat()).await;
            assert!(shown.contains(word), "{list:?}: {shown}");
            fastest = fastest.min(began.elapsed());
            if fastest < LEADER_WAIT {
                break;
            }
        }
        assert!(fastest < LEADER_WAIT, "{list:?} waits for a leader: {fastest:?}");
    }
    let refused = ringmaster(&url, &["settings", "list"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no_leader") && said.contains("--stale") && said.contains("docs/recovery.md"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_events_starts_again_where_the_cluster_was_set_up_anew() {
    let mut cluster = Cluster::start(1).await;
    cluster.put_setting(1, "of-the-first", json!(1)).await.expect("it is set");
    let id = cluster.cluster(1).await.expect("a cluster").id;
    let url = cluster.node(1).url.clone();
    let watch = |name: &str, flags: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["events", "--watch"]).args(flags).env("RINGMASTER_URL", &url);
        Process::start(&mut command, &cluster.dir().join(name))
    };
    let watchers = [watch("text.out", &[]), watch("json.out", &["--json"])];
    let shows = async |watcher: &Process, words: &str| {
        eventually(&format!("{words} to be shown"), SOON, async || {
            let shown = watcher.output();
            if shown.contains(words) { Ok(()) } else { Err(shown) }
        })
        .await;
    };
    for watcher in &watchers {
        shows(watcher, "of-the-first").await;
    }
    cluster.node_mut(1).kill();
    cluster.wipe(1);
    cluster.node_mut(1).start();
    cluster.wait_formed(1).await;
    cluster.put_setting(1, "of-the-second", json!(1)).await.expect("it is set");
    for watcher in &watchers {
        shows(watcher, "of-the-second").await;
        shows(watcher, &format!("another cluster has replaced cluster {id}")).await;
    }
    // All of the new history is shown, from its first event.
    let shown = watchers[0].output();
    let (_, since) = shown.split_once("has replaced").expect("it says so");
    assert!(since.lines().any(|line| line.contains("(test-1) joined")), "{since}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_waited_for_while_no_node_runs_yet() {
    let mut cluster = Cluster::start(1).await;
    cluster.node_mut(1).kill();
    let mut command = Command::new(binary());
    command
        .args(["lock", "x", "--wait", "30s", "--", "echo", "held"])
        .env("RINGMASTER_URL", &cluster.node(1).url);
    let mut waiting = Process::start(&mut command, &cluster.dir().join("lock.out"));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(waiting.running(), "{}", waiting.output());
    cluster.node_mut(1).start();
    assert!(waiting.wait(Duration::from_secs(20)).success(), "{}", waiting.output());
    assert!(waiting.output().contains("held"));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_exported_can_be_imported() {
    let mut cluster = Cluster::start(1).await;
    let names: Vec<_> = (0..256).map(|nth| format!("upstream-{nth}")).collect();
    let route = |nth: usize| {
        serde_json::from_value(
            json!({ "path_prefix": format!("/route/{nth}"), "upstream": names[nth % 256] }),
        )
        .expect("a route")
    };
    let all = Import {
        upstreams: names.iter().map(|name| put(name, upstream(64))).collect(),
        routes: (0..300).map(|nth| put(&format!("route-{nth}"), route(nth))).collect(),
    };
    assert!(serde_json::to_vec(&all).expect("JSON").len() > 1 << 20, "more than other requests may have");
    import(&cluster, &all).await;
    let url = cluster.node(1).url.clone();
    let file = |name: &str| cluster.dir().join(name).to_str().expect("UTF-8").to_owned();
    let (toml, json) = (file("all.toml"), file("all.json"));
    let said = succeeds(&url, &["config", "export", &toml]).await;
    assert!(said.starts_with("Wrote ") && said.contains(&format!(" routes to {toml} (")), "{said}");
    succeeds(&url, &["config", "export", &json, "--json"]).await;
    for file in [&toml, &json] {
        let same = succeeds(&url, &["config", "import", file, "--yes"]).await;
        assert!(same.contains("Nothing to do"), "{same}");
        cluster.node_mut(1).kill();
        cluster.wipe(1);
        cluster.node_mut(1).start();
        cluster.wait_formed(1).await;
        let applied = succeeds(&url, &["config", "import", file, "--yes"]).await;
        assert!(applied.contains("Applied 556 changes."), "{applied}");
        let again = succeeds(&url, &["config", "export", "-"]).await;
        assert!(again == fs::read_to_string(&toml).expect("the file"), "the same byte by byte");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_more_than_a_cluster_has_is_refused_before_it_is_logged() {
    let cluster = Cluster::start(1).await;
    let before = cluster.cluster(1).await.expect("a cluster").revision;
    let many: Vec<_> = (0..20_000).map(|nth| json!({ "name": format!("u{nth}"), "spec": {} })).collect();
    let answer = cluster
        .send(1, reqwest::Method::POST, "/v1/traffic/import", Some(json!({ "upstreams": many })))
        .await
        .expect("an answer");
    let problem: Value = answer.json().await.expect("a problem");
    assert_eq!(problem["code"], "limit_reached", "{problem}");
    let after = cluster.cluster(1).await.expect("a cluster").revision;
    assert!(after <= Revision(before.0 + 1), "{before} {after}");
}

#[test]
fn an_unreadable_file_gives_one_short_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = "hunter2 ".repeat(10_000);
    for (name, content) in [
        ("shadow", format!("root:{secret}")),
        ("json", format!(r#"{{"upstreams": {{"web": {{"policy": "{secret}"}}}}}}"#)),
        ("list.json", format!(r#"[{{"a": "{secret}"}}]"#)),
        ("cut.json", format!(r#"{{"upstreams": {{"{secret}"#)),
        ("toml", format!("[upstreams.web]\npolicy = \"{secret}\"")),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("it is written");
        for arguments in [&["config", "import", "--yes"][..], &["serve", "--config"]] {
            let output = Command::new(binary()).args(arguments).arg(&path).output().expect("it starts");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{name}: {said}");
            assert!(
                said.lines().count() == 1 && said.len() < 600 && !said.contains("hunter2"),
                "{name}: {said}"
            );
            assert!(said.contains(name), "it names the file: {said}");
        }
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    for command in
        ["--help", "help", "help config import", "status --help", "--version", "version", "completions bash"]
    {
        let run = |redirect: &str| {
            let script = format!("exec \"$RINGMASTER\" {command} {redirect}");
            Command::new("sh").args(["-c", &script]).env("RINGMASTER", binary()).output().expect("sh")
        };
        let full = run("> /dev/full");
        assert_eq!(full.status.code(), Some(1), "{command}: {full:?}");
        assert!(String::from_utf8_lossy(&full.stderr).contains("standard output"), "{command}: {full:?}");
        assert_eq!(run("").status.code(), Some(0), "{command}");
        assert_eq!(run("| head -c 1").status.code(), Some(0), "{command}: a reader may leave early");
    }
}

#[test]
fn help_has_help() {
    let run = |line: &str| {
        let output = Command::new(binary()).args(line.split_whitespace()).output().expect("it starts");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"), output.stderr)
    };
    for (line, words) in [
        ("help --help", "help"),
        ("config help --help", "import"),
        ("help lock", "Usage: ringmaster lock"),
        ("help config import", "Usage: ringmaster config import"),
        ("help settings put", "--if-match"),
        ("help", "Usage: ringmaster"),
    ] {
        let (code, shown, said) = run(line);
        assert_eq!(code, Some(0), "{line}: {}", String::from_utf8_lossy(&said));
        assert!(shown.contains(words), "{line}: {shown}");
    }
    assert_eq!(run("help statsu").0, Some(2));
}
