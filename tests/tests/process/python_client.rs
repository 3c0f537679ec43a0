//! The Python client: its own tests, which start real nodes, and its types.

use ringmaster_tests::process::{binary, python};
use std::{path::Path, process::Command};

/// Runs a module of Python in the client's folder, and leaves nothing behind there.
fn run(module: &str, arguments: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/python");
    let output = Command::new(python())
        .args(["-m", module])
        .args(arguments)
        .current_dir(folder)
        .env("RINGMASTER_BIN", binary())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{module} failed:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn its_tests_pass() {
    run("pytest", &["-q", "-p", "no:cacheprovider"]);
}

#[test]
fn its_types_hold() {
    run("mypy", &["--cache-dir=/dev/null"]);
}
