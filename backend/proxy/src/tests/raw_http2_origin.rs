//! An endpoint that speaks HTTP/2 frame by frame, because what it does no library does: it serves a number of requests on
//! each connection, and then closes it over the requests that are on their way.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PREFACE_LEN: usize = 24;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const HEADERS: u8 = 1;
const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` in HPACK's static table.
const STATUS_200: u8 = 0x88;

/// How a connection ends after its last request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// With the last stream that was served, as nginx does after `keepalive_requests`.
    GoAway,
    /// Without a word, as hypercorn does after its idle time.
    None,
}

pub struct RawHttp2Origin {
    pub addr: SocketAddr,
    pub served: Arc<AtomicUsize>,
    pub connections: Arc<AtomicUsize>,
}

impl RawHttp2Origin {
    pub async fn start(requests_per_connection: usize, farewell: Farewell) -> RawHttp2Origin {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (served, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let origin = RawHttp2Origin { addr, served: served.clone(), connections: connections.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Relaxed);
                let left = requests_per_connection;
                let connection = Connection { stream, farewell, last: 0, left, open: 0, is_leaving: false };
                tokio::spawn(connection.serve(served.clone()));
            }
        });
        origin
    }
}

struct Connection {
    stream: TcpStream,
    farewell: Farewell,
    /// The last stream that is served.
    last: u32,
    /// How many further streams are served.
    left: usize,
    /// How many streams were begun that are served.
    open: usize,
    is_leaving: bool,
}

impl Connection {
    /// Ends with the connection.
    async fn serve(mut self, served: Arc<AtomicUsize>) -> Option<()> {
        self.stream.read_exact(&mut [0; PREFACE_LEN]).await.ok()?;
        self.send(SETTINGS, 0, 0, &[]).await?;
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes(stream);
            if kind == HEADERS && self.left > 0 {
                (self.last, self.left, self.open) = (stream, self.left - 1, self.open + 1);
            } else if kind == HEADERS && self.farewell == Farewell::None {
                return None;
            } else if kind == HEADERS && !self.is_leaving {
                self.is_leaving = true;
                let last = self.last.to_be_bytes();
                self.send(GOAWAY, 0, 0, &[&last[..], &[0; 4]].concat()).await?;
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 && stream <= self.last {
                self.open -= 1;
                served.fetch_add(1, Relaxed);
                self.send(HEADERS, END_STREAM | END_HEADERS, stream, &[STATUS_200]).await?;
            } else if kind == SETTINGS && flags == 0 {
                self.send(SETTINGS, 1, 0, &[]).await?;
            }
            if self.is_leaving && self.open == 0 {
                // What is still on its way is read, so that all frames arrive.
                self.stream.shutdown().await.ok()?;
                tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await.ok()?;
                return None;
            }
        }
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Option<()> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.stream.write_all(&[&head, payload].concat()).await.ok()
    }
}
