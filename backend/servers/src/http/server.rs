//! Serving connections, with bounds on how many there are and how long they take.
//!
//! Beyond the connections that a node serves, it serves a few more: the reserve. There, only probes, operators and lock
//! holders are answered, once on each connection and soon, so that connections that are held for long or kept busy hide
//! a node neither from its supervisor nor from its operator.
//!
//! A client whose machine or network is gone is noticed by TCP, so that it neither holds a connection nor waits for a
//! lock. A client that is only paused keeps its connection: its machine answers for it.
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
use socket2::{SockRef, TcpKeepalive};
use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

/// How many connections a node serves, and their share of the limit of files. Further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 8192;
const SHARE_PERCENT: u64 = 25;
/// Connections beyond these, for probes, operators and lock holders.
const RESERVED_CONNECTIONS: usize = 32;
/// How long a client may take to send the head of a request ...
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// ... and on a connection of the reserve.
const RESERVED_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may be silent before TCP asks whether its client is there, and how often it asks.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a client may leave data unacknowledged, or unread once the buffers between are full, or not answer TCP.
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(15);
/// How much of a head is read.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Stands among the extensions of a request on a connection of the reserve.
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    /// How many connections there are beside the reserve.
    pub connections: usize,
}

/// How many connections a node serves, the reserve apart.
pub fn connections() -> usize {
    fd_limit::connections(MAX_CONNECTIONS, SHARE_PERCENT, 1)
}

/// Serves until `stop` says so, and then until every connection has ended.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: usize,
    mut stop: watch::Receiver<bool>,
) {
    let ordinary = Arc::new(Semaphore::new(connections));
    let all = connections + RESERVED_CONNECTIONS;
    let permits = Arc::new(Semaphore::new(all));
    let (stopping, accepting) = (stop.clone(), permits.clone());
    tokio::select! {
        () = accept::run(&listener, accepting, WhenFull::Wait, |socket, addr| {
            let ordinary = Arc::clone(&ordinary).try_acquire_owned().ok();
            let reserved = ordinary.is_none().then_some(Reserved { connections });
            let served = connection(socket, addr, router.clone(), reserved, stopping.clone());
            async move {
                served.await;
                drop(ordinary);
            }
        }) => {}
        () = stopped(&mut stop) => {}
    }
    drop(listener);
    let _all = permits.acquire_many(all as u32).await;
}

async fn connection(
    socket: TcpStream,
    addr: SocketAddr,
    router: Router,
    reserved: Option<Reserved>,
    mut stop: watch::Receiver<bool>,
) {
    if let Err(error) = set_options(&socket) {
        tracing::debug!(%addr, %error, "cannot set the options of a connection");
    }
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(addr));
        if let Some(reserved) = reserved {
            request.extensions_mut().insert(reserved);
        }
        router.call(request)
    });
    let head_timeout = if reserved.is_some() { RESERVED_HEAD_TIMEOUT } else { HEAD_TIMEOUT };
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .keep_alive(reserved.is_none())
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

fn set_options(socket: &TcpStream) -> io::Result<()> {
    // Small responses must not wait for more to send.
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_INTERVAL).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_LIMIT))
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender the node is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;
