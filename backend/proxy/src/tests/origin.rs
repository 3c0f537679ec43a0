//! A small server to stand behind the proxy. Its paths say what it does.

use super::PATIENCE;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

pub struct Origin {
    pub name: String,
    pub addr: SocketAddr,
    pub seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
pub struct Seen {
    pub connections: AtomicUsize,
    pub requests: AtomicUsize,
    pub heads: Mutex<Vec<String>>,
    /// Answers health checks with 503.
    pub ill: AtomicBool,
    /// Requests to `/held` are answered once it notifies all waiters.
    pub release: Notify,
}

impl Origin {
    pub async fn start(name: &str) -> Origin {
        Origin::start_at(name, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    pub async fn start_at(name: &str, addr: SocketAddr) -> Origin {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(addr).unwrap();
        let listener = socket.listen(128).unwrap();
        let (addr, seen) = (listener.local_addr().unwrap(), Arc::<Seen>::default());
        let task = tokio::spawn(serve(listener, name.to_owned(), seen.clone()));
        Origin { name: name.to_owned(), addr, seen, task }
    }

    /// Ends it and all of its connections at once.
    pub fn kill(&self) {
        self.task.abort();
    }

    pub fn requests(&self) -> usize {
        self.seen.requests.load(Relaxed)
    }

    pub fn last_head(&self) -> String {
        self.seen.heads.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(listener: TcpListener, name: String, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Relaxed);
        connections.spawn(connection(stream, name.clone(), seen.clone()));
    }
}

async fn connection(mut stream: TcpStream, name: String, seen: Arc<Seen>) {
    let mut left = Vec::new();
    loop {
        let Some(head) = until(&mut stream, &mut left, b"\r\n\r\n").await else { return };
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if path == "/health" {
            let status = if seen.ill.load(Relaxed) { "503 Ill" } else { "200 OK" };
            let _ =
                stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
            continue;
        }
        seen.requests.fetch_add(1, Relaxed);
        seen.heads.lock().unwrap().push(head.clone());
        let header = |name: &str| {
            head.lines()
                .find_map(|line| line.split_once(": ").filter(|(known, _)| known.eq_ignore_ascii_case(name)))
                .map(|(_, value)| value)
        };
        if header("expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        }
        let mut body = Vec::new();
        if let Some(length) = header("content-length") {
            let length: usize = length.parse().unwrap();
            while left.len() < length {
                if !more(&mut stream, &mut left).await {
                    return;
                }
            }
            body = left.drain(..length).collect();
        } else if header("transfer-encoding").is_some() {
            match until(&mut stream, &mut left, b"0\r\n\r\n").await {
                Some(chunks) => body = chunks,
                None => return,
            }
        }
        let answer = match path.as_str() {
            "/chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n".to_owned(),
            "/until-close" => "HTTP/1.1 200 OK\r\n\r\nall of it".to_owned(),
            "/half" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
            "/half-chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_owned(),
            "/hang-up" => String::new(),
            "/slow-hang-up" => {
                tokio::time::sleep(Duration::from_millis(700)).await;
                String::new()
            }
            "/hints" => "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/never-final" => "HTTP/1.1 100\r\n\r\n".repeat(4_000),
            "/other-protocol" => "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n".to_owned(),
            "/nonsense" => "nonsense\r\n\r\n".to_owned(),
            "/two-lengths" => "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned(),
            "/too-much" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison".to_owned(),
            "/ws" => "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_owned(),
            "/503" => format!("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nx-origin: {name}\r\n\r\n"),
            "/big" => format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{}", "x".repeat(1_000_000)),
            _ => {
                if path == "/held" {
                    seen.release.notified().await;
                }
                if let Some(millis) = path.strip_prefix("/slow/") {
                    tokio::time::sleep(Duration::from_millis(millis.parse().unwrap())).await;
                }
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-origin: {name}\r\nkeep-alive: timeout=5\r\n\r\n{}",
                    body.len(),
                    String::from_utf8_lossy(&body)
                )
            }
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        match path.as_str() {
            "/until-close" | "/half" | "/half-chunked" | "/hang-up" | "/slow-hang-up" | "/nonsense" => return,
            "/ws" => {
                let _ = stream.write_all(&left).await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                return;
            }
            _ => {}
        }
    }
}

/// Everything up to `end`, and `end`.
async fn until(stream: &mut TcpStream, left: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = left.windows(end.len()).position(|window| window == end) {
            return Some(left.drain(..at + end.len()).collect());
        }
        if !more(stream, left).await {
            return None;
        }
    }
}

async fn more(stream: &mut TcpStream, left: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 4096];
    let read = tokio::time::timeout(6 * PATIENCE, stream.read(&mut bytes)).await;
    let count = read.ok().and_then(Result::ok).unwrap_or(0);
    left.extend_from_slice(&bytes[..count]);
    count > 0
}
