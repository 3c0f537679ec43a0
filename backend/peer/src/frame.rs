//! Frames: what two nodes say to each other once they know each other.
//!
//! One WebSocket message holds one frame: a header of fixed size, then the body. Integers are big
//! endian. All frames of a connection have the format that its [`handshake`](super::handshake) agreed
//! on.
//!
//! ```text
//! offset  size  field
//!      0     1  format
//!      1     1  kind: 1 request · 2 reply · 3 failure · 4 cast · 5 ping · 6 pong
//!      2     1  lane: 0 urgent · 1 bulk; an answer takes the lane of its request
//!      3     1  channel: what the body is about; 0 for ping and pong
//!      4     8  Raft group, where the channel has groups
//!     12     8  request id, chosen by the asker, unique in a connection
//!     20    16  trace id, 0 where there is none
//!     36     …  body; of a failure, a Failure in postcard; of ping and pong, empty
//! ```
//!
//! Ids are the asker's: a reply, failure or pong repeats the id that it answers. The header knows
//! nothing of what bodies mean, and a format says nothing of them: where the form of a body changes, it
//! gets a channel of its own, which is used once the cluster's feature level says that all serve it.

use super::MAX_FRAME_BYTES;
use bytes::{BufMut, Bytes, BytesMut};
use ringmaster_common::id::GroupId;
use serde::{Deserialize, Serialize};
use std::fmt;

pub(super) const HEADER_BYTES: usize = 36;

/// The largest body that fits into a frame.
pub const MAX_BODY_BYTES: usize = MAX_FRAME_BYTES - HEADER_BYTES;

/// The subject of a body. Each user of the links owns a few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u8);

/// Ties what happens on several nodes to the request that caused it. Zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trace(pub u128);

/// As a UUID is written, which is what most of them are.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).fmt(f)
    }
}

/// Which queue a frame waits in. All that is urgent goes before all that is bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Small, and late if it is not at once: pings, heartbeats, votes.
    Urgent,
    Bulk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Reply,
    Failure,
    Cast,
    Ping,
    Pong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) lane: Lane,
    pub(super) channel: Channel,
    pub(super) group: GroupId,
    pub(super) id: u64,
    pub(super) trace: Trace,
    pub(super) body: Bytes,
}

/// Why a request was not served, as the peer says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Failure {
    pub code: FailureCode,
    pub detail: String,
}

/// Stands in frames by its position: new codes go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureCode {
    /// Too many requests of this link are unanswered.
    Busy,
    /// Nothing on this node serves the channel.
    UnknownChannel,
    /// This node has no such Raft group.
    UnknownGroup,
    /// The body cannot be understood, or asks for something impossible.
    Malformed,
    /// Not now; later perhaps.
    Unavailable,
    /// The service of the channel has stopped.
    Stopped,
    /// The request was dropped without an answer.
    Unanswered,
}

/// A message that is not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {0} bytes is shorter than its header")]
    Short(usize),
    #[error("a frame of format {found} on a connection of format {agreed}")]
    Format { found: u8, agreed: u8 },
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a frame of unknown lane {0}")]
    Lane(u8),
}

impl Lane {
    /// For tables with one place a lane.
    pub(super) fn position(self) -> usize {
        match self {
            Lane::Urgent => 0,
            Lane::Bulk => 1,
        }
    }
}

impl Frame {
    /// A ping or pong: nothing but an id.
    pub(super) fn bare(kind: Kind, id: u64) -> Frame {
        Frame {
            kind,
            lane: Lane::Urgent,
            channel: Channel(0),
            group: GroupId(0),
            id,
            trace: Trace::default(),
            body: Bytes::new(),
        }
    }

    pub(super) fn encode(&self, format: u8) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + self.body.len());
        bytes.put_u8(format);
        bytes.put_u8(match self.kind {
            Kind::Request => 1,
            Kind::Reply => 2,
            Kind::Failure => 3,
            Kind::Cast => 4,
            Kind::Ping => 5,
            Kind::Pong => 6,
        });
        bytes.put_u8(match self.lane {
            Lane::Urgent => 0,
            Lane::Bulk => 1,
        });
        bytes.put_u8(self.channel.0);
        bytes.put_u64(self.group.0);
        bytes.put_u64(self.id);
        bytes.put_u128(self.trace.0);
        bytes.put_slice(&self.body);
        bytes.freeze()
    }

    /// The body shares the memory of `bytes`.
    pub(super) fn decode(agreed: u8, bytes: Bytes) -> Result<Frame, FrameError> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(FrameError::Short(bytes.len()));
        };
        let [format, kind, lane, channel, numbers @ ..] = header;
        if *format != agreed {
            return Err(FrameError::Format { found: *format, agreed });
        }
        let kind = match kind {
            1 => Kind::Request,
            2 => Kind::Reply,
            3 => Kind::Failure,
            4 => Kind::Cast,
            5 => Kind::Ping,
            6 => Kind::Pong,
            other => return Err(FrameError::Kind(*other)),
        };
        let lane = match lane {
            0 => Lane::Urgent,
            1 => Lane::Bulk,
            other => return Err(FrameError::Lane(*other)),
        };
        let (group, rest) = numbers.split_at(8);
        let (id, trace) = rest.split_at(8);
        let number = |part: &[u8]| part.iter().fold(0u128, |n, byte| n << 8 | u128::from(*byte));
        Ok(Frame {
            kind,
            lane,
            channel: Channel(*channel),
            group: GroupId(number(group) as u64),
            id: number(id) as u64,
            trace: Trace(number(trace)),
            body: bytes.slice(HEADER_BYTES..),
        })
    }
}

impl Failure {
    pub fn new(code: FailureCode, detail: impl Into<String>) -> Failure {
        Failure { code, detail: detail.into() }
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureCode::Busy => "busy",
            FailureCode::UnknownChannel => "unknown channel",
            FailureCode::UnknownGroup => "unknown group",
            FailureCode::Malformed => "malformed",
            FailureCode::Unavailable => "unavailable",
            FailureCode::Stopped => "stopped",
            FailureCode::Unanswered => "unanswered",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let kind = prop::sample::select(vec![
            Kind::Request,
            Kind::Reply,
            Kind::Failure,
            Kind::Cast,
            Kind::Ping,
            Kind::Pong,
        ]);
        let lane = prop::sample::select(vec![Lane::Urgent, Lane::Bulk]);
        (kind, lane, any::<u8>(), any::<u64>(), any::<u64>(), any::<u128>(), any::<Vec<u8>>()).prop_map(
            |(kind, lane, channel, group, id, trace, body)| Frame {
                kind,
                lane,
                channel: Channel(channel),
                group: GroupId(group),
                id,
                trace: Trace(trace),
                body: Bytes::from(body),
            },
        )
    }

    proptest! {
        #[test]
        fn a_frame_survives_the_wire(frame in any_frame(), format in any::<u8>()) {
            prop_assert_eq!(Frame::decode(format, frame.encode(format)), Ok(frame));
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in any::<Vec<u8>>()) {
            let bytes = Bytes::from(bytes);
            let format = bytes.first().copied().unwrap_or_default();
            if let Ok(frame) = Frame::decode(format, bytes.clone()) {
                prop_assert_eq!(frame.encode(format), bytes);
            }
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let frame = Frame {
            kind: Kind::Cast,
            lane: Lane::Bulk,
            channel: Channel(7),
            group: GroupId(0x0102),
            id: 0x0304,
            trace: Trace(0x0506),
            body: Bytes::from_static(b"body"),
        };
        let mut expected = vec![9, 4, 1, 7, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4];
        expected.extend([0; 14]);
        expected.extend([5, 6]);
        expected.extend(b"body");
        assert_eq!(frame.encode(9), expected);
    }

    #[test]
    fn a_frame_of_another_format_is_refused() {
        let newer = Frame::bare(Kind::Ping, 1).encode(2);
        assert_eq!(Frame::decode(1, newer), Err(FrameError::Format { found: 2, agreed: 1 }));
    }
}
