//! The handshake: before any frame, both ends make sure who they are.
//!
//! The dialler upgrades a TCP connection to a WebSocket at `/peer` and sends a [`Hello`]; the other
//! end answers with a [`Verdict`]. Whoever knows the other to be wrong says why, so that the log of
//! either node explains it. The first byte of each message is its format version, and the refusal
//! keeps its shape in every version: an old node understands why a new one refuses it.
//!
//! It proves no identity to an attacker; it keeps honest nodes from talking to the wrong ones.

use super::{FORMAT, HANDSHAKE_TIMEOUT, Local, MAX_FRAME_BYTES, PATH};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use ringmaster_common::id::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};
use tokio::{io, net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config, client_async_with_config,
    tungstenite::{
        self, Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::StatusCode,
        protocol::WebSocketConfig,
    },
};

pub(super) type Socket = WebSocketStream<TcpStream>;

/// The library zeroes as much before each read, and most frames are small.
const READ_BUFFER_BYTES: usize = 8 << 10;

/// What the dialler says of itself, and whom it means to have dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) format: u8,
    pub(super) cluster_id: String,
    pub(super) node_id: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) feature_level: u32,
    pub(super) to: NodeId,
}

/// What the accepting end says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) cluster_id: String,
    pub(super) node_id: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) feature_level: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    format: u8,
    verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Verdict {
    Refused(Refused),
    Welcome(Welcome),
}

/// Why two nodes do not talk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub(super) struct Refused {
    pub(super) code: RefusalCode,
    pub(super) detail: String,
}

/// Stands in messages by its position: new codes go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RefusalCode {
    UnknownFormat,
    ForeignCluster,
    OtherIncarnation,
    /// The dialler meant another node.
    OtherNode,
    /// The dialler claims the id of the node that it dialled.
    OwnId,
    /// The dialler was a member once.
    Departed,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("no handshake within {HANDSHAKE_TIMEOUT:?}")]
    TimedOut,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    WebSocket(#[from] tungstenite::Error),
    #[error("the peer closed the connection before the handshake was done")]
    Closed,
    #[error("a handshake message cannot be understood")]
    Malformed,
    #[error("refused by the peer, {0}")]
    RefusedByPeer(Refused),
    #[error("refused the peer, {refused}")]
    RefusedHere {
        /// Who the peer claims to be, where that could be read.
        peer: Option<NodeId>,
        refused: Refused,
    },
}

/// The dialler's part, on a fresh TCP connection to `to`.
pub(super) async fn dial(
    stream: TcpStream,
    local: &Local,
    to: NodeId,
) -> Result<(Socket, Welcome), HandshakeError> {
    timeout(HANDSHAKE_TIMEOUT, async {
        stream.set_nodelay(true)?;
        let url = format!("ws://{}{PATH}", stream.peer_addr()?);
        let (mut socket, _) = client_async_with_config(url, stream, Some(limits())).await?;
        let hello = Hello {
            format: FORMAT,
            cluster_id: local.cluster_id.clone(),
            node_id: local.node_id,
            incarnation: local.incarnation,
            feature_level: local.feature_level,
            to,
        };
        send(&mut socket, &hello).await?;
        let welcome = decode_answer(&receive(&mut socket).await?)?;
        match local.check_welcome(&welcome, to) {
            Ok(()) => Ok((socket, welcome)),
            Err(refused) => Err(HandshakeError::RefusedHere { peer: Some(welcome.node_id), refused }),
        }
    })
    .await
    .unwrap_or(Err(HandshakeError::TimedOut))
}

/// The accepting end's part. A wrong peer has been told so when this returns.
pub(super) async fn accept(
    stream: TcpStream,
    local: &Local,
    departed: &BTreeSet<NodeId>,
) -> Result<(Socket, Hello), HandshakeError> {
    timeout(HANDSHAKE_TIMEOUT, async {
        stream.set_nodelay(true)?;
        let mut socket = accept_hdr_async_with_config(stream, only_our_path, Some(limits())).await?;
        let (peer, checked) = match decode_hello(&receive(&mut socket).await?) {
            Ok(hello) => (Some(hello.node_id), local.check_hello(&hello, departed).map(|()| hello)),
            Err(HandshakeError::RefusedHere { peer, refused }) => (peer, Err(refused)),
            Err(error) => return Err(error),
        };
        let verdict = match &checked {
            Ok(_) => Verdict::Welcome(Welcome {
                cluster_id: local.cluster_id.clone(),
                node_id: local.node_id,
                incarnation: local.incarnation,
                feature_level: local.feature_level,
            }),
            Err(refused) => Verdict::Refused(refused.clone()),
        };
        send(&mut socket, &Answer { format: FORMAT, verdict }).await?;
        match checked {
            Ok(hello) => Ok((socket, hello)),
            Err(refused) => {
                // The peer is to read the refusal before the connection goes; whether it does is
                // its affair.
                let _ = socket.close(None).await;
                Err(HandshakeError::RefusedHere { peer, refused })
            }
        }
    })
    .await
    .unwrap_or(Err(HandshakeError::TimedOut))
}

impl Local {
    fn check_hello(&self, hello: &Hello, departed: &BTreeSet<NodeId>) -> Result<(), Refused> {
        self.check_history(&hello.cluster_id, hello.incarnation)?;
        if departed.contains(&hello.node_id) {
            return Err(Refused::new(
                RefusalCode::Departed,
                format!("node {} was removed from the cluster", hello.node_id),
            ));
        }
        if hello.to != self.node_id {
            return Err(Refused::new(
                RefusalCode::OtherNode,
                format!("node {} was dialled, this is node {}", hello.to, self.node_id),
            ));
        }
        if hello.node_id == self.node_id {
            return Err(Refused::new(
                RefusalCode::OwnId,
                format!("the dialler claims to be node {}, which is this node", self.node_id),
            ));
        }
        Ok(())
    }

    fn check_welcome(&self, welcome: &Welcome, dialled: NodeId) -> Result<(), Refused> {
        self.check_history(&welcome.cluster_id, welcome.incarnation)?;
        if welcome.node_id != dialled {
            return Err(Refused::new(
                RefusalCode::OtherNode,
                format!("node {dialled} was dialled, node {} answered", welcome.node_id),
            ));
        }
        Ok(())
    }

    fn check_history(&self, cluster_id: &str, incarnation: Incarnation) -> Result<(), Refused> {
        if cluster_id != self.cluster_id {
            // Somebody else's words go into a log: not many of them.
            let theirs: String = cluster_id.chars().take(64).collect();
            return Err(Refused::new(
                RefusalCode::ForeignCluster,
                format!("the peer is of cluster {theirs:?}, this node of {:?}", self.cluster_id),
            ));
        }
        if incarnation != self.incarnation {
            return Err(Refused::new(
                RefusalCode::OtherIncarnation,
                format!("the peer is of incarnation {incarnation}, this node of {}", self.incarnation),
            ));
        }
        Ok(())
    }
}

impl HandshakeError {
    /// Whether the peer says that this node is a member no more.
    pub(super) fn is_dismissal(&self) -> bool {
        matches!(self, HandshakeError::RefusedByPeer(refused) if refused.code == RefusalCode::Departed)
    }
}

impl Refused {
    fn new(code: RefusalCode, detail: String) -> Refused {
        Refused { code, detail }
    }
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES))
}

// The type of the refusal is the library's.
#[expect(clippy::result_large_err)]
fn only_our_path(request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() == PATH {
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(Some(format!("peers connect at {PATH}")));
    *refusal.status_mut() = StatusCode::NOT_FOUND;
    Err(refusal)
}

async fn send(socket: &mut Socket, message: &impl Serialize) -> Result<(), HandshakeError> {
    let bytes = postcard::to_stdvec(message).map_err(|_| HandshakeError::Malformed)?;
    Ok(socket.send(Message::Binary(Bytes::from(bytes))).await?)
}

async fn receive(socket: &mut Socket) -> Result<Bytes, HandshakeError> {
    loop {
        match socket.next().await {
            None | Some(Ok(Message::Close(_))) => return Err(HandshakeError::Closed),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
            Some(Ok(Message::Text(_) | Message::Frame(_))) => return Err(HandshakeError::Malformed),
        }
    }
}

fn decode_hello(bytes: &[u8]) -> Result<Hello, HandshakeError> {
    check_format(bytes)?;
    postcard::from_bytes(bytes).map_err(|_| HandshakeError::Malformed)
}

fn decode_answer(bytes: &[u8]) -> Result<Welcome, HandshakeError> {
    let answer = postcard::from_bytes(bytes);
    // A refusal can be read whatever its format.
    if let Ok(Answer { verdict: Verdict::Refused(refused), .. }) = answer {
        return Err(HandshakeError::RefusedByPeer(refused));
    }
    check_format(bytes)?;
    match answer {
        Ok(Answer { verdict: Verdict::Welcome(welcome), .. }) => Ok(welcome),
        _ => Err(HandshakeError::Malformed),
    }
}

fn check_format(bytes: &[u8]) -> Result<(), HandshakeError> {
    match bytes.first() {
        None => Err(HandshakeError::Malformed),
        Some(&FORMAT) => Ok(()),
        Some(other) => Err(HandshakeError::RefusedHere {
            peer: None,
            refused: Refused::new(
                RefusalCode::UnknownFormat,
                format!("the peer speaks format {other}, this node format {FORMAT}"),
            ),
        }),
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RefusalCode::UnknownFormat => "unknown format",
            RefusalCode::ForeignCluster => "foreign cluster",
            RefusalCode::OtherIncarnation => "other incarnation",
            RefusalCode::OtherNode => "other node",
            RefusalCode::OwnId => "own id",
            RefusalCode::Departed => "departed",
        })
    }
}
