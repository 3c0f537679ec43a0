//! The names that others rely on, as text files in `tests/golden/`: a change of one is a line in a diff.
//!
//! `UPDATE_GOLDEN=1 cargo nextest run -p ringmaster-tests public_surface` writes the files anew.

mod command_line;
mod metrics;
mod openapi;

use ringmaster_common::error::Code;
use ringmaster_tests::cluster::Cluster;
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const UPDATE: &str = "UPDATE_GOLDEN";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.txt"))
}

/// Ok where the golden file of this name says the same as `text`, else the difference.
fn compare(name: &str, text: &str) -> Result<(), String> {
    let path = golden(name);
    if fs::read_to_string(&path).is_ok_and(|recorded| recorded == text) {
        return Ok(());
    }
    let file = tempfile::NamedTempFile::new().expect("there is room for a file");
    fs::write(&file, text).expect("a temporary file can be written");
    let diff = Command::new("diff").arg("-u").args([&path, file.path()]).output().expect("diff is installed");
    Err(format!(
        "{} has changed. If that is wanted, set {UPDATE}=1 to record it, and say so in the CHANGELOG.\n{}{}",
        path.display(),
        String::from_utf8_lossy(&diff.stdout),
        String::from_utf8_lossy(&diff.stderr)
    ))
}

fn check(name: &str, text: &str) {
    if env::var_os(UPDATE).is_some() {
        return fs::write(golden(name), text).expect("the golden file can be written");
    }
    compare(name, text).unwrap_or_else(|difference| panic!("{difference}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_its_events() {
    let cluster = Cluster::start(1).await;
    let document: Value = cluster.get(1, "/openapi.json").await.expect("the document");
    check("openapi", &openapi::outline(&document));
    check("events", &openapi::variants(&document, "Event"));
}

#[test]
fn the_error_codes() {
    let mut lines: Vec<_> = Code::ALL
        .iter()
        .map(|code| format!("{} {} {}\n", code.as_str(), code.status(), code.title()))
        .collect();
    lines.sort();
    check("error_codes", &lines.concat());
}

#[test]
fn the_help_of_every_command() {
    check("command_line", &command_line::help());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_names_and_labels_of_metrics() {
    let cluster = metrics::busy_cluster().await;
    let text = metrics::wait_complete(&cluster, |text| match env::var_os(UPDATE) {
        Some(_) => Err("everything is recorded that comes in time".to_owned()),
        None => compare("metrics", text),
    })
    .await;
    check("metrics", &text);
}
