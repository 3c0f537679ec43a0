//! Discovery by DNS: who takes requests of an upstream, as names and addresses, over UDP and TCP.
//!
//! `_NAME._tcp.ringmaster.` has the SRV records of an upstream, `NAME.upstream.ringmaster.` the addresses of its
//! endpoints, and `ENDPOINT.NAME.upstream.ringmaster.` those of one of them, to which SRV records point. The answer is
//! what this node's proxy would choose from at the moment, so it holds for a moment only, and it is there without a
//! quorum, too. Deliberately absent: recursion, other zones, and addresses of endpoints that are configured by a host's
//! name; SRV records name that host.

mod answer;

use ringmaster_net::fd_limit;
use ringmaster_proxy::Proxy;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};

/// The longest question that is read.
const MAX_QUESTION: usize = 1 << 10;
/// How many connections are served at a time. Further ones are closed.
const MAX_CONNECTIONS: usize = 128;
const SHARE_PERCENT: u64 = 2;
/// How long a client may take for its next question, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait after an error before the next attempt, such as where too many files are open.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers, for as long as the node runs.
pub async fn serve(udp: UdpSocket, tcp: TcpListener, proxy: Proxy) {
    tokio::join!(serve_udp(udp, &proxy), serve_tcp(tcp, &proxy));
}

async fn serve_udp(socket: UdpSocket, proxy: &Proxy) {
    let mut question = [0; MAX_QUESTION];
    loop {
        match socket.recv_from(&mut question).await {
            Ok((len, client)) => {
                let find = |name: &str| proxy.discover(name);
                if let Some(answer) = answer::answer(&question[..len], answer::Over::Udp, find) {
                    // An answer that is lost is asked for again.
                    let _ = socket.send_to(&answer, client).await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a question by DNS could not be received");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, proxy: &Proxy) {
    let permits = Arc::new(Semaphore::new(fd_limit::connections(MAX_CONNECTIONS, SHARE_PERCENT, 1)));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
                let proxy = proxy.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    // How it ends makes no difference: the client asks again.
                    let _ = converse(stream, &proxy).await;
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for DNS could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, proxy: &Proxy) -> io::Result<()> {
    let mut question = [0; MAX_QUESTION];
    loop {
        let reading = async {
            let len = usize::from(stream.read_u16().await?);
            let question = question.get_mut(..len).ok_or(io::ErrorKind::InvalidData)?;
            stream.read_exact(question).await?;
            io::Result::Ok(len)
        };
        let len = timeout(PATIENCE, reading).await??;
        let find = |name: &str| proxy.discover(name);
        let Some(answer) = answer::answer(&question[..len], answer::Over::Tcp, find) else { return Ok(()) };
        let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let whole = [&len.to_be_bytes()[..], &answer].concat();
        timeout(PATIENCE, stream.write_all(&whole)).await??;
    }
}

#[cfg(test)]
mod tests;
