//! The whole proxy, with real sockets: what clients see, and what endpoints do.

mod blame;
mod distrust;
mod endpoints;
mod http2;
mod http2_origin;
mod limits;
mod origin;
mod raw_http2_origin;
mod traffic;
mod transparency;
mod websockets;

use super::*;
use origin::Origin;
use ringmaster_common::traffic::health::Verdict;
use ringmaster_net::clock;
use std::{net::Ipv4Addr, sync::atomic::Ordering::Relaxed};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use upstream::tests::{route, upstream};
use wire::{proxy_protocol, websocket};

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy with one upstream, `u`, one route to it, and what a test changes.
struct Fixture {
    proxy: Proxy,
    addr: SocketAddr,
    upstream: Upstream,
    route: Route,
}

impl Fixture {
    async fn new(origins: &[&Origin]) -> Fixture {
        Fixture::with(origins, |_, _| {}).await
    }

    async fn with(origins: &[&Origin], change: impl FnOnce(&mut Upstream, &mut Route)) -> Fixture {
        let ids: Vec<_> = origins.iter().map(|origin| (origin.name.as_str(), 1)).collect();
        let mut upstream = upstream("u", &ids);
        for (endpoint, origin) in upstream.config.endpoints.iter_mut().zip(origins) {
            endpoint.addr = origin.addr.to_string();
        }
        let mut route = route("r", "/", "u");
        change(&mut upstream, &mut route);
        let addr = free_addr();
        let settings = Settings {
            node: NodeId(1),
            listen: Some(addr),
            data_dir: None,
            workers: Some(2),
            connections: 1000,
        };
        let proxy = Proxy::start(settings, &Supervisor::new()).unwrap();
        let fixture = Fixture { proxy, addr, upstream, route };
        fixture.apply();
        until("the proxy listens", || std::net::TcpStream::connect(addr).is_ok()).await;
        fixture
    }

    fn apply(&self) {
        self.proxy.set_table([&self.upstream].into_iter(), [&self.route].into_iter());
    }

    async fn connect(&self) -> Client {
        Client::to(self.addr).await
    }

    /// The metrics of the upstream, once they fit.
    async fn measured(&self, fits: impl Fn(&UpstreamMetrics) -> bool) -> UpstreamMetrics {
        let mut metrics = self.proxy.metrics();
        let fitting = metrics.wait_for(|metrics| metrics.iter().any(&fits));
        timeout(PATIENCE, fitting).await.expect("metrics fit in time").unwrap()[0].clone()
    }

    /// One request on a connection of its own.
    async fn get(&self, path: &str) -> Reply {
        self.connect().await.get(path).await
    }
}

fn free_addr() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !holds() {
        assert!(clock::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client that writes what it likes.
struct Client {
    stream: TcpStream,
    left: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(known, _)| known.eq_ignore_ascii_case(name)))
            .map(|(_, value)| value)
    }
}

impl Client {
    async fn to(addr: SocketAddr) -> Client {
        Client { stream: TcpStream::connect(addr).await.unwrap(), left: Vec::new() }
    }

    async fn send(&mut self, text: impl AsRef<[u8]>) {
        // A proxy that has refused already may not read any more.
        let _ = self.stream.write_all(text.as_ref()).await;
    }

    async fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        self.reply().await
    }

    async fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count =
            timeout(PATIENCE, self.stream.read(&mut bytes)).await.expect("something comes").unwrap_or(0);
        self.left.extend_from_slice(&bytes[..count]);
        count > 0
    }

    /// The head of the next response; none if the connection ended first.
    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.left.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.left.split_off(end + 4);
                return Some(String::from_utf8(std::mem::replace(&mut self.left, rest)).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn reply(&mut self) -> Reply {
        let head = self.head().await.expect("there is a response");
        let status = head[9..12].parse().unwrap();
        let mut reply = Reply { status, head, body: String::new() };
        if let Some(length) = reply.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.left.len() < length {
                assert!(self.more().await, "the body is whole");
            }
            let rest = self.left.split_off(length);
            reply.body = String::from_utf8(std::mem::replace(&mut self.left, rest)).unwrap();
        } else if reply.header("transfer-encoding").is_some() {
            while !self.left.ends_with(b"0\r\n\r\n") {
                assert!(self.more().await, "the body is whole");
            }
            reply.body = String::from_utf8(std::mem::take(&mut self.left)).unwrap();
        } else if reply.header("connection") == Some("close") {
            while self.more().await {}
            reply.body = String::from_utf8(std::mem::take(&mut self.left)).unwrap();
        }
        reply
    }

    /// Whether only the end follows.
    async fn is_closed(&mut self) -> bool {
        self.left.is_empty() && !self.more().await
    }
}
