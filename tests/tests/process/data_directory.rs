//! A node whose data directory is not whole, or not its own, does not start: it ends with exit code 1 and a sentence that
//! names the directory and the way out.

use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Host, Program},
    crash_points::check_strace,
    eventually,
    process::{Process, binary},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A node alone, with one setting, stopped by SIGTERM.
async fn stopped_node(options: &[&str]) -> Cluster {
    let mut cluster = Cluster::start_with(1, options).await;
    cluster.put_setting(1, "key", json!("value")).await.expect("it is set");
    cluster.node_mut(1).terminate();
    cluster
}

/// Starts node 1 again; what it says when it ends with exit code 1.
fn refusal(cluster: &mut Cluster) -> String {
    let before = cluster.node(1).log().len();
    cluster.node_mut(1).start();
    let status = cluster.node_mut(1).process().wait(SOON);
    cluster.node_mut(1).kill();
    let said = cluster.node(1).log()[before..].to_owned();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

async fn starts_whole(cluster: &mut Cluster) {
    cluster.node_mut(1).start();
    cluster.wait_healthy().await;
    let setting: Value = cluster.get(1, "/v1/settings/key").await.expect("it is there");
    assert_eq!(setting["value"], "value");
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("the directory is there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(suffix));
    paths.sort();
    paths
}

/// The content of the journal and the snapshots.
fn data(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = files(&dir.join("journal"), ".log").into_iter().chain(files(&dir.join("snapshots"), ".snap"));
    paths.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_has_lost_its_identity_is_refused_however_the_node_is_started() {
    let mut cluster = stopped_node(&[]).await;
    let (dir, before) = (cluster.data_dir(1), data(&cluster.data_dir(1)));
    let (identity, aside) = (dir.join("identity.json"), dir.join("aside"));
    fs::rename(&identity, &aside).expect("it is there");
    let log = dir.join("log");
    let [first, .., last] = cluster.node(1).arguments() else { panic!("there are arguments") };
    assert_eq!((first.as_str(), last.as_str()), ("serve", "--bootstrap"));
    let without = &cluster.node(1).arguments()[..cluster.node(1).arguments().len() - 1];
    for more in [vec![], vec!["--bootstrap"], vec!["--join", "http://127.0.0.1:9"]] {
        let mut process = Process::start(Command::new(binary()).args(without).args(&more), &log);
        let status = process.wait(SOON);
        let said = process.output();
        assert_eq!(status.code(), Some(1), "{more:?}: {said}");
        for part in [&dir.display().to_string(), "identity.json", "Keep a copy", "remove the node"] {
            assert!(said.contains(part), "{more:?}: {part}: {said}");
        }
        assert_eq!(data(&dir), before, "{more:?}: it stays as it is");
        fs::remove_file(&log).expect("the log");
    }
    fs::rename(&aside, &identity).expect("it is back");
    starts_whole(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_over_the_journal_of_another_one() {
    let mut cluster = stopped_node(&[]).await;
    let identity = cluster.data_dir(1).join("identity.json");
    let whole = fs::read_to_string(&identity).expect("it is there");
    let mut other: Value = serde_json::from_str(&whole).expect("it is JSON");
    other["cluster_id"] = json!("another");
    fs::write(&identity, other.to_string()).expect("it can be written");
    let said = refusal(&mut cluster);
    assert!(said.contains("is that of node 1 of cluster"), "{said}");
    assert!(said.contains("the directory belongs to node 1 of cluster another"), "{said}");
    fs::write(&identity, whole).expect("it can be written");
    starts_whole(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_snapshot_is_noticed_and_an_unfinished_one_removed() {
    let mut cluster = Cluster::start_with(1, &["--snapshot-every=100"]).await;
    cluster.put_setting(1, "key", json!("value")).await.expect("it is set");
    let dir = cluster.data_dir(1).join("snapshots");
    eventually("a snapshot to replace another", SOON, async || {
        for n in 0..50 {
            cluster.put_setting(1, "other", json!(n)).await?;
        }
        match files(&dir, ".snap").last() {
            // Their names end with how many there were before.
            Some(path) if !path.to_string_lossy().ends_with("-0.snap") => Ok(()),
            _ => Err("none yet".to_owned()),
        }
    })
    .await;
    cluster.node_mut(1).kill();
    let unfinished = dir.join("0-1-7-9.tmp");
    fs::write(&unfinished, "half of it").expect("it can be written");
    let aside = cluster.data_dir(1).join("aside");
    fs::rename(&dir, &aside).expect("it is there");
    let said = refusal(&mut cluster);
    assert!(said.contains(&format!("a snapshot is missing in {}", dir.display())), "{said}");
    fs::remove_dir_all(&dir).expect("it is empty");
    fs::rename(&aside, &dir).expect("it is back");
    starts_whole(&mut cluster).await;
    assert!(!unfinished.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_before_a_write_that_was_cut_short_is_refused() {
    let mut cluster = stopped_node(&[]).await;
    let path = files(&cluster.data_dir(1).join("journal"), ".log").pop().expect("a segment");
    let whole = fs::read(&path).expect("it can be read");
    // Each frame begins with the mark that the segment's header holds at byte 20.
    let frames: Vec<_> = (28..whole.len() - 8).filter(|at| whole[*at..at + 8] == whole[20..28]).collect();
    let [.., last_but_one, last] = frames[..] else { panic!("there are frames") };
    let mut damaged = whole[..last + 8].to_vec();
    damaged[last_but_one + 16] ^= 1;
    fs::write(&path, damaged).expect("it can be written");
    let said = refusal(&mut cluster);
    assert!(said.contains(&format!("{} is damaged at byte {last_but_one}", path.display())), "{said}");
    fs::write(&path, whole).expect("it can be written");
    starts_whole(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_fails_ends_and_names_the_directory() {
    check_strace().expect("scripts/setup.sh installs it");
    for error in ["EIO", "ENOSPC"] {
        let mut cluster = Cluster::empty(Program::default());
        let inject = format!("inject=fdatasync:error={error}:when=12+");
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject];
        let enter = strace.map(str::to_owned).to_vec();
        cluster.add_on(&Host { enter, ..Host::default() }).start();
        cluster.wait_formed(1).await;
        let mut acknowledged = Vec::new();
        for n in 0.. {
            match cluster.put_setting(1, &format!("key-{n}"), json!(n)).await {
                Ok(_) => acknowledged.push(n),
                Err(_) => break,
            }
        }
        let status = cluster.node_mut(1).process().wait(SOON);
        cluster.node_mut(1).kill();
        let said = cluster.node(1).log();
        assert_eq!(status.code(), Some(1), "{said}");
        let journal = cluster.data_dir(1).join("journal");
        assert!(said.contains(&format!("the journal at {} cannot be written", journal.display())), "{said}");
        assert!(!acknowledged.is_empty(), "the disk failed later");
        cluster.node_mut(1).enter.clear();
        cluster.node_mut(1).start();
        cluster.wait_healthy().await;
        for n in acknowledged {
            let setting: Value = cluster.get(1, &format!("/v1/settings/key-{n}")).await.expect("it is there");
            assert_eq!(setting["value"], n);
        }
    }
}
