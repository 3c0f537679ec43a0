//! The handshake: before any frame, both ends check each other's identity.
//!
//! The dialler upgrades a TCP connection to a WebSocket at `/peer` and says [`Hello`]; the other end
//! answers that it is [`Welcome`], or [`Refused`]. The end that finds the other to be wrong says why,
//! so that the log of either node explains it. Both speak several formats of frames, those of the version
//! before theirs among them; the connection has the newest that is common to both.
//!
//! ```text
//!          offset  size  field
//! hello         0     1  the oldest format of frames that the dialler speaks
//!               1     1  the newest
//!               2     …  a Hello, in MessagePack with named fields
//! answer        0     1  the format of the connection; 0 if the dialler is refused
//!               1     …  a Welcome or a Refused, in MessagePack with named fields
//! ```
//!
//! This is for ever: the messages have no format of their own, they only get further fields, with a
//! default. So any version understands the identity of any other, and why it is refused.
//!
//! It proves no identity to an attacker; it keeps honest nodes from talking to the wrong ones.

use super::{HANDSHAKE_TIMEOUT, Local, MAX_FRAME_BYTES, MAX_HELLO_BYTES, PATH};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use ringmaster_common::{
    duration::millis,
    id::{Incarnation, NodeId},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeSet, fmt, ops::RangeInclusive};
use tokio::{io, net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config, client_async_with_config,
    tungstenite::{
        self, Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::StatusCode,
        protocol::{Role, WebSocketConfig},
    },
};

pub(super) type Socket = WebSocketStream<TcpStream>;

/// The library zeroes as much before each read, and most frames are small.
const READ_BUFFER_BYTES: usize = 8 << 10;
/// Stands where an answer has the format of the connection.
const REFUSED: u8 = 0;

/// A connection of two nodes that know each other.
#[derive(Debug)]
pub(super) struct Open<P> {
    pub(super) socket: Socket,
    /// Of frames, in both directions.
    pub(super) format: u8,
    /// The other end's message.
    pub(super) peer: P,
}

/// The identity of the dialler, and of the node that it means to have dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) cluster_id: String,
    pub(super) node_id: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) feature_level: u32,
    pub(super) election_timeout_max_ms: u64,
    pub(super) to: NodeId,
}

/// The message of the accepting end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) cluster_id: String,
    pub(super) node_id: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) feature_level: u32,
    pub(super) election_timeout_max_ms: u64,
}

/// Why two nodes do not talk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub(super) struct Refused {
    pub(super) code: RefusalCode,
    pub(super) detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RefusalCode {
    /// There is no format that both speak.
    NoCommonFormat,
    ForeignCluster,
    OtherIncarnation,
    /// The cluster was recovered since without the dialler: it is of an earlier incarnation.
    EarlierIncarnation,
    /// A leader would rely on a lease that the other end cuts short.
    OtherTiming,
    /// The dialler meant another node.
    OtherNode,
    /// The dialler claims the id of the node that it dialled.
    OwnId,
    /// The dialler was a member once.
    Departed,
    /// One that only a newer version knows.
    #[serde(other)]
    Other,
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
        /// The id that the peer claims to have.
        peer: NodeId,
        refused: Refused,
    },
}

/// The dialler's part, on a fresh TCP connection to `to`.
pub(super) async fn dial(
    stream: TcpStream,
    local: &Local,
    to: NodeId,
) -> Result<Open<Welcome>, HandshakeError> {
    timeout(HANDSHAKE_TIMEOUT, async {
        stream.set_nodelay(true)?;
        let url = format!("ws://{}{PATH}", stream.peer_addr()?);
        let (mut socket, _) = client_async_with_config(url, stream, Some(limits(MAX_FRAME_BYTES))).await?;
        let hello = Hello {
            cluster_id: local.cluster_id.clone(),
            node_id: local.node_id,
            incarnation: local.incarnation,
            feature_level: local.feature_level,
            election_timeout_max_ms: millis(local.election_timeout_max),
            to,
        };
        send(&mut socket, encode_hello(&local.formats, &hello)?).await?;
        let (format, welcome) = decode_answer(&receive(&mut socket).await?)?;
        if !local.formats.contains(&format) {
            return Err(HandshakeError::Malformed);
        }
        match local.check_welcome(&welcome, to) {
            Ok(()) => Ok(Open { socket, format, peer: welcome }),
            Err(refused) => Err(HandshakeError::RefusedHere { peer: welcome.node_id, refused }),
        }
    })
    .await
    .unwrap_or(Err(HandshakeError::TimedOut))
}

/// The accepting end's part. When this returns, a wrong peer has been refused.
pub(super) async fn accept(
    stream: TcpStream,
    local: &Local,
    departed: &BTreeSet<NodeId>,
) -> Result<Open<Hello>, HandshakeError> {
    timeout(HANDSHAKE_TIMEOUT, async {
        stream.set_nodelay(true)?;
        let config = Some(limits(MAX_HELLO_BYTES));
        let mut socket = accept_hdr_async_with_config(stream, only_our_path, config).await?;
        let (formats, hello) = decode_hello(&receive(&mut socket).await?)?;
        // The dialler sends nothing more before it is welcome, so the old socket has read nothing ahead.
        let config = Some(limits(MAX_FRAME_BYTES));
        let mut socket = Socket::from_raw_socket(socket.into_inner(), Role::Server, config).await;
        let checked = local.check_hello(&hello, departed).and_then(|()| local.common_format(&formats));
        match checked {
            Ok(format) => {
                let welcome = Welcome {
                    cluster_id: local.cluster_id.clone(),
                    node_id: local.node_id,
                    incarnation: local.incarnation,
                    feature_level: local.feature_level,
                    election_timeout_max_ms: millis(local.election_timeout_max),
                };
                send(&mut socket, encode(&[format], &welcome)?).await?;
                Ok(Open { socket, format, peer: hello })
            }
            Err(refused) => {
                send(&mut socket, encode(&[REFUSED], &refused)?).await?;
                // The peer is to read the refusal before the connection goes; whether it does is
                // its affair.
                let _ = socket.close(None).await;
                Err(HandshakeError::RefusedHere { peer: hello.node_id, refused })
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
        self.check_timing(hello.election_timeout_max_ms)
    }

    /// The newest format that both ends speak.
    fn common_format(&self, theirs: &RangeInclusive<u8>) -> Result<u8, Refused> {
        let newest = *self.formats.end().min(theirs.end());
        if self.formats.contains(&newest) && theirs.contains(&newest) {
            return Ok(newest);
        }
        Err(Refused::new(
            RefusalCode::NoCommonFormat,
            format!(
                "the peer speaks formats {} to {}, this node formats {} to {}; upgrade the older of the two, one \
                 version at a time",
                theirs.start(),
                theirs.end(),
                self.formats.start(),
                self.formats.end()
            ),
        ))
    }

    fn check_welcome(&self, welcome: &Welcome, dialled: NodeId) -> Result<(), Refused> {
        self.check_history(&welcome.cluster_id, welcome.incarnation)?;
        if welcome.node_id != dialled {
            return Err(Refused::new(
                RefusalCode::OtherNode,
                format!("node {dialled} was dialled, node {} answered", welcome.node_id),
            ));
        }
        self.check_timing(welcome.election_timeout_max_ms)
    }

    /// A leader serves reads for as long as its followers stand by it, which they do for their own longest
    /// time-out: if that is shorter than the leader's, two of them serve reads at once.
    fn check_timing(&self, theirs: u64) -> Result<(), Refused> {
        let ours = millis(self.election_timeout_max);
        if theirs == ours {
            return Ok(());
        }
        Err(Refused::new(
            RefusalCode::OtherTiming,
            format!(
                "election_timeout_max_ms is {theirs} at the peer and {ours} at this node, and leases are safe only \
                 where it is the same on all members; give them one value, and restart those that had another"
            ),
        ))
    }

    fn check_history(&self, cluster_id: &str, incarnation: Incarnation) -> Result<(), Refused> {
        if cluster_id != self.cluster_id {
            // A foreign text goes into a log: only the beginning of it.
            let theirs: String = cluster_id.chars().take(64).collect();
            return Err(Refused::new(
                RefusalCode::ForeignCluster,
                format!("the peer is of cluster {theirs:?}, this node of {:?}", self.cluster_id),
            ));
        }
        if incarnation < self.incarnation {
            return Err(Refused::new(
                RefusalCode::EarlierIncarnation,
                format!(
                    "the cluster was recovered from a lost quorum without this peer: the cluster is of incarnation {}, the \
                     refused node of {incarnation}",
                    self.incarnation
                ),
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
    /// Where the peer says that the cluster was recovered without this node: its words.
    pub(super) fn superseded_by(&self) -> Option<&str> {
        match self {
            HandshakeError::RefusedByPeer(refused) if refused.code == RefusalCode::EarlierIncarnation => {
                Some(&refused.detail)
            }
            _ => None,
        }
    }

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

fn limits(message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(message_bytes))
        .max_frame_size(Some(message_bytes))
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

async fn send(socket: &mut Socket, message: Bytes) -> Result<(), HandshakeError> {
    Ok(socket.send(Message::Binary(message)).await?)
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

/// The first message of the dialler.
pub(super) fn encode_hello(formats: &RangeInclusive<u8>, hello: &Hello) -> Result<Bytes, HandshakeError> {
    encode(&[*formats.start(), *formats.end()], hello)
}

fn decode_hello(bytes: &[u8]) -> Result<(RangeInclusive<u8>, Hello), HandshakeError> {
    let ([oldest, newest], hello) = bytes.split_first_chunk().ok_or(HandshakeError::Malformed)?;
    Ok((*oldest..=*newest, decode(hello)?))
}

fn decode_answer(bytes: &[u8]) -> Result<(u8, Welcome), HandshakeError> {
    match bytes.split_first().ok_or(HandshakeError::Malformed)? {
        (&REFUSED, refused) => Err(HandshakeError::RefusedByPeer(decode(refused)?)),
        (&format, welcome) => Ok((format, decode(welcome)?)),
    }
}

fn encode(head: &[u8], body: &impl Serialize) -> Result<Bytes, HandshakeError> {
    let mut message = head.to_vec();
    rmp_serde::encode::write_named(&mut message, body).map_err(|_| HandshakeError::Malformed)?;
    Ok(message.into())
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, HandshakeError> {
    rmp_serde::from_slice(body).map_err(|_| HandshakeError::Malformed)
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RefusalCode::NoCommonFormat => "no common format",
            RefusalCode::ForeignCluster => "foreign cluster",
            RefusalCode::OtherIncarnation => "other incarnation",
            RefusalCode::EarlierIncarnation => "earlier incarnation",
            RefusalCode::OtherTiming => "other timing",
            RefusalCode::OtherNode => "other node",
            RefusalCode::OwnId => "own id",
            RefusalCode::Departed => "departed",
            RefusalCode::Other => "for a reason that this version does not know",
        })
    }
}
