//! `ringmaster lock` and `ringmaster locks`, against real nodes and with real commands.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ringmaster_common::{
    lock::{Lock, LockDetail},
    page::Page,
};
use ringmaster_tests::{
    SOON,
    cluster::Cluster,
    eventually,
    process::{Process, binary},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::Duration,
};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::sleep,
};

fn ringmaster(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).env("RINGMASTER_URL", url);
    command
}

async fn output(mut command: Command) -> Output {
    spawn_blocking(move || command.output().expect("it starts")).await.expect("it ends")
}

async fn run(url: &str, arguments: &[&str]) -> Output {
    output(ringmaster(url, arguments)).await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

fn start(cluster: &Cluster, name: &str, arguments: &[&str]) -> Process {
    let mut command = ringmaster(&cluster.node(1).url, arguments);
    Process::start(command.current_dir(cluster.dir()), &cluster.dir().join(format!("{name}.out")))
}

async fn until_there(file: &Path) {
    eventually(&format!("{}", file.display()), SOON, async || {
        if file.exists() { Ok(()) } else { Err("it is not there".to_owned()) }
    })
    .await;
}

async fn ended(process: &mut Process) -> Option<i32> {
    tokio::task::block_in_place(|| process.wait(SOON)).code()
}

async fn lock_of(cluster: &Cluster, name: &str) -> Result<Lock, String> {
    Ok(cluster.get::<LockDetail>(1, &format!("/v1/locks/{name}")).await?.lock)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_the_commands_or_says_why_there_is_none() {
    let cluster = Cluster::start(1).await;
    let url = cluster.node(1).url.clone();
    let plain = cluster.dir().join("plain.txt");
    fs::write(&plain, "no program").expect("there is room");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let plain = plain.display().to_string();
    let mut holder = start(&cluster, "holder", &["lock", "held", "--", "sleep", "60"]);
    eventually("the lock to be held", SOON, async || lock_of(&cluster, "held").await.map(drop)).await;

    let cases: &[(&[&str], i32, &str)] = &[
        (&["lock", "x", "--", "true"], 0, ""),
        (&["lock", "x", "--", "sh", "-c", "exit 7"], 7, ""),
        (&["lock", "x", "--", "sh", "-c", "kill -TERM $$"], 128 + 15, ""),
        (&["lock", "x", "--shared", "--", "true"], 0, ""),
        (&["lock", "held", "--wait", "0s", "--", "true"], 124, "lock_held"),
        (&["lock", "held", "--wait", "300ms", "--", "true"], 124, "lock_held"),
        (&["lock", "x", "--ttl", "1ms", "--", "true"], 125, "it takes 100ms to 24h"),
        (&["lock", "x", "--limit", "0", "--", "true"], 125, "limit is 1 to"),
        (&["lock", "x", "--ttl", "soon", "--", "true"], 125, "a duration is"),
        (&["lock", "x"], 125, "COMMAND"),
        (
            &["lock", "x", "--wait", "1s", "--url", "http://127.0.0.1:9", "--", "true"],
            125,
            "trying again for 1 s",
        ),
        (&["lock", "x", "--wait", "0s", "--url", "http://127.0.0.1:9", "--", "true"], 125, "127.0.0.1:9"),
        (&["lock", "x", "--", &plain], 126, "plain.txt"),
        (&["lock", "x", "--", "no-such-command"], 127, "no-such-command"),
    ];
    for (arguments, code, message) in cases {
        let output = run(&url, arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {said}");
        assert!(said.contains(message), "{arguments:?}: {said}");
        assert!(!message.is_empty() || said.is_empty(), "{arguments:?}: {said}");
    }
    // Each of them gave back what it held, or the next would have waited.
    assert_eq!(lock_of(&cluster, "x").await.expect("it was used").held_by, 0);
    holder.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_the_token_and_the_lock_alone() {
    const COMMANDS: u64 = 6;
    let cluster = Cluster::start(3).await;
    let script =
        "mkdir alone && echo $RINGMASTER_LOCK_NAME $RINGMASTER_LOCK_TOKEN && sleep 0.1 && rmdir alone";
    let mut commands = JoinSet::new();
    for n in 0..COMMANDS {
        let mut command = ringmaster(
            &cluster.node(n % 3 + 1).url,
            &["lock", "jobs/nightly", "--wait", "60s", "--", "sh", "-c", script],
        );
        command.current_dir(cluster.dir());
        commands.spawn(output(command));
    }
    let mut tokens = Vec::new();
    while let Some(output) = commands.join_next().await {
        let output = output.expect("no panic");
        assert_eq!(output.status.code(), Some(0), "another was there at the same time: {output:?}");
        let said = text(&output.stdout);
        let token = said.trim().strip_prefix("jobs/nightly ").unwrap_or_else(|| panic!("{said}"));
        tokens.push(token.parse::<u64>().expect("a token"));
    }
    // Who holds it, then releases it, before the next is granted it: they end in the order of their tokens,
    // but for how the machine schedules their last moments.
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len() as u64, COMMANDS, "each grant has a token of its own: {tokens:?}");
}

/// No part of a command continues without its lock: neither a process that ignores SIGTERM, nor its children.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_lost_its_lock_is_stopped_with_all_it_has_started() {
    let cluster = Cluster::start(1).await;
    let beats = "while :; do date +%s%N > $0; sleep 0.05; done";
    let scripts = [
        ("polite", format!("trap 'echo asked > asked; exit 0' TERM; sh -c '{beats}' polite.beat & wait")),
        ("stubborn", format!("trap '' TERM; sh -c '{beats}' stubborn.beat")),
    ];
    for (name, script) in scripts {
        let arguments = ["lock", name, "--ttl", "3s", "--owner", "victim", "--", "sh", "-c", &script];
        let mut process = start(&cluster, name, &arguments);
        let beat = cluster.dir().join(format!("{name}.beat"));
        until_there(&beat).await;
        let planned = run(&cluster.node(1).url, &["plan", "release_lock", "--name", name]).await;
        let shown = text(&planned.stdout);
        for part in ["released from       victim (token", "granted to          none", "next token"] {
            assert!(shown.contains(part), "{shown}");
        }
        let forced = run(&cluster.node(1).url, &["apply", "release_lock", "--name", name, "--yes"]).await;
        assert_eq!(forced.status.code(), Some(0), "{forced:?}");
        assert_eq!(ended(&mut process).await, Some(125), "{}", process.output());
        assert!(process.output().contains("the lock is lost"), "{}", process.output());
        let last = fs::read(&beat).expect("it has beaten");
        sleep(Duration::from_millis(300)).await;
        assert_eq!(fs::read(&beat).expect("it has beaten"), last, "{name} still runs");
    }
    assert!(cluster.dir().join("asked").exists(), "a command is asked before it is killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_the_commands() {
    let cluster = Cluster::start(1).await;
    for (signal, code) in [(Signal::SIGTERM, 9), (Signal::SIGINT, 8)] {
        let name = signal.as_str();
        let ready = cluster.dir().join(name);
        let script =
            format!("trap 'exit 9' TERM; trap 'exit 8' INT; touch {name}; while :; do sleep 0.05; done");
        let mut process =
            start(&cluster, "signalled", &["lock", name, "--ttl", "60s", "--", "sh", "-c", &script]);
        until_there(&ready).await;
        kill(process.pid(), signal).expect("it runs");
        assert_eq!(ended(&mut process).await, Some(code));
        assert_eq!(lock_of(&cluster, name).await.expect("it was used").held_by, 0, "it was given back");
    }

    // A waiter that is terminated leaves the queue.
    let mut holder = start(&cluster, "holder", &["lock", "held", "--", "sleep", "60"]);
    eventually("the lock to be held", SOON, async || lock_of(&cluster, "held").await.map(drop)).await;
    let mut waiter = start(&cluster, "waiter", &["lock", "held", "--", "touch", "ran"]);
    let waiting = async |count: u64| {
        eventually("the queue", SOON, async || {
            let lock = lock_of(&cluster, "held").await?;
            if lock.waited_by == count { Ok(()) } else { Err(format!("{lock:?}")) }
        })
        .await;
    };
    waiting(1).await;
    kill(waiter.pid(), Signal::SIGTERM).expect("it runs");
    assert_eq!(ended(&mut waiter).await, Some(128 + 15));
    waiting(0).await;
    // The same signal ends the command of the holder, and lets the lock go.
    kill(Pid::from_raw(holder.pid().as_raw()), Signal::SIGTERM).expect("it runs");
    assert_eq!(ended(&mut holder).await, Some(128 + 15));
    assert!(!cluster.dir().join("ran").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_listed_shown_and_watched() {
    let cluster = Cluster::start(1).await;
    let url = &cluster.node(1).url;
    let empty = text(&run(url, &["locks"]).await.stdout);
    assert_eq!(empty, "No matching lock is in use.\n");
    let watcher = start(&cluster, "watcher", &["locks", "jobs/", "--watch"]);
    let watched = async |what: &str| {
        eventually(&format!("the watcher to show {what}"), SOON, async || {
            let seen = watcher.output();
            let last = seen.trim_end().rsplit("\n\n").next().unwrap_or_default();
            if last.contains(what) { Ok(()) } else { Err(seen) }
        })
        .await;
    };
    watched("No matching lock is in use.").await;

    let mut holder = start(&cluster, "holder", &["lock", "jobs/a", "--owner", "ann", "--", "sleep", "60"]);
    eventually("the lock to be held", SOON, async || lock_of(&cluster, "jobs%2Fa").await.map(drop)).await;
    let waiter = start(&cluster, "waiter", &["lock", "jobs/a", "--owner", "ben", "--", "true"]);
    let other =
        start(&cluster, "other", &["lock", "b", "--owner", "cat", "--limit", "3", "--", "sleep", "60"]);
    eventually("both locks", SOON, async || {
        let waited = lock_of(&cluster, "jobs%2Fa").await?.waited_by;
        lock_of(&cluster, "b").await?;
        if waited == 1 { Ok(()) } else { Err("no client waits".to_owned()) }
    })
    .await;

    let listed = text(&run(url, &["locks"]).await.stdout);
    let row = listed.lines().find(|line| line.starts_with("jobs/a")).unwrap_or_else(|| panic!("{listed}"));
    assert!(row.contains("exclusive") && row.contains("ann") && row.trim_end().ends_with('1'), "{listed}");
    assert!(listed.contains("shared, 1 of 3"), "{listed}");
    for arguments in [["locks", "jobs/"], ["locks", "--contended"]] {
        let listed = text(&run(url, &arguments).await.stdout);
        assert!(listed.contains("jobs/a") && !listed.contains("cat"), "{listed}");
    }
    let json = run(url, &["locks", "--json"]).await.stdout;
    let page: Page<Lock> = serde_json::from_slice(&json).expect("the API's JSON");
    assert_eq!(page.items.iter().map(|lock| lock.name.as_str()).collect::<Vec<_>>(), ["b", "jobs/a"]);
    let shown = text(&run(url, &["locks", "show", "jobs/a"]).await.stdout);
    for part in ["exclusive", "command: sleep", "ben waits for ann", "node 1", "granted", "queued"] {
        assert!(shown.contains(part), "{part} is missing: {shown}");
    }
    let unknown = run(url, &["locks", "show", "nothing"]).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    assert!(text(&unknown.stderr).contains("unknown_lock"), "{unknown:?}");

    watched("ann").await;
    kill(holder.pid(), Signal::SIGTERM).expect("it runs");
    ended(&mut holder).await;
    watched("No matching lock is in use.").await;
    assert!(!watcher.output().contains("cat"), "it is watched by its prefix: {}", watcher.output());
    drop((waiter, other));
}
