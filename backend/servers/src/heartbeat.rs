//! Heartbeats over plain TCP, for endpoints that speak no HTTP.
//!
//! An endpoint sends the line `heartbeat UPSTREAM ENDPOINT` as often as it likes on one connection, and gets `OK`, or
//! `ERR` and the reason. `heartbeat` alone is enough if the address of the connection is that of exactly one endpoint
//! whose upstream uses heartbeats. With two such endpoints it is refused, because one could keep the other alive. Like
//! the API, this listener has no authentication; expose it only on a trusted network.
//!
//! A connection on which no heartbeat was accepted yet is a newcomer. Newcomers have a share of the connections and
//! little time for their first line, so that strangers that say nothing keep no endpoint out.

use ringmaster_net::{
    accept::{self, WhenFull},
    fd_limit,
};
use ringmaster_proxy::Proxy;
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How many connections are served at a time, and at most how much of all file descriptors. Further ones are closed.
const MAX_CONNECTIONS: usize = 1024;
const SHARE_PERCENT: u64 = 10;
/// Long enough for two names of the maximum length.
const MAX_LINE: u64 = 512;
/// One newcomer to so many connections.
const NEWCOMERS_OF: usize = 4;
/// How long a connection may go without a whole line: at first ...
const FIRST_LINE_WITHIN: Duration = Duration::from_secs(10);
/// ... and later.
const MAX_SILENCE: Duration = Duration::from_secs(120);
/// How long a client may take to read a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Receives heartbeats for as long as the node runs.
pub async fn serve(listener: TcpListener, proxy: Proxy) {
    serve_connections(listener, proxy, fd_limit::connections(MAX_CONNECTIONS, SHARE_PERCENT, 1)).await;
}

async fn serve_connections(listener: TcpListener, proxy: Proxy, connections: usize) {
    let permits = Arc::new(Semaphore::new(connections));
    let newcomers = Arc::new(Semaphore::new(connections.div_ceil(NEWCOMERS_OF)));
    accept::run(&listener, permits, WhenFull::Close, |stream, peer| {
        let newcomer = Arc::clone(&newcomers).try_acquire_owned().ok();
        let (peer, proxy) = (peer.ip().to_canonical(), proxy.clone());
        async move {
            // Without a permit, the connection is closed here.
            if let Some(newcomer) = newcomer {
                connection(stream, peer, proxy, newcomer).await;
            }
        }
    })
    .await;
}

async fn connection(mut stream: TcpStream, peer: IpAddr, proxy: Proxy, newcomer: OwnedSemaphorePermit) {
    let (mut newcomer, mut silence) = (Some(newcomer), FIRST_LINE_WITHIN);
    let (read, mut write) = stream.split();
    let mut read = BufReader::with_capacity(MAX_LINE as usize, read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut read).take(MAX_LINE);
        let whole = match timeout(silence, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(1..)) => line.ends_with(b"\n"),
            Ok(Ok(0) | Err(_)) | Err(_) => return,
        };
        let result = match str::from_utf8(&line) {
            Ok(line) if whole => record(line, peer, &proxy),
            _ => Err(format!("a line is text of up to {MAX_LINE} bytes and ends with a line feed")),
        };
        silence = MAX_SILENCE;
        if result.is_ok() {
            drop(newcomer.take());
        }
        let response = result.map_or_else(|why| format!("ERR {why}\n"), |()| "OK\n".to_owned());
        let written = timeout(RESPONSE_TIMEOUT, write.write_all(response.as_bytes())).await;
        if !whole || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

fn record(line: &str, peer: IpAddr, proxy: &Proxy) -> Result<(), String> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    match words.as_slice() {
        ["heartbeat"] => proxy.heartbeat_from(peer),
        ["heartbeat", upstream, endpoint] if proxy.heartbeat(upstream, endpoint) => Ok(()),
        ["heartbeat", upstream, endpoint] => {
            Err(format!("no endpoint {endpoint:?} of an upstream {upstream:?} on this node"))
        }
        _ => Err("expected: heartbeat UPSTREAM ENDPOINT, or heartbeat alone".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::{
        id::NodeId,
        traffic::{health::HealthCheck, upstream::Upstream},
    };
    use ringmaster_net::supervisor::Supervisor;
    use ringmaster_proxy::Settings;
    use serde_json::json;
    use std::net::SocketAddr;
    use tokio::io::AsyncWrite;

    /// An upstream that uses heartbeats, with endpoints at these addresses.
    fn upstream(name: &str, addrs: &[&str]) -> Upstream {
        let endpoint = |(n, addr): (usize, &&str)| {
            json!({"id": format!("e{n}"), "addr": addr, "weight": 1, "state": "ready", "state_since": "1970-01-01T00:00:00Z",
                "health": {"verdict": "unknown", "since": null, "opinions": []}})
        };
        let endpoints: Vec<_> = addrs.iter().enumerate().map(endpoint).collect();
        let mut upstream: Upstream = serde_json::from_value(json!({
            "name": name, "endpoints": endpoints, "version": 1, "updated_at": "1970-01-01T00:00:00Z", "updated_by": "test"
        }))
        .expect("an upstream");
        upstream.config.health_check = Some(HealthCheck::Heartbeat { ttl_ms: 60_000 });
        upstream
    }

    /// Sends these lines, and returns the response to each.
    async fn responses_to(
        stream: &mut (impl AsyncWrite + Unpin + tokio::io::AsyncRead),
        lines: &str,
    ) -> Vec<String> {
        stream.write_all(lines.as_bytes()).await.unwrap();
        let mut answers = BufReader::new(stream).lines();
        let mut all = Vec::new();
        for _ in lines.lines() {
            let answer = timeout(RESPONSE_TIMEOUT, answers.next_line()).await.expect("an answer");
            all.push(answer.unwrap().unwrap_or_default());
        }
        all
    }

    /// A listener with so many connections.
    async fn serving(connections: usize) -> (SocketAddr, Proxy) {
        let settings =
            Settings { node: NodeId(1), listen: None, data_dir: None, workers: Some(1), connections: 100 };
        let proxy = Proxy::start(settings, &Supervisor::new()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(serve_connections(listener, proxy.clone(), connections));
        (addr, proxy)
    }

    #[tokio::test]
    async fn strangers_push_out_no_endpoint() {
        let (addr, proxy) = serving(8).await;
        let one = upstream("one", &["127.0.0.1:1"]);
        proxy.set_table([&one].into_iter(), [].into_iter());
        let mut endpoints = Vec::new();
        for _ in 0..4 {
            let mut endpoint = TcpStream::connect(addr).await.unwrap();
            assert_eq!(responses_to(&mut endpoint, "heartbeat one e0\n").await, ["OK"]);
            endpoints.push(endpoint);
        }
        let _silent = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
        let mut third = TcpStream::connect(addr).await.unwrap();
        let end = timeout(RESPONSE_TIMEOUT, third.read(&mut [0])).await.expect("it is closed at once");
        assert!(!matches!(end, Ok(1..)));
        for endpoint in &mut endpoints {
            assert_eq!(responses_to(endpoint, "heartbeat one e0\n").await, ["OK"]);
        }
    }

    #[tokio::test]
    async fn a_line_is_a_heartbeat() {
        let (addr, proxy) = serving(100).await;
        let (one, two) =
            (upstream("one", &["127.0.0.1:1", "127.0.0.2:1"]), upstream("two", &["127.0.0.1:2"]));
        proxy.set_table([&one].into_iter(), [].into_iter());
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let answers =
            responses_to(&mut stream, "heartbeat one e1\nheartbeat\r\nheartbeat one e7\nhello\n").await;
        assert_eq!(answers[..2], ["OK", "OK"]);
        assert!(answers[2].starts_with("ERR no endpoint \"e7\""), "{answers:?}");
        assert!(answers[3].starts_with("ERR expected: heartbeat"), "{answers:?}");
        let heard: Vec<_> =
            proxy.received_heartbeats().iter().map(|heartbeat| heartbeat.endpoint.clone()).collect();
        assert_eq!(heard, ["e0", "e1"], "one by its name, one by its address");
        // Two endpoints at one address: either could be meant.
        proxy.set_table([&one, &two].into_iter(), [].into_iter());
        let answers = responses_to(&mut stream, "heartbeat\nheartbeat two e0\n").await;
        assert!(answers[0].starts_with("ERR 2 endpoints"), "{answers:?}");
        assert_eq!(answers[1], "OK");
        let endless = "x".repeat(2 * MAX_LINE as usize);
        assert!(responses_to(&mut stream, &endless).await[0].starts_with("ERR a line is text"));
    }
}
