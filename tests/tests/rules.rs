//! Rules of this repository that would be costly to lose, as a plain test.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}

fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    // A room is a folder and the file beside it.
    let mut open: Vec<_> = [folder.to_owned(), format!("{folder}.rs")]
        .iter()
        .map(|place| root().join(place))
        .filter(|place| place.exists())
        .collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            found.push((name, fs::read_to_string(&path).expect("a text file")));
        }
    }
    assert!(!found.is_empty(), "{folder} has sources");
    found.sort();
    found
}

/// Fails with the lines of `folder` in which `word` stands, outside the places where it may.
fn only_in(folder: &str, word: &str, allowed: &[&str]) {
    let mut offenders = Vec::new();
    for (name, text) in sources(folder) {
        if allowed.iter().any(|place| name.starts_with(place)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if !line.trim_start().starts_with("//") && line.contains(word) {
                offenders.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(offenders.is_empty(), "`{word}` may stand only in {allowed:?}:\n{}", offenders.join("\n"));
}

#[test]
fn only_raft_imports_openraft() {
    only_in("backend/src", "openraft::", &["backend/src/raft"]);
}

#[test]
fn only_the_clock_reads_time() {
    for word in ["Instant::now()", "SystemTime::now()", "Timestamp::now()"] {
        only_in("backend/src", word, &["backend/src/clock.rs"]);
        only_in("common/src", word, &[]);
    }
}

#[test]
fn the_core_is_pure() {
    for word in [
        "tokio",
        "std::fs",
        "std::net",
        "std::time::Instant",
        "crate::clock",
        "rand::",
        "HashMap",
        "HashSet",
        "async ",
    ] {
        only_in("backend/src/state", word, &[]);
    }
    for room in ["raft", "api", "controllers", "peer", "node", "telemetry", "demo", "cli"] {
        only_in("backend/src/state", &format!("crate::{room}"), &[]);
    }
}

#[test]
fn dependencies_point_one_way() {
    for (room, outer) in [
        ("raft", ["api", "controllers", "node::", "telemetry"]),
        ("demo", ["state", "raft", "controllers", "api"]),
        ("peer", ["api", "controllers", "raft", "state"]),
        ("journal", ["api", "controllers", "raft", "state"]),
        ("controllers", ["api", "node::", "cli", "demo"]),
        ("proxy", ["api", "controllers", "raft", "state"]),
    ] {
        for other in outer {
            only_in(&format!("backend/src/{room}"), &format!("crate::{other}"), &[]);
        }
    }
    // Clients see what is common, and nothing of the server; the server is no client of itself.
    only_in(
        "backend/src",
        "ringmaster_client",
        &["backend/src/cli", "backend/src/demo", "backend/src/node/join.rs"],
    );
    for other in ["state", "raft", "controllers", "api"] {
        only_in("backend/src/cli", &format!("crate::{other}"), &[]);
    }
}

#[test]
fn no_module_is_named_mod() {
    for folder in ["backend/src", "common/src", "clients/rust/src", "frontend/src", "tests"] {
        let offenders: Vec<_> = sources(folder)
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| name.ends_with("/mod.rs"))
            .collect();
        assert!(offenders.is_empty(), "name these after their folder: {offenders:?}");
    }
}
