//! The WebSocket below a stream: its handshake, messages in small frames, and an end that both sides know of.
//!
//! A message is sent in frames of up to [`MAX_FRAME_BYTES`], one after the other, because the library copies a frame
//! before it sends it. So a client that does not read costs the node one frame and a reference to the message, which
//! it shares with all others.
//!
//! What always holds: a stream ends with a Close and its code, unless the client is gone.

use crate::http::problem::ApiError;
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, header},
    response::Response,
};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use ringmaster_common::error::Code;
use std::{borrow::Cow, time::Duration};
use tokio::{io::AsyncReadExt, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Bytes, Message,
        error::{CapacityError, Error, ProtocolError},
        handshake::server::create_response_with_body,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

/// The largest message that a client may send.
const MAX_CLIENT_MESSAGE: usize = 64 << 10;
/// The largest frame that is sent.
const MAX_FRAME_BYTES: usize = 16 << 10;
/// How long the client may take to answer a Close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(400);
/// A client that sends nothing for this long has read the Close that answers its error.
const DRAIN_IDLE: Duration = Duration::from_millis(200);

/// A request for a WebSocket.
#[derive(Debug)]
pub struct Handshake {
    on_upgrade: OnUpgrade,
    response: Response,
    protocol: Option<&'static str>,
}

impl Handshake {
    /// Accepts the request. The first of these subprotocols that the client offers is agreed on.
    pub fn of(request: &mut Request, protocols: &[&'static str]) -> Result<Handshake, ApiError> {
        let refused =
            |why: String| ApiError::new(Code::InvalidRequest, format!("/v1/stream is a WebSocket: {why}"));
        let mut response =
            create_response_with_body(request, Body::empty).map_err(|error| refused(error.to_string()))?;
        let on_upgrade = request
            .extensions_mut()
            .remove::<OnUpgrade>()
            .ok_or_else(|| refused("this connection cannot become one".to_owned()))?;
        let offers = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let offers =
            || offers.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let protocol =
            protocols.iter().copied().find(|protocol| offers().any(|offer| offer.trim() == *protocol));
        if let Some(protocol) = protocol {
            let value = HeaderValue::from_static(protocol);
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        Ok(Handshake { on_upgrade, response, protocol })
    }

    /// The subprotocol that was agreed on.
    pub fn protocol(&self) -> Option<&'static str> {
        self.protocol
    }

    /// Runs `serve` with the socket once the response is sent.
    pub fn accept<F: Future<Output = ()> + Send + 'static>(
        self,
        serve: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Response {
        let on_upgrade = self.on_upgrade;
        tokio::spawn(async move {
            // Otherwise the client is gone already.
            if let Ok(upgraded) = on_upgrade.await {
                serve(Socket::of(upgraded).await).await;
            }
        });
        self.response
    }
}

#[derive(Debug)]
pub struct Socket(WebSocketStream<TokioIo<Upgraded>>);

/// How a stream ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The client is gone.
    Gone,
    /// The client has sent a Close.
    ByClient,
    /// The node ends it, for this reason.
    ByNode(CloseCode, Cow<'static, str>),
}

impl End {
    /// The node stops.
    pub const STOPPING: End = End::ByNode(CloseCode::Away, Cow::Borrowed("the node stops"));
    /// The node is behind the client.
    pub const BEHIND: End = End::ByNode(CloseCode::Again, Cow::Borrowed("the node is behind"));
    /// The client does not read.
    pub const SLOW: End = End::ByNode(CloseCode::Again, Cow::Borrowed("the client reads too slowly"));
    /// Slow clients have taken all memory for views.
    pub const OVERLOADED: End = End::ByNode(CloseCode::Again, Cow::Borrowed("too many clients read slowly"));

    fn of(error: Error) -> End {
        let by_node = |code, reason: String| End::ByNode(code, reason.into());
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                by_node(CloseCode::Size, format!("a message has up to {MAX_CLIENT_MESSAGE} bytes"))
            }
            Error::Utf8(_) => by_node(CloseCode::Invalid, "a text message is UTF-8".to_owned()),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Gone,
            Error::Protocol(error) => by_node(CloseCode::Protocol, error.to_string()),
            _ => End::Gone,
        }
    }

    /// Whether the bytes that follow from the client cannot be understood.
    fn is_unreadable(&self) -> bool {
        matches!(self, End::ByNode(CloseCode::Size | CloseCode::Invalid | CloseCode::Protocol, _))
    }
}

impl Socket {
    async fn of(upgraded: Upgraded) -> Socket {
        let config = WebSocketConfig::default()
            .read_buffer_size(MAX_FRAME_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_CLIENT_MESSAGE))
            .max_frame_size(Some(MAX_CLIENT_MESSAGE));
        Socket(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await)
    }

    /// The next message of the client. Pings are answered.
    pub async fn receive(&mut self) -> Result<Message, End> {
        match self.0.next().await {
            Some(Ok(Message::Close(_))) => Err(End::ByClient),
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(End::of(error)),
            None => Err(End::Gone),
        }
    }

    pub async fn send(&mut self, message: &Message) -> Result<(), End> {
        for frame in frames(message) {
            self.0.send(frame).await.map_err(|_| End::Gone)?;
        }
        Ok(())
    }

    /// Ends the stream: sends or answers a Close, and gives the client time to read it.
    pub async fn end(mut self, end: End) {
        let is_unreadable = end.is_unreadable();
        match end {
            End::Gone => {}
            // The library has queued the answer.
            End::ByClient => {
                let _ = timeout(CLOSE_TIMEOUT, self.0.flush()).await;
            }
            End::ByNode(code, reason) => {
                let close = Message::Close(Some(CloseFrame { code, reason: (&*reason).into() }));
                let _ = timeout(CLOSE_TIMEOUT, async {
                    self.0.send(close).await?;
                    if is_unreadable {
                        self.drain().await;
                    }
                    while let Some(Ok(_)) = self.0.next().await {}
                    Ok::<_, tungstenite::Error>(())
                })
                .await;
            }
        }
    }

    /// Reads and discards bytes: data that is not read when a connection is closed resets it, and the client may
    /// never see the Close.
    async fn drain(&mut self) {
        let mut bytes = [0; 4096];
        let socket = self.0.get_mut();
        while let Ok(Ok(1..)) = timeout(DRAIN_IDLE, socket.read(&mut bytes)).await {}
    }
}

/// The frames of a message, which share its bytes.
fn frames(message: &Message) -> Vec<Message> {
    let (bytes, kind) = match message {
        Message::Text(text) => (Bytes::from(text.clone()), Data::Text),
        Message::Binary(bytes) => (bytes.clone(), Data::Binary),
        control => return vec![control.clone()],
    };
    let count = bytes.len().div_ceil(MAX_FRAME_BYTES).max(1);
    (0..count)
        .map(|number| {
            let start = number * MAX_FRAME_BYTES;
            let part = bytes.slice(start..bytes.len().min(start + MAX_FRAME_BYTES));
            let kind = if number == 0 { kind } else { Data::Continue };
            Message::Frame(Frame::message(part, OpCode::Data(kind), number + 1 == count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_into_frames_without_a_copy() {
        let text = "é".repeat(MAX_FRAME_BYTES);
        let message = Message::text(text.clone());
        let cut: Vec<_> = frames(&message)
            .into_iter()
            .map(|frame| match frame {
                Message::Frame(frame) => frame,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(cut.len(), 2);
        let headers: Vec<_> =
            cut.iter().map(|frame| (frame.header().opcode, frame.header().is_final)).collect();
        assert_eq!(headers, [(OpCode::Data(Data::Text), false), (OpCode::Data(Data::Continue), true)]);
        let joined: Vec<u8> = cut.iter().flat_map(|frame| frame.payload().to_vec()).collect();
        assert_eq!(joined, text.as_bytes());
        let Message::Text(shared) = &message else { unreachable!() };
        assert_eq!(cut[0].payload().as_ptr(), shared.as_bytes().as_ptr(), "the bytes are shared");
        assert_eq!(frames(&Message::text("")).len(), 1);
        assert_eq!(frames(&Message::Ping(Bytes::new())), [Message::Ping(Bytes::new())]);
    }
}
