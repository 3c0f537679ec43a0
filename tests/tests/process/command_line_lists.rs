//! The command line: completions, and what all list commands have in common.

use ringmaster_tests::{SOON, cluster::Cluster, eventually, process::Process, process::binary};
use serde_json::{Value, json};
use std::process::Command;

/// Every command that lists something.
const LISTS: &[&[&str]] = &[&["nodes"], &["operations"], &["events"], &["audit"], &["settings", "list"]];

fn run(arguments: &[&str], url: &str) -> String {
    let output =
        Command::new(binary()).args(arguments).env("RINGMASTER_URL", url).output().expect("it starts");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("a text")
}

#[test]
fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell], "");
        for word in ["transfer_leadership", "settings", "keep-within", "completions"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    // The script is one that a shell takes, and that completes.
    let script = r#"
        source <("$RINGMASTER" completions bash)
        COMP_WORDS=(ringmaster se) COMP_CWORD=1
        _ringmaster ringmaster se ringmaster
        echo "${COMPREPLY[@]}"
    "#;
    let output =
        Command::new("bash").args(["-c", script]).env("RINGMASTER", binary()).output().expect("bash");
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(words.contains("serve") && words.contains("settings"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_is_json_and_can_be_watched() {
    let cluster = Cluster::start(1).await;
    let url = cluster.node(1).url.clone();
    cluster.put_setting(1, "before", json!(1)).await.expect("it is set");
    for list in LISTS {
        let (arguments, asked) = ([list, ["--json"].as_slice()].concat(), url.clone());
        let text = tokio::task::spawn_blocking(move || run(&arguments, &asked)).await.expect("it ends");
        let page: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{list:?}: {error}: {text}"));
        assert!(page["items"].is_array() && page.get("next").is_some(), "{list:?}: {page}");
    }
    let watchers: Vec<Process> = LISTS
        .iter()
        .map(|list| {
            let mut command = Command::new(binary());
            command.args(*list).args(["--watch", "--json"]).env("RINGMASTER_URL", &url);
            Process::start(&mut command, &cluster.dir().join(format!("{}.out", list[0])))
        })
        .collect();
    let lines = |watcher: &Process| -> Vec<Value> {
        let output = watcher.output();
        let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    };
    for (list, watcher) in LISTS.iter().zip(&watchers) {
        eventually(&format!("{list:?} to be shown"), SOON, async || {
            if lines(watcher).is_empty() { Err(watcher.output()) } else { Ok(()) }
        })
        .await;
    }
    let shown: Vec<usize> = watchers.iter().map(|watcher| lines(watcher).len()).collect();
    // A change that shows in each of them, but for operations: a single node has no node to transfer leadership to.
    cluster.put_setting(1, "after", json!(2)).await.expect("it is set");
    for ((list, watcher), shown) in LISTS.iter().zip(&watchers).zip(shown) {
        if list[0] == "operations" {
            continue;
        }
        eventually(&format!("{list:?} to show the change"), SOON, async || {
            let now = lines(watcher).len();
            if now > shown { Ok(()) } else { Err(format!("{now} lines: {}", watcher.output())) }
        })
        .await;
    }
}
