//! A small server that speaks HTTP/2, to stand behind the proxy. Its paths say what it does.

use super::origin::Seen;
use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use hyper::{HeaderMap, Request, Response};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet};

pub struct Http2Origin {
    pub addr: SocketAddr,
    pub seen: Arc<Seen>,
    /// Requests that wait for ever, less those that were cancelled.
    pub waiting: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Http2Origin {
    pub async fn start() -> Http2Origin {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (addr, seen, waiting) = (listener.local_addr().unwrap(), Arc::<Seen>::default(), Arc::default());
        let task = tokio::spawn(serve(listener, seen.clone(), Arc::clone(&waiting)));
        Http2Origin { addr, seen, waiting, task }
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

/// Counts a request for as long as it waits, also if it ends with its connection.
struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn new(waiting: Arc<AtomicUsize>) -> Waits {
        waiting.fetch_add(1, SeqCst);
        Waits(waiting)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Drop for Http2Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(listener: TcpListener, seen: Arc<Seen>, waiting: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Relaxed);
        let (seen, waiting) = (seen.clone(), waiting.clone());
        connections.spawn(async move {
            let mut builder = h2::server::Builder::new();
            // Requests that are cancelled before they are accepted would end the connection, and with it all others.
            builder.max_pending_accept_reset_streams(10_000);
            let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
            let mut streams = JoinSet::new();
            while let Some(Ok((request, respond))) = connection.accept().await {
                if request.uri().path() == "/last" {
                    connection.graceful_shutdown();
                }
                streams.spawn(answer(request, respond, seen.clone(), waiting.clone()));
            }
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    seen: Arc<Seen>,
    waiting: Arc<AtomicUsize>,
) {
    let (parts, mut body) = request.into_parts();
    if parts.uri.path() == "/health" {
        let _ = respond.send_response(Response::new(()), true);
        return;
    }
    seen.requests.fetch_add(1, Relaxed);
    let head: Vec<_> = parts.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    let head = format!("{} {}\n{}", parts.method, parts.uri, head.join("\n"));
    seen.heads.lock().unwrap().push(head);
    match parts.uri.path() {
        // Once it has all of the body.
        "/refuse-once" if seen.requests.load(Relaxed) == 1 => {
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            respond.send_reset(Reason::REFUSED_STREAM);
        }
        "/refuse" => respond.send_reset(Reason::REFUSED_STREAM),
        "/reset" => respond.send_reset(Reason::INTERNAL_ERROR),
        // As gRPC does where there is nothing but a status.
        "/bare" => {
            let answer = Response::builder().header("grpc-status", "5").body(()).unwrap();
            let _ = respond.send_response(answer, true);
        }
        // A body where none is allowed, and one that looks like an answer.
        "/poison" => {
            let answer = Response::builder().status(204).body(()).unwrap();
            let mut stream = respond.send_response(answer, false).unwrap();
            stream.send_data("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison".into(), true).unwrap();
        }
        // Before it has any of the body.
        "/early" => {
            let answer = Response::builder().header("content-length", "5").body(()).unwrap();
            let mut stream = respond.send_response(answer, false).unwrap();
            stream.send_data("early".into(), true).unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
            }
        }
        "/wait" => {
            let _waits = Waits::new(waiting);
            let _ = std::future::poll_fn(|context| respond.poll_reset(context)).await;
        }
        "/half" => {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data("half".into(), false).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let _ = respond.send_response(Response::new(()), true);
        }
        _ => {
            // Everything comes back at once, as it comes, and then trailers.
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                super::http2::send(&mut stream, data).await;
            }
            let asked = body.trailers().await.unwrap().unwrap_or_default();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            if let Some(value) = asked.get("x-asked") {
                trailers.insert("x-asked", value.clone());
            }
            let _ = stream.send_trailers(trailers);
        }
    }
}
