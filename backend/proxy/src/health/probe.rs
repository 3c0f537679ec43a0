//! One check of one endpoint: a connection, and what is asked on it.
//!
//! An endpoint cannot lead a check elsewhere: redirects are not followed, only a head is read (of gRPC, one message of a
//! few bytes), and link-local and metadata addresses are refused after the name was resolved.

use super::grpc;
use crate::{
    endpoint::Endpoint,
    wire::{
        buffer::Buffer,
        head::{self, MAX_INTERIM, RequestFacts},
        headers::CHECK_USER_AGENT,
        http2, proxy_protocol,
    },
};
use bytes::Bytes;
use hyper::Request;
use ringmaster_common::traffic::{health::HealthCheck, upstream::Protocol};
use std::{io, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// What is checked, and by which protocol.
#[derive(Clone, Debug)]
pub struct Target {
    pub endpoint: Arc<Endpoint>,
    pub protocol: Protocol,
    /// Connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
}

/// What it found, good or bad. `limit` is how long the caller waits.
pub async fn probe(target: &Target, check: &HealthCheck, limit: Duration) -> Result<String, String> {
    let Target { endpoint, protocol, proxy_protocol } = target;
    let mut stream = endpoint.pool.connect(limit).await.map_err(|error| reason(&error))?;
    if *proxy_protocol {
        let header = proxy_protocol::on_own_behalf();
        stream.write_all(&header).await.map_err(|error| reason(&error))?;
    }
    let (path, host, status) = match check {
        HealthCheck::Http { path, host, status, .. } => (path, host, status),
        HealthCheck::Grpc { service, host, .. } => {
            let host = host.as_deref().unwrap_or(&endpoint.addr);
            return grpc::check(stream, host, service.as_deref().unwrap_or_default(), limit).await;
        }
        HealthCheck::Tcp { .. } | HealthCheck::Heartbeat { .. } => return Ok("connected".to_owned()),
    };
    let host = host.as_deref().unwrap_or(&endpoint.addr);
    let found = match protocol {
        Protocol::Http2 => get_by_http2(stream, host, path).await?,
        Protocol::Http1 | Protocol::Tcp => get(stream, host, path).await?,
    };
    let fits = match status {
        Some(status) => found == *status,
        None => (200..400).contains(&found),
    };
    let detail = format!("status {found}");
    if fits { Ok(detail) } else { Err(detail) }
}

async fn get(mut stream: TcpStream, host: &str, path: &str) -> Result<u16, String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {CHECK_USER_AGENT}\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| reason(&error))?;
    let (mut arrived, mut interim) = (Buffer::default(), 0);
    while !arrived.is_full() {
        match arrived.read_from(&mut stream).await {
            Ok(0) => return Err("closed the connection without a response".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(reason(&error)),
        }
        let facts = RequestFacts { is_head: false, wants_upgrade: false };
        while let Some(head) =
            head::response(arrived.filled(), &mut head::room(), facts).map_err(|refusal| refusal.detail)?
        {
            if head.status >= 200 {
                return Ok(head.status);
            }
            let len = head.len;
            arrived.consume(len);
            interim += 1;
            if interim > MAX_INTERIM {
                return Err(head::too_many_interim().detail);
            }
        }
    }
    Err(head::response_too_large().detail)
}

async fn get_by_http2(stream: TcpStream, host: &str, path: &str) -> Result<u16, String> {
    let request =
        Request::get(format!("http://{host}{path}")).header("user-agent", CHECK_USER_AGENT).body(());
    let request = request.map_err(|error| error.to_string())?;
    let describe = |error| http2::describe(&error);
    let (requests, connection) =
        http2::client_builder().handshake::<_, Bytes>(stream).await.map_err(describe)?;
    let exchange = async { requests.ready().await?.send_request(request, true)?.0.await };
    // The connection is driven as long as the request is in flight, and dropped with it.
    tokio::select! {
        response = exchange => response.map(|response| response.status().as_u16()).map_err(describe),
        ended = connection => Err(ended.err().map_or_else(|| "closed the connection".to_owned(), describe)),
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}
