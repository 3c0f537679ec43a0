//! Serving connections, with bounds on how many there are and how long they take.
//!
//! A node that stops takes no more of them, and ends each when what is under way on it is answered. Its
//! clients turn to another node then, and none is left wondering what became of its request.

use crate::http::{REQUEST_TIMEOUT, problem::Refused};
use axum::{
    Router,
    extract::{ConnectInfo, Request},
    response::{IntoResponse, Response},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use ringmaster_common::error::Code;
use ringmaster_net::{
    accept::{self, WhenFull},
    fd_limit,
};
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};

/// How many connections a node serves, and how much of all that there can be. Further ones wait to be accepted.
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
    // Small answers must not wait for more to send.
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
    // Whoever could say so is gone with the node.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// How long a request may take. Who waits for a lock says so in it.
pub fn patience(request: &Request) -> Option<Duration> {
    (request.uri().path() != "/v1/locks/acquire").then_some(REQUEST_TIMEOUT)
}

/// Gives a request up that takes too long.
pub async fn within(patience: Option<Duration>, answer: impl Future<Output = Response>) -> Response {
    let Some(patience) = patience else { return answer.await };
    timeout(patience, answer).await.unwrap_or_else(|_| {
        let why = format!("the request was not answered within {} s", patience.as_secs());
        Refused::new(Code::RequestTimeout, why).into_response()
    })
}
