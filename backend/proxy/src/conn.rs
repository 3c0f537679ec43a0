//! A client's connection: finds out which protocol it speaks, and serves it until it ends.
//!
//! One task serves a connection, on the thread of its worker. HTTP/1 and plain TCP need no further task; each stream
//! of HTTP/2 is one.

pub mod context;
pub mod http1;
pub mod http2;
pub mod tcp;
pub mod tunnel;

use crate::wire::proxy_protocol;
use context::WorkerContext;
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpStream;

/// `listener` is its address, or none for the node's own.
pub async fn serve(
    mut stream: TcpStream,
    mut peer: SocketAddr,
    listener: Option<Arc<str>>,
    context: Arc<WorkerContext>,
) {
    // A socket for both kinds of addresses has IPv4 addresses mapped into IPv6.
    peer.set_ip(peer.ip().to_canonical());
    let mut tcp = None;
    if listener.is_some() {
        let table = context.tables.load_full();
        let Some(routes) = table.listener(listener.as_deref()) else { return };
        tcp.clone_from(&routes.tcp);
        if routes.proxy_protocol {
            match proxy_protocol::read(&mut stream).await {
                Ok(client) => peer = client.unwrap_or(peer),
                Err(error) => {
                    return tracing::debug!(%peer, %error, "a connection without a PROXY protocol header");
                }
            }
        }
    }
    if let Some(route) = tcp {
        return tcp::serve(stream, peer, &route, &context).await;
    }
    let connection = http1::Http1Connection::new(stream, peer, listener.clone(), context.clone());
    if let Some(http2) = connection.serve().await {
        http2::serve(http2.stream, http2.received, peer, listener, context).await;
    }
}
