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

const LIMIT: Duration = Duration::from_secs(5);
const WORK: Duration = Duration::from_millis(300);

/// A server with so many connections. It counts the requests that it works on to their end.
async fn serving(connections: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let done = Arc::new(AtomicUsize::new(0));
    let work = |Extension(done): Extension<Arc<AtomicUsize>>,
                reserved: Option<Extension<Reserved>>,
                body: String| async move {
        if body == "wait" {
            sleep(LIMIT).await;
        } else if body == "work" {
            sleep(WORK).await;
        }
        done.fetch_add(1, Relaxed);
        if reserved.is_some() { "reserved" } else { "ordinary" }
    };
    let router = Router::new().route("/", post(work)).layer(Extension(done.clone()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        serve(listener, router, connections, stopping).await;
        drop(stop);
    });
    (addr, done)
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
    let (addr, _) = serving(2).await;
    let _held = [send(addr, "wait").await, send(addr, "wait").await];
    sleep(Duration::from_millis(100)).await;
    for _ in 0..2 * RESERVED_CONNECTIONS {
        let received = response(send(addr, "").await).await;
        assert!(received.ends_with("reserved"), "{received}");
        assert!(received.contains("connection: close"), "one answer each: {received}");
    }
}

#[tokio::test]
async fn silence_on_the_reserve_ends_soon() {
    let (addr, _) = serving(1).await;
    let _held = send(addr, "wait").await;
    sleep(Duration::from_millis(100)).await;
    let silent = TcpStream::connect(addr).await.unwrap();
    response(silent).await;
}

#[tokio::test]
async fn nothing_is_done_for_a_client_that_has_hung_up() {
    let (addr, done) = serving(8).await;
    // The request and its end arrive together.
    drop(send(addr, "work").await);
    // The request arrives, and the client hangs up while it is worked on.
    let stream = send(addr, "work").await;
    sleep(WORK / 3).await;
    drop(stream);
    sleep(2 * WORK).await;
    assert_eq!(done.load(Relaxed), 0);
}
