//! A client with one connection that lasts: the cheapest that is fair to every server.
//!
//! HTTP/1.1, or HTTP/2 for a server whose own clients speak gRPC. Either way a client has one
//! request on its way at a time.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request,
    client::conn::{http1, http2},
    header,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::fmt::Display;
use tokio::net::TcpStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// A unary call: a frame each way, and the outcome in a trailer.
    Grpc,
}

#[derive(Clone, Debug)]
pub struct Ask {
    pub method: Method,
    pub path: String,
    pub body: Bytes,
}

#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    host: String,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Connects to `host:port`.
    pub async fn open(protocol: Protocol, host: &str) -> Result<Connection, String> {
        let failed = |error: &dyn Display| format!("{host}: {error}");
        let stream = TcpStream::connect(host).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let io = TokioIo::new(stream);
        // Whoever sends next learns why a connection ended.
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.map_err(|error| failed(&error))?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Grpc => {
                let handshake = http2::handshake(TokioExecutor::new(), io);
                let (sender, connection) = handshake.await.map_err(|error| failed(&error))?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Connection { sender, host: host.to_owned() })
    }

    /// Whether it was answered with a success, and the body of the answer.
    pub async fn send(&mut self, ask: Ask) -> Result<(bool, Bytes), String> {
        let request = Request::builder().method(ask.method);
        let request = match self.sender {
            Sender::Http1(_) => request
                .uri(ask.path)
                .header(header::HOST, &self.host)
                .header(header::CONTENT_TYPE, "application/json"),
            Sender::Http2(_) => request
                .uri(format!("http://{}{}", self.host, ask.path))
                .header(header::TE, "trailers")
                .header(header::CONTENT_TYPE, "application/grpc"),
        };
        let request = request.body(Full::new(ask.body)).map_err(|error| error.to_string())?;
        let answer = async {
            let response = match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await?
                }
                Sender::Http2(sender) => sender.send_request(request).await?,
            };
            let (head, body) = response.into_parts();
            let body = body.collect().await?;
            let failed = [Some(&head.headers), body.trailers()].into_iter().flatten().any(grpc_failed);
            Ok::<_, hyper::Error>((head.status.is_success() && !failed, body.to_bytes()))
        };
        answer.await.map_err(|error| format!("{}: {error}", self.host))
    }
}

fn grpc_failed(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status != "0")
}
