//! Serving connections, with bounds on how many there are and how long they take.

use crate::api::{REQUEST_TIMEOUT, problem::Refused};
use axum::{
    Router,
    extract::{ConnectInfo, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use ringmaster_common::error::Code;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// How many connections a node serves. Further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 8192;
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a head is read.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long to wait before accepting again after an error, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub async fn serve(listener: TcpListener, router: Router) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((socket, addr)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(socket, addr, router).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, addr: SocketAddr, router: Router) {
    // Small answers must not wait for more to send.
    let _ = socket.set_nodelay(true);
    let service = TowerToHyperService::new(router.layer(axum::Extension(ConnectInfo(addr))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%addr, %error, "a connection ended early");
    }
}

/// Gives a request up that takes too long. Who waits for a lock says for how long.
pub async fn in_time(request: Request, next: Next) -> Response {
    if request.uri().path() == "/v1/locks/acquire" {
        return next.run(request).await;
    }
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refused::new(
            Code::RequestTimeout,
            format!("the request was not answered within {} s", REQUEST_TIMEOUT.as_secs()),
        )
        .into_response(),
    }
}
