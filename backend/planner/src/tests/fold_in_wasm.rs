//! The fold as the browser runs it: compiled to WebAssembly and run by a JavaScript engine.
//!
//! Random histories and the server's views of them are written to a file; the module of `tests/fold` folds the
//! same events and compares. It needs Node.js and the target `wasm32-unknown-unknown`.

use super::properties::{body, next};
use proptest::{
    collection::vec,
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use ringmaster_cluster::{Entry, State, view::view};
use serde_json::{Value, json};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "wasm32-unknown-unknown";
const HISTORIES: usize = 24;
const MAX_ENTRIES: usize = 60;
/// Flags of the build of this test, which are not for the nested one.
const OUTER_ENVIRONMENT: &[&str] = &[
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

#[test]
fn the_fold_in_webassembly_equals_the_view() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // The test runs as <target>/<profile>/deps/<name>.
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().join("wasm-fold");
    let module = compile(&workspace, &target);

    let mut runner = TestRunner::default();
    let histories: Vec<Value> = (0..HISTORIES).map(|_| history(&mut runner)).collect();
    let file = target.join("histories.json");
    fs::write(&file, serde_json::to_vec(&histories).unwrap()).unwrap();

    let script = workspace.join("tests/fold/check.mjs");
    let output = Command::new("node").arg(script).arg(module).arg(&file).output();
    let output = output.expect("Node.js runs the fold; install it (Debian: apt-get install nodejs)");
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{error}\nthe histories are in {}", file.display());
    println!("{said}");
}

/// Compiles the fold to WebAssembly and says where it is.
fn compile(workspace: &Path, target: &Path) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--quiet", "--package", "ringmaster-fold", "--profile", "wasm-quick"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target);
    for variable in OUTER_ENVIRONMENT {
        cargo.env_remove(variable);
    }
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join(TARGET).join("wasm-quick/ringmaster_fold.wasm")
}

/// A random history: each batch of events, with the server's view after it.
fn history(runner: &mut TestRunner) -> Value {
    let entries = vec(next(), 1..MAX_ENTRIES).new_tree(runner).unwrap().current();
    let mut state = State::default();
    let mut steps = Vec::new();
    for entry in entries {
        let entry = Entry { index: state.revision.0 + 1, body: body(&state, entry) };
        if let Some(batch) = state.apply(entry).batch {
            steps.push(json!({ "batch": batch, "view": view(&state) }));
        }
    }
    json!({ "steps": steps })
}
