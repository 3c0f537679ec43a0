# Sourced by the other scripts: what must be on the machine before anything is built.

say() { printf '\033[1m▸ %s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The Rust toolchain of rust-toolchain.toml, with the dashboard's target.
need_rust() {
    command -v cargo >/dev/null || { [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"; }
    command -v cargo >/dev/null || fail "cargo is not here; install Rust with rustup (https://rustup.rs)"
    command -v cc >/dev/null || fail "there is no C compiler; install one (Debian: apt-get install build-essential)"
    if command -v rustup >/dev/null; then
        # Where rustup does not install by itself what rust-toolchain.toml names, this does.
        cargo --version >/dev/null 2>&1 || { say "Installing the Rust toolchain"; rustup toolchain install; }
        rustup target list --installed | grep -qx wasm32-unknown-unknown || {
            say "Adding the target wasm32-unknown-unknown, for the dashboard"
            rustup target add wasm32-unknown-unknown
        }
    fi
}

# Components that only checks need.
need_component() {
    cargo "$2" --version >/dev/null 2>&1 || { say "Adding $1"; rustup component add "$1"; }
}

# A package of Debian's, and what it is for.
install() {
    say "$1 is missing; installing it for $2"
    local sudo=
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    command -v apt-get >/dev/null || fail "install $1 by hand; this script knows apt-get alone"
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq "$1" >/dev/null
}

# A browser for the tests of the dashboard.
need_chromium() {
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null && return
    done
    install chromium "the browser tests"
}

# What kills a node at an fsync.
need_strace() {
    command -v strace >/dev/null || install strace "the tests of crash points"
}

# What has the clocks of single processes jump.
need_faketime() {
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || install faketime "the tests of locks"
}

# Python with what the tests of its client need, in an environment of its own.
need_python() {
    local home="${CARGO_TARGET_DIR:-target}/python"
    command -v python3 >/dev/null || install python3 "the tests of the Python client"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "the Python client needs Python 3.11 or later"
    python3 -c 'import ensurepip' 2>/dev/null || install python3-venv "the tests of the Python client"
    [ "$home/ready" -nt clients/python/pyproject.toml ] && return
    say "Installing what the tests of the Python client need"
    python3 -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check --editable "clients/python[test]"
    touch "$home/ready"
}

# The test runner. It comes from crates.io where it is missing, which takes a few minutes to build.
need_nextest() {
    cargo nextest --version >/dev/null 2>&1 || {
        say "Installing cargo-nextest, the test runner"
        cargo install cargo-nextest --locked --version 0.9.143
    }
}
