use super::*;
use axum::{Extension, routing::post};
use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

/// Longer than the time for a head on the reserve, and shorter than that on other connections.
const LIMIT: Duration = Duration::from_secs(8);

/// Requests that a server works on.
#[derive(Default)]
struct Work {
    begun: AtomicUsize,
    /// Work that was dropped before its end.
    dropped: AtomicUsize,
}

impl Work {
    async fn begins(&self, count: usize) {
        let begun = async {
            while self.begun.load(Relaxed) < count {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LIMIT, begun).await.expect("it is worked on");
    }
}

/// Counts its work as dropped, unless it came to its end.
struct Unfinished(Arc<Work>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Relaxed);
    }
}

struct Serving {
    addr: SocketAddr,
    work: Arc<Work>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

/// A server with so many connections. The request `wait` never ends.
async fn serving(connections: usize) -> Serving {
    let shared = Arc::<Work>::default();
    let work = |Extension(work): Extension<Arc<Work>>,
                reserved: Option<Extension<Reserved>>,
                body: String| async move {
        work.begun.fetch_add(1, Relaxed);
        let unfinished = Unfinished(work.clone());
        if body == "wait" {
            std::future::pending::<()>().await;
        }
        std::mem::forget(unfinished);
        if reserved.is_some() { "reserved" } else { "ordinary" }
    };
    let router = Router::new().route("/", post(work)).layer(Extension(shared.clone()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(serve(listener, router, connections, stopping));
    Serving { addr, work: shared, stop, task }
}

async fn send(addr: SocketAddr, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let length = body.len();
    let request = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn response(mut stream: TcpStream) -> String {
    let mut received = String::new();
    timeout(LIMIT, stream.read_to_string(&mut received)).await.expect("the connection is closed").unwrap();
    received
}

#[tokio::test]
async fn beyond_its_connections_a_server_answers_on_a_reserve() {
    let server = serving(2).await;
    let addr = server.addr;
    let _held = [send(addr, "wait").await, send(addr, "wait").await];
    server.work.begins(2).await;
    for _ in 0..2 * RESERVED_CONNECTIONS {
        let received = response(send(addr, "").await).await;
        assert!(received.ends_with("reserved"), "{received}");
        assert!(received.contains("connection: close"), "one answer each: {received}");
    }
}

#[tokio::test]
async fn silence_on_the_reserve_ends_soon() {
    let server = serving(1).await;
    let _held = send(server.addr, "wait").await;
    server.work.begins(1).await;
    let silent = TcpStream::connect(server.addr).await.unwrap();
    response(silent).await;
}

#[tokio::test]
async fn nothing_is_done_for_a_client_that_has_hung_up() {
    let Serving { addr, work, stop, task } = serving(8).await;
    // The client hangs up while its request is worked on.
    let stream = send(addr, "wait").await;
    work.begins(1).await;
    drop(stream);
    // The request and its end arrive together.
    drop(send(addr, "wait").await);
    // The server waits for requests that it works on.
    stop.send_replace(true);
    timeout(LIMIT, task).await.expect("no request is left").unwrap();
    assert_eq!(work.dropped.load(Relaxed), work.begun.load(Relaxed));
}
