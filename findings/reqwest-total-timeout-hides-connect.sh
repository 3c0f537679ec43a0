#!/usr/bin/env bash
# reqwest 0.13.5 (crates.io): a request whose connection is never established, and which ends by the client's *total*
# time-out, is not a connect error: `Error::is_connect()` is false. So a caller that treats "could not connect" as "the
# server cannot have seen the request" counts such a request as one that the server may have carried out. With
# `connect_timeout` the same request is a connect error.
#
# The peer is a listener whose queue of connections is full: Linux then drops further SYNs, as a firewall does.
#
# Output seen (Linux 6.x, Rust 1.95):
#   total time-out:   is_timeout=true is_connect=false
#   connect time-out: is_timeout=true is_connect=true
#
# Exits with 0 while that is so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "connect-or-not"
version = "0.0.0"
edition = "2024"

[dependencies]
reqwest = { version = "=0.13.5", default-features = false }
socket2 = "=0.6.5"
tokio = { version = "=1.54.1", features = ["macros", "rt"] }

[workspace]
TOML
cat >"$work/src/main.rs" <<'RUST'
use reqwest::ClientBuilder;
use socket2::{Domain, Socket, Type};
use std::{net::SocketAddr, time::Duration};

const WITHIN: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&addr);
        waiting.push(socket);
    }
    let url = format!("http://{}/", addr.as_socket().unwrap());
    let report = async |name: &str, client: ClientBuilder| {
        let error = client.no_proxy().build().unwrap().post(&url).send().await.unwrap_err();
        println!("{name} is_timeout={} is_connect={}", error.is_timeout(), error.is_connect());
    };
    report("total time-out:  ", ClientBuilder::new().timeout(WITHIN)).await;
    report("connect time-out:", ClientBuilder::new().connect_timeout(WITHIN)).await;
}
RUST
seen=$(cd "$work" && cargo run --quiet 2>/dev/null)
echo "$seen"
diff <(echo "$seen") - <<'EXPECTED'
total time-out:   is_timeout=true is_connect=false
connect time-out: is_timeout=true is_connect=true
EXPECTED
