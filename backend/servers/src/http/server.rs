//! Serving connections, with bounds on how many there are and how long they take.
//!
//! A node that stops accepts no more connections, and closes each once its request in progress has its response. So
//! clients move to another node, and every client learns the outcome of its request.

use axum::{Router, extract::ConnectInfo};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use ringmaster_net::{
    accept::{self, WhenFull},
    fd_limit,
};
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

/// How many connections a node serves, and their share of the limit of files. Further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 8192;
const SHARE_PERCENT: u64 = 25;
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a head is read.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Serves until `stop` says so, and then until every connection has ended.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let connections = fd_limit::connections(MAX_CONNECTIONS, SHARE_PERCENT, 1);
    let permits = Arc::new(Semaphore::new(connections));
    let (stopping, accepting) = (stop.clone(), permits.clone());
    tokio::select! {
        () = accept::run(&listener, accepting, WhenFull::Wait, |socket, addr| {
            connection(socket, addr, router.clone(), stopping.clone())
        }) => {}
        () = stopped(&mut stop) => {}
    }
    drop(listener);
    let _all = permits.acquire_many(connections as u32).await;
}

async fn connection(socket: TcpStream, addr: SocketAddr, router: Router, mut stop: watch::Receiver<bool>) {
    // Small responses must not wait for more to send.
    let _ = socket.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(addr));
        router.call(request)
    });
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades()
    );
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stopped(&mut stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%addr, %error, "a connection ended early");
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender the node is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}
