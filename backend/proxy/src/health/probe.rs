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
    let handshake = http2::client_builder().handshake::<_, Bytes>(stream).await;
    let (requests, connection) = handshake.map_err(|error| http2::describe(&error))?;
    let exchange = async { requests.ready().await?.send_request(request, true)?.0.await };
    let response = http2::drive(connection, exchange).await?;
    Ok(response.status().as_u16())
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    /// A server that closes the connection in the same moment in which it answers, as one that serves one request does.
    #[tokio::test]
    async fn a_response_counts_though_its_connection_ends_with_it() {
        const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
        /// `:status: 200` on stream 1, which ends.
        const HEAD: &[u8] = b"\0\0\x01\x01\x05\0\0\0\x01\x88";
        for (frames, found) in [
            ([SETTINGS, HEAD].concat(), Ok(200)),
            (SETTINGS.to_vec(), Err("closed the connection".to_owned())),
        ] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let serve = async move {
                let mut stream = listener.accept().await.unwrap().0;
                let mut request = Vec::new();
                // A HEADERS frame with END_STREAM and END_HEADERS, of stream 1.
                while !request.windows(6).any(|frame| frame == [1, 5, 0, 0, 0, 1]) {
                    stream.read_buf(&mut request).await.unwrap();
                }
                stream.write_all(&frames).await.unwrap();
                stream.shutdown().await.unwrap();
                // A connection that is closed over unread bytes is reset.
                while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
            };
            let (answer, ()) = tokio::join!(get_by_http2(stream, "h:1", "/"), serve);
            assert_eq!(answer, found);
        }
    }
}
