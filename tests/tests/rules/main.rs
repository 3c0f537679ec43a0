//! Rules of this repository that neither the compiler, Cargo nor clippy keeps.
//!
//! Cargo keeps circles out of the crates, `clippy.toml` keeps the reading of time in one file. What is left is here: in
//! which direction crates may depend on each other, how long a file may be, and that no modules of a crate import each
//! other in a circle.

mod imports;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The crates of the server, from the bottom up: each may depend on those before it alone.
const CRATES: [&str; 15] = [
    "net",
    "storage",
    "peer",
    "proxy",
    "replication",
    "cluster",
    "planner",
    "cluster_group",
    "telemetry",
    "metrics",
    "controllers",
    "services",
    "dashboard",
    "servers",
    "",
];

/// The most lines of a file.
const MAX_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}

/// The folder of a crate of the server.
fn folder(krate: &str) -> String {
    format!("backend/{krate}").trim_end_matches('/').to_owned()
}

/// The files below a folder with one of these extensions, by their path from the root of the repository.
fn files(folder: &str, extensions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if path.is_dir() {
                folders.push(path);
            } else if extensions.contains(&extension) {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("a text file")));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has files");
    found.sort();
    found
}

/// Fails with the lines of Rust below `folder` in which `word` stands, outside the places where it may.
fn only_in(folder: &str, word: &str, allowed: &[&str]) {
    let mut offenders = Vec::new();
    for (name, text) in files(folder, &["rs"]) {
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

/// The dependencies of a crate of the server, those of its tests included.
fn dependencies(krate: &str) -> BTreeSet<String> {
    let path = root().join(folder(krate)).join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut found = BTreeSet::new();
    let mut listed = false;
    for line in text.lines() {
        if line.starts_with('[') {
            listed = line.ends_with("dependencies]");
        } else if listed
            && let Some(name) = line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty())
        {
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
fn crates_depend_downwards() {
    let folders = fs::read_dir(root().join("backend")).expect("a folder");
    let folders = folders.map(|entry| entry.expect("an entry").path());
    let unlisted: Vec<_> = folders
        .filter(|folder| folder.join("Cargo.toml").exists())
        .filter(|folder| !CRATES.iter().any(|krate| folder.ends_with(krate) && !krate.is_empty()))
        .collect();
    assert!(unlisted.is_empty(), "give these crates a place in the order: {unlisted:?}");
    for (place, krate) in CRATES.into_iter().enumerate() {
        let of_the_server = dependencies(krate).into_iter();
        let upwards: Vec<_> = of_the_server
            .filter_map(|name| name.strip_prefix("ringmaster-").map(|name| name.replace('-', "_")))
            .filter(|name| CRATES[place..].contains(&name.as_str()))
            .collect();
        assert!(upwards.is_empty(), "backend/{krate} depends upwards, on {upwards:?}");
    }
}

#[test]
fn only_replication_depends_on_openraft() {
    let users: Vec<_> = CRATES.into_iter().filter(|krate| dependencies(krate).contains("openraft")).collect();
    assert_eq!(users, ["replication"]);
}

/// The state and its planner compute: no clock, no randomness, no file, no socket, and nothing whose order differs
/// from node to node.
#[test]
fn the_state_is_pure() {
    for krate in ["cluster", "planner"] {
        let others = ["ringmaster-common", "ringmaster-cluster"];
        let impure = dependencies(krate).into_iter().filter(|name| !others.contains(&name.as_str()));
        let impure: Vec<_> = impure.filter(|name| name.starts_with("ringmaster-")).collect();
        assert!(impure.is_empty(), "backend/{krate} depends on {impure:?}");
        for word in ["tokio", "std::fs", "std::net", "Instant", "rand::", "HashMap", "HashSet", "async "] {
            only_in(&folder(krate), word, &[]);
        }
    }
}

/// The server is no client of itself; the command line is nothing but a client, except for `recover`, which works on the
/// data directory of a node that does not run.
#[test]
fn only_the_command_line_is_a_client() {
    for krate in CRATES.into_iter().filter(|krate| !krate.is_empty()) {
        assert!(!dependencies(krate).contains("ringmaster-client"), "backend/{krate} is a client");
    }
    let clients = ["backend/src/cli", "backend/src/demo", "backend/src/node/join.rs"];
    only_in("backend/src", "ringmaster_client", &clients);
    for state in ["ringmaster_cluster", "ringmaster_replication"] {
        only_in("backend/src/cli", state, &["backend/src/cli/recover"]);
    }
}

#[test]
fn no_module_is_named_mod() {
    for folder in ["backend", "common", "clients/rust", "frontend", "tests", "bench"] {
        let named: Vec<_> = files(folder, &["rs"])
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| name.ends_with("/mod.rs"))
            .collect();
        assert!(named.is_empty(), "name these after their folder: {named:?}");
    }
}

#[test]
fn no_file_is_too_long() {
    let mut too_long = Vec::new();
    for folder in ["backend", "common", "clients", "frontend", "tests", "bench"] {
        for (name, text) in files(folder, &["rs", "py", "js", "css"]) {
            let lines = text.lines().count();
            if lines > MAX_LINES {
                too_long.push(format!("{name}: {lines}"));
            }
        }
    }
    assert!(too_long.is_empty(), "split what has more than {MAX_LINES} lines: {too_long:#?}");
}
