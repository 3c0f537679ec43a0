//! Service discovery by DNS: the eligible endpoints of an upstream, as names and addresses, over UDP and TCP.
//!
//! `_NAME._tcp.ringmaster.` has the SRV records of an upstream, `NAME.upstream.ringmaster.` the addresses of its
//! endpoints, and `ENDPOINT.NAME.upstream.ringmaster.` those of one endpoint, to which SRV records point. The records
//! are the endpoints that this node's proxy would choose from now, so their TTL is short, and they need no quorum. Their
//! order is random, and so are those that fit into a truncated response.
//! Deliberately absent: recursion, other zones, and addresses of endpoints that are configured by host name; SRV records
//! name that host.

mod answer;
mod zone;

use ringmaster_net::{
    accept::{self, WhenFull},
    fd_limit,
};
use ringmaster_proxy::Proxy;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};
use zone::Zone;

/// The longest query that is read.
const MAX_QUERY: usize = 1 << 10;
/// How many connections are served at a time, and at most how much of all file descriptors. Further ones are closed.
const MAX_CONNECTIONS: usize = 128;
const SHARE_PERCENT: u64 = 2;
/// How long a client may take for its next query, or to read a response.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after an error of the UDP socket.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers queries for as long as the node runs.
pub async fn serve(udp: UdpSocket, tcp: TcpListener, proxy: Proxy) {
    let zone =
        Zone { server: udp.local_addr().ok().as_ref().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()) };
    tokio::join!(serve_udp(udp, zone, &proxy), serve_tcp(tcp, zone, &proxy));
}

async fn serve_udp(socket: UdpSocket, zone: Zone, proxy: &Proxy) {
    let mut query = [0; MAX_QUERY];
    loop {
        match socket.recv_from(&mut query).await {
            Ok((len, client)) => {
                let find = |name: &str| proxy.discover(name);
                if let Some(response) = answer::answer(&query[..len], answer::Over::Udp, zone, find) {
                    // A client whose response is lost asks again.
                    let _ = socket.send_to(&response, client).await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot receive a DNS query");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Zone, proxy: &Proxy) {
    let permits = Arc::new(Semaphore::new(fd_limit::connections(MAX_CONNECTIONS, SHARE_PERCENT, 1)));
    accept::run(&listener, permits, WhenFull::Close, |stream, _| {
        let proxy = proxy.clone();
        async move {
            // A client whose connection fails asks again.
            let _ = connection(stream, zone, &proxy).await;
        }
    })
    .await;
}

async fn connection(mut stream: TcpStream, zone: Zone, proxy: &Proxy) -> io::Result<()> {
    let mut query = [0; MAX_QUERY];
    loop {
        let reading = async {
            let len = usize::from(stream.read_u16().await?);
            let query = query.get_mut(..len).ok_or(io::ErrorKind::InvalidData)?;
            stream.read_exact(query).await?;
            io::Result::Ok(len)
        };
        let len = timeout(TIMEOUT, reading).await??;
        let find = |name: &str| proxy.discover(name);
        let Some(response) = answer::answer(&query[..len], answer::Over::Tcp, zone, find) else {
            return Ok(());
        };
        let len = u16::try_from(response.len()).map_err(io::Error::other)?;
        let framed = [&len.to_be_bytes()[..], &response].concat();
        timeout(TIMEOUT, stream.write_all(&framed)).await??;
    }
}

#[cfg(test)]
mod tests;
