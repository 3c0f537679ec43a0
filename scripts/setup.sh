# Sourced by the other scripts: the phases that they go through, and the tools that must be on the machine.

say() { printf '\033[1m▸ %s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Announces the next phase, with the time that it took last time, and notes the time of the one before.
# Times are kept in the target directory, by script.
phase_number=0
phase() {
    end_phase
    local times="${CARGO_TARGET_DIR:-target}/phases/$(basename "$0")" last=
    mkdir -p "$times"
    phase_number=$((phase_number + 1))
    phase_file="$times/$phase_number"
    phase_began=$SECONDS
    [ -f "$phase_file" ] && last=" (last time: $(duration "$(cat "$phase_file")"))"
    say "$phase_number/$phases $1$last"
}

end_phase() {
    [ "$phase_number" -eq 0 ] && return
    echo $((SECONDS - phase_began)) >"$phase_file"
    printf '  took %s\n' "$(duration $((SECONDS - phase_began)))" >&2
}

duration() {
    if [ "$1" -lt 60 ]; then echo "$1 s"; else echo "$(($1 / 60)) min $(($1 % 60)) s"; fi
}

# The Rust toolchain of rust-toolchain.toml, with the dashboard's target.
need_rust() {
    local target=wasm32-unknown-unknown
    command -v cargo >/dev/null || { [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"; }
    command -v cargo >/dev/null || fail "cargo is not installed; install Rust with rustup (https://rustup.rs)"
    command -v cc >/dev/null || fail "no C compiler is installed; install one (Debian: apt-get install build-essential)"
    if command -v rustup >/dev/null; then
        # rustup may be configured not to install what rust-toolchain.toml names.
        cargo --version >/dev/null 2>&1 || { say "Installing the Rust toolchain"; rustup toolchain install; }
        rustup target list --installed | grep -qx $target || {
            say "Adding the target $target, for the dashboard"
            rustup target add $target || fail "the target $target cannot be added; the dashboard needs it"
        }
    elif [ ! -d "$(rustc --print target-libdir --target $target 2>/dev/null)" ]; then
        fail "the Rust target $target is not installed; the dashboard needs it (with rustup: rustup target add $target)"
    fi
}

# Begins to compile the dashboard in the background. The build of the server does it as well, but late, and then waits for
# it on one core. It uses what it finds finished, and reports errors.
compile_dashboard() {
    cargo build --quiet --locked --package ringmaster-frontend --profile wasm --target wasm32-unknown-unknown \
        --target-dir "${CARGO_TARGET_DIR:-target}/wasm" 2>/dev/null &
    trap "kill $! 2>/dev/null || true" EXIT
}

# Components that only checks need.
need_component() {
    cargo "$2" --version >/dev/null 2>&1 || { say "Adding $1"; rustup component add "$1"; }
}

# Installs a Debian package; the second argument names its purpose.
install() {
    say "$1 is missing; installing it for $2"
    local sudo=
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    command -v apt-get >/dev/null || fail "install $1 by hand; this script only uses apt-get"
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

# Node.js runs the fold of the dashboard as WebAssembly.
need_node() {
    command -v node >/dev/null || install nodejs "the test of the fold"
}

# strace kills a node at an fsync.
need_strace() {
    command -v strace >/dev/null || install strace "the tests of crash points"
}

# libfaketime makes the clock of a single process jump.
need_faketime() {
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || install faketime "the tests of locks"
}

# Python and the packages that the tests of its client need, in a virtual environment.
need_python() {
    local home="${CARGO_TARGET_DIR:-target}/python"
    command -v python3 >/dev/null || install python3 "the tests of the Python client"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "the Python client needs Python 3.11 or later"
    python3 -c 'import ensurepip' 2>/dev/null || install python3-venv "the tests of the Python client"
    [ "$home/ready" -nt clients/python/pyproject.toml ] && return
    say "Installing the packages of the Python client's tests"
    python3 -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check --editable "clients/python[test]"
    touch "$home/ready"
}

# The test runner. Where it is missing, it is built from crates.io, which takes a few minutes.
need_nextest() {
    cargo nextest --version >/dev/null 2>&1 || {
        say "Installing cargo-nextest, the test runner"
        cargo install cargo-nextest --locked --version 0.9.143
    }
}
