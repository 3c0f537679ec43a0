//! The addresses that a node listens on. All are bound before anything else starts, so that a taken one is reported
//! before there are effects.

use super::NodeError;
use crate::config::NodeConfig;
use std::{io, net::SocketAddr};
use tokio::net::{TcpListener, UdpSocket};

pub struct Listeners {
    pub api: TcpListener,
    pub peer: TcpListener,
    pub heartbeat: Option<TcpListener>,
    pub dns: Option<(UdpSocket, TcpListener)>,
}

impl Listeners {
    pub async fn bind(config: &NodeConfig) -> Result<Listeners, NodeError> {
        let api = tcp("API", config.api_addr).await?;
        let peer = tcp("peer", config.peer_addr).await?;
        let heartbeat = match config.heartbeat_addr {
            Some(addr) => Some(tcp("heartbeat", addr).await?),
            None => None,
        };
        let dns = match config.dns_addr {
            Some(addr) => Some((udp("DNS", addr).await?, tcp("DNS", addr).await?)),
            None => None,
        };
        Ok(Listeners { api, peer, heartbeat, dns })
    }
}

async fn tcp(purpose: &str, addr: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(addr).await.map_err(|error| cannot_listen(purpose, addr, &error))
}

async fn udp(purpose: &str, addr: SocketAddr) -> Result<UdpSocket, NodeError> {
    UdpSocket::bind(addr).await.map_err(|error| cannot_listen(purpose, addr, &error))
}

fn cannot_listen(purpose: &str, addr: SocketAddr, error: &io::Error) -> NodeError {
    NodeError(format!(
        "cannot listen on the {purpose} address {addr}: {error}; choose another address, or end the process that uses it"
    ))
}
